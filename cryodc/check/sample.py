"""A random sample of the particles, read once: voxels, weights, and every file that cannot be used."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.check.wedge_fit import measured_fraction
from cryodc.dataset import InputOptions, fit_volume, fit_weight
from cryodc.errors import InputError
from cryodc.fourier import crop_weights, fourier_crop, wedge_from_tilt_range
from cryodc.io import ImageReference, Problem, find_by_name, read_volume, read_weight
from cryodc.particles import ParticleSet

WORKING_BOX = 48
"""Larger boxes are Fourier-cropped to this: nothing measured here lies beyond."""


@dataclass(frozen=True)
class Sample:
    """Particles of a sample that could be read, in random order.

    Parameters
    ----------
    particles
        Names, poses, tomograms of these.
    volumes
        ``(n, d, h, w)`` as recorded; cropped to ``WORKING_BOX`` if larger.
    weights, weight_index
        ``(m, d, h, w // 2 + 1)`` distinct weights claimed, ``W`` where they are of RELION 4 or 5, and which of
        them each particle has; None where neither the STAR nor the options claim any.
    whitening
        Whether the weights are ``W = ΣCTF²`` of data that are ``ΣCTF · image``.
    fractions
        Share of Fourier space that each weight measures.
    problems
        One for each file or option that cannot be used.
    """

    particles: ParticleSet
    volumes: Float[Tensor, "n d h w"]
    weights: Float[Tensor, "m d h hw"] | None
    weight_index: Int[Tensor, " n"] | None
    whitening: bool
    fractions: tuple[float, ...]
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def spacing_angstrom(self) -> float:
        """Of ``volumes``."""
        return self.particles.spacing_angstrom * self.particles.box_size / self.volumes.shape[-1]


@dataclass
class _Weights:
    """Distinct weights met so far."""

    place: dict[ImageReference | tuple[float, float], int | None] = field(default_factory=dict)
    loaded: list[Tensor] = field(default_factory=list)
    fractions: list[float] = field(default_factory=list)
    whitening: bool = False

    def add(self, key: ImageReference | tuple[float, float], transfer: Tensor) -> None:
        box = transfer.shape[0]
        self.fractions.append(measured_fraction(transfer))
        self.place[key] = len(self.loaded)
        self.loaded.append(transfer if box <= WORKING_BOX else crop_weights(transfer, WORKING_BOX))


def draw_sample(n_particles: int, n_sample: int, seed: int) -> Int[NDArray[np.int64], " s"]:
    """Positions of at most ``n_sample`` particles, each equally likely, in random order."""
    return np.random.default_rng(seed).permutation(n_particles)[:n_sample].astype(np.int64)


def read_sample(particles: ParticleSet, chosen: Sequence[int] | NDArray[np.int64], options: InputOptions) -> Sample:
    """Read the voxels and weights of some particles; those that cannot be read become problems."""
    weights = _Weights()
    volumes: list[Tensor] = []
    kept: list[int] = []
    index: list[int | None] = []
    problems: list[Problem] = []
    for i in np.asarray(chosen).tolist():
        volume = read_usable(particles, i)
        if isinstance(volume, Problem):
            problems.append(volume)
            continue
        problem = _load_weight(weights, particles, i, options)
        if problem is not None:
            problems.append(problem)
        key = _weight_key(particles, i, options)
        place = None if key is None else weights.place[key]
        if place is None and isinstance(key, ImageReference):
            continue
        kept.append(i)
        index.append(place)
        volumes.append(volume if volume.shape[-1] <= WORKING_BOX else fourier_crop(volume, WORKING_BOX))
    places = [place for place in index if place is not None]
    claimed = len(kept) > 0 and len(places) == len(kept)
    empty = torch.zeros(0, *(min(particles.box_size, WORKING_BOX),) * 3)
    return Sample(
        particles.select(kept),
        torch.stack(volumes) if volumes else empty,
        torch.stack(weights.loaded) if claimed else None,
        torch.tensor(places) if claimed else None,
        weights.whitening,
        tuple(weights.fractions),
        tuple(problems),
    )


def read_usable(particles: ParticleSet, i: int) -> Float[Tensor, "d h w"] | Problem:
    """Read one particle; a problem where it cannot be read or holds no image."""
    image = particles.images[i]
    try:
        voxels = read_volume(image).voxels
        if voxels.min() == voxels.max():
            raise InputError(
                "this particle is constant: it holds no image",
                file=image.path,
                expected="grey values that differ",
                found=f"{voxels.flat[0]:g} in every voxel",
                remedy="write this volume again, or remove its row from the STAR",
            )
    except InputError as error:
        return Problem(int(particles.rows[i]), error)
    return fit_volume(particles, i, torch.from_numpy(voxels))


def _weight_key(particles: ParticleSet, i: int, options: InputOptions) -> ImageReference | tuple[float, float] | None:
    if particles.weight_images is not None:
        return particles.weight_images[i]
    return find_by_name(options.tilt_ranges or {}, particles.tomograms[i]) or options.tilt_range


def _load_weight(weights: _Weights, particles: ParticleSet, i: int, options: InputOptions) -> Problem | None:
    """Read the weight of one particle if it is new; what is wrong with it is said once."""
    key = _weight_key(particles, i, options)
    if key is None or key in weights.place:
        return None
    try:
        if isinstance(key, ImageReference):
            weight = read_weight(key, particles.grid(i).box_size)
            weights.whitening |= weight.whitening
            weights.add(key, fit_weight(particles, i, torch.from_numpy(weight.transfer)))
        else:
            weights.add(key, wedge_from_tilt_range(particles.box_size, *key, options.tilt_axis))
    except InputError as error:
        weights.place[key] = None
        return Problem(int(particles.rows[i]), error)
    return None
