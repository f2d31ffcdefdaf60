"""Particles as read: whitened, cropped and standardised, each with its weight.

Every particle is ``F_i = H_i · V + white noise``: ``H_i`` is its weight, ``V`` the protein in its pose. A binary
wedge and a Warp or RELION 3 CTF volume are ``H_i`` as they stand. RELION 4 and 5 write ``ΣCTF · image`` beside
``W = ΣCTF²``, whose noise has variance ``W``: divided by ``√W`` it takes the same form with ``H = √W``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.errors import InputError
from cryodc.fourier import (
    TiltAxis,
    crop_weights,
    fourier_crop,
    regrid,
    regrid_weights,
    standardise,
    wedge_from_tilt_range,
)
from cryodc.io import ImageReference, find_by_name, read_volume, read_weight
from cryodc.particles import ParticleSet

_WHITENING_FLOOR = 1e-3
WeightSource = ImageReference | tuple[float, float]
"""A weight volume, or the tilt range of a binary wedge."""


@dataclass(frozen=True)
class InputOptions:
    """The wedge of particles whose STAR names no weight volume, and the contrast of the input.

    Parameters
    ----------
    tilt_range
        ``(min, max)`` degrees for every tomogram not in ``tilt_ranges``.
    tilt_ranges
        Per tomogram.
    tilt_axis
        The axis the specimen was tilted about.
    invert
        Multiply every particle by −1: input that is black on white.

    Raises
    ------
    InputError
        If a tilt range is none, whether or not the particles need one.
    """

    tilt_range: tuple[float, float] | None = None
    tilt_ranges: Mapping[str, tuple[float, float]] | None = None
    tilt_axis: TiltAxis = "y"
    invert: bool = False

    def __post_init__(self) -> None:
        for low, high in [self.tilt_range or (-60, 60), *(self.tilt_ranges or {}).values()]:
            if not -90 <= low < high <= 90:
                raise InputError(
                    "this tilt range is none",
                    expected="-90 <= MIN < MAX <= 90, in degrees",
                    found=f"{low:g} to {high:g}",
                    remedy="give the smallest tilt angle first, for example --tilt-range -60 60",
                )


class ParticleReader:
    """Reads particles in any order; holds no volume.

    Parameters
    ----------
    particles
        As in their STAR.
    options
        Wedge and contrast.
    box_size
        Even, in voxels: a smaller box than the particles' means a coarser spacing, by Fourier cropping.

    Attributes
    ----------
    particles
        With the box size and spacing they are read at.
    weight_index
        ``(n,)``: which of the distinct weights each particle has; numbered in the order they come up.
    n_weights
        Distinct weights.

    Raises
    ------
    InputError
        If there is no weight for a particle, or the box is odd, too small or larger than the particles'.
    """

    def __init__(
        self, particles: ParticleSet, options: InputOptions | None = None, box_size: int | None = None
    ) -> None:
        self._given, self._options = particles, options or InputOptions()
        self.particles = crop_particles(particles, box_size)
        places: dict[WeightSource, int] = {}
        index = [places.setdefault(source, len(places)) for source in self._weight_sources()]
        self._sources = tuple(places)
        self.weight_index: Int[NDArray[np.int64], " n"] = np.array(index, dtype=np.int64)
        self.n_weights = len(places)
        self._latest: tuple[int, Tensor, bool] | None = None
        self._whitens: dict[int, bool] = {}

    def read(self, start: int, stop: int) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "m d h hw"]]:
        """Volumes of the particles at these positions, and the weights that no particle before them has.

        Volumes are protein positive, of mean 0 and standard deviation 1.

        Raises
        ------
        InputError
            If a file is bad, or a particle is constant.
        """
        box = self.particles.box_size
        volumes = torch.empty(stop - start, box, box, box)
        n_before = int(self.weight_index[:start].max(initial=-1)) + 1
        n_after = int(self.weight_index[:stop].max(initial=-1)) + 1
        weights = torch.empty(n_after - n_before, box, box, box // 2 + 1)
        n_read = n_before
        for i in range(start, stop):
            place = int(self.weight_index[i])
            if place == n_read:
                transfer = self._fit_weight(i, self._transfer(place)[0])
                weights[place - n_before] = transfer if box == transfer.shape[0] else crop_weights(transfer, box)
                n_read += 1
            volumes[i - start] = self._volume(i, place)
        return volumes, weights

    def transfer(self, i: int) -> tuple[Float[Tensor, "d h hw"], bool]:
        """Weight of one particle at the box of its file, and whether it is ``√W`` of ``ΣCTF · image``.

        Raises
        ------
        InputError
            If the file is bad.
        """
        return self._transfer(int(self.weight_index[i]))

    def _volume(self, i: int, place: int) -> Float[Tensor, "d h w"]:
        image = self._given.images[i]
        volume = torch.from_numpy(read_volume(image).voxels)
        if volume.std() == 0:
            raise InputError(
                "this particle is constant: it holds no image",
                file=image.path,
                row=None,
                remedy=f"remove line {self._given.rows[i]} of {self._given.source}",
            )
        if self._must_whiten(place):
            volume = whiten(volume, self._transfer(place)[0])
        volume = fit_volume(self._given, i, volume)
        if self.particles.box_size != volume.shape[0]:
            volume = fourier_crop(volume, self.particles.box_size)
        return standardise(-volume if self._options.invert else volume)

    def _fit_weight(self, i: int, transfer: Float[Tensor, "d h hw"]) -> Float[Tensor, "D H HW"]:
        """A weight of a file on the grid of the set; the wedge of a tilt range is made there."""
        is_file = isinstance(self._sources[self.weight_index[i]], ImageReference)
        return fit_weight(self._given, i, transfer) if is_file else transfer

    def _must_whiten(self, place: int) -> bool:
        if place not in self._whitens:
            self._transfer(place)
        return self._whitens[place]

    def _transfer(self, place: int) -> tuple[Float[Tensor, "d h hw"], bool]:
        """A weight at the box of the files, and whether its particles must be whitened by it."""
        if self._latest is None or self._latest[0] != place:
            first = int(np.flatnonzero(self.weight_index == place)[0])
            transfer, whitening = self._read_transfer(self._sources[place], self._given.grid(first).box_size)
            self._latest, self._whitens[place] = (place, transfer, whitening), whitening
        return self._latest[1:]

    def _read_transfer(self, source: WeightSource, file_box: int) -> tuple[Float[Tensor, "d h hw"], bool]:
        if not isinstance(source, ImageReference):
            return wedge_from_tilt_range(self._given.box_size, *source, self._options.tilt_axis), False
        weight = read_weight(source, file_box)
        transfer = torch.from_numpy(weight.transfer)
        return (transfer.clamp_min(0).sqrt() if weight.whitening else transfer), weight.whitening

    def _weight_sources(self) -> list[WeightSource]:
        if self._given.weight_images is not None:
            return list(self._given.weight_images)
        return [_tilt_range(self._given, i, self._options) for i in range(len(self._given))]


def fit_volume(particles: ParticleSet, i: int, volume: Float[Tensor, "d h w"]) -> Float[Tensor, "D H W"]:
    """Bring the voxels of a file to the grid of the set, where optics groups differ."""
    if particles.grids is None:
        return volume
    return regrid(volume, particles.box_size, particles.spacing_angstrom / particles.grids[i].spacing_angstrom)


def fit_weight(particles: ParticleSet, i: int, weight: Float[Tensor, "d h hw"]) -> Float[Tensor, "D H HW"]:
    """Bring the weight volume of a file to the grid of the set, where optics groups differ."""
    if particles.grids is None:
        return weight
    return regrid_weights(weight, particles.box_size, particles.spacing_angstrom / particles.grids[i].spacing_angstrom)


def crop_particles(particles: ParticleSet, box_size: int | None) -> ParticleSet:
    """The particles with the box size and spacing that Fourier cropping to a smaller box gives them.

    Raises
    ------
    InputError
        If the box is odd, below 8 or larger than the particles'.
    """
    if box_size is None or box_size == particles.box_size:
        return particles
    if box_size % 2 or not 8 <= box_size <= particles.box_size:
        raise InputError(
            "particles cannot be cropped to this box",
            file=particles.source,
            expected=f"an even box from 8 to {particles.box_size} voxels",
            found=str(box_size),
            remedy="choose another --box or --spacing",
        )
    spacing = particles.spacing_angstrom * particles.box_size / box_size
    return replace(particles, box_size=box_size, spacing_angstrom=spacing)


def _tilt_range(particles: ParticleSet, i: int, options: InputOptions) -> tuple[float, float]:
    tomogram = particles.tomograms[i]
    found = find_by_name(options.tilt_ranges or {}, tomogram) or options.tilt_range
    if found is None:
        raise InputError(
            "no weight: the STAR has no rlnCtfImage, and no tilt range is given"
            + (f" for tomogram {tomogram!r}" if options.tilt_ranges else ""),
            file=particles.source,
            row=int(particles.rows[i]),
            remedy="give the tilt angles, for example --tilt-range -60 60, or per tomogram --tilt-ranges FILE.csv",
        )
    return found


def whiten(volume: Float[Tensor, "d h w"], root_weight: Float[Tensor, "d h hw"]) -> Float[Tensor, "d h w"]:
    """Divide ``ΣCTF · image`` by ``√W``, 0 where nothing was measured: its noise becomes white.

    Parameters
    ----------
    volume
        ``(d, h, w)``.
    root_weight
        ``(d, h, w // 2 + 1)``: ``√W``.
    """
    spectrum = torch.fft.rfftn(volume)
    measured = root_weight > _WHITENING_FLOOR
    whitened = torch.where(measured, spectrum / root_weight.clamp_min(_WHITENING_FLOOR), 0)
    return torch.fft.irfftn(whitened, s=volume.shape)
