"""SubtomogramDataset: a ParticleSet as tensors under one observation model.

Every particle is ``F_i = H_i · V + white noise``: ``H_i`` is its weight, ``V`` the protein in its pose. A binary
wedge and a Warp or RELION 3 CTF volume are ``H_i`` as they stand. RELION 4 and 5 write ``ΣCTF · image`` beside
``W = ΣCTF²``, whose noise has variance ``W``: divided by ``√W`` it takes the same form with ``H = √W``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.errors import InputError
from cryodc.io.mrc import read_volume
from cryodc.io.weights import read_weight
from cryodc.ops.filters import standardise
from cryodc.ops.wedge import TiltAxis, wedge_from_tilt_range
from cryodc.particles import ImageReference, ParticleSet

_WHITENING_FLOOR = 1e-3


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
    """

    tilt_range: tuple[float, float] | None = None
    tilt_ranges: Mapping[str, tuple[float, float]] | None = None
    tilt_axis: TiltAxis = "y"
    invert: bool = False


@dataclass(frozen=True)
class SubtomogramDataset:
    """Particles in memory.

    Parameters
    ----------
    particles
        Names, poses, tomograms.
    volumes
        ``(n, d, h, w)`` float32, protein positive, each of mean 0 and standard deviation 1.
    weights
        ``(m, d, h, w // 2 + 1)``: the distinct weights.
    weight_index
        ``(n,)``: which of them each particle has.
    """

    particles: ParticleSet
    volumes: Float[Tensor, "n d h w"]
    weights: Float[Tensor, "m d h hw"]
    weight_index: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.volumes)

    def weight(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b d h hw"]:
        """Weights of these particles."""
        return self.weights[self.weight_index[indices]]


def load_dataset(particles: ParticleSet, options: InputOptions | None = None) -> SubtomogramDataset:
    """Read every particle and its weight.

    Raises
    ------
    InputError
        If there is no weight for a particle, the set does not fit in memory, or a file is bad.
    """
    options = options or InputOptions()
    _require_memory(particles)
    weights, weight_index, whitening = _load_weights(particles, options)
    box = particles.box_size
    volumes = torch.empty(len(particles), box, box, box)
    for i, image in enumerate(particles.images):
        volume = torch.from_numpy(read_volume(image).voxels)
        if volume.std() == 0:
            raise InputError(
                "this particle is constant: it holds no image",
                file=image.path,
                row=None,
                remedy=f"remove line {particles.rows[i]} of {particles.source}",
            )
        if whitening[weight_index[i]]:
            volume = whiten(volume, weights[weight_index[i]])
        volumes[i] = standardise(-volume if options.invert else volume)
    return SubtomogramDataset(particles, volumes, weights, weight_index)


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


def _load_weights(
    particles: ParticleSet, options: InputOptions
) -> tuple[Float[Tensor, "m d h hw"], Int[Tensor, " n"], list[bool]]:
    """Distinct weights, which one each particle has, and whether its data must be whitened by it."""
    box = particles.box_size
    place: dict[ImageReference | tuple[float, float], int] = {}
    loaded: list[Tensor] = []
    whitening: list[bool] = []
    index = torch.empty(len(particles), dtype=torch.long)
    for i in range(len(particles)):
        if particles.weight_images is not None:
            reference = particles.weight_images[i]
            if reference not in place:
                weight = read_weight(reference, box)
                transfer = torch.as_tensor(weight.transfer)
                loaded.append(transfer.clamp_min(0).sqrt() if weight.whitening else transfer)
                whitening.append(weight.whitening)
                place[reference] = len(loaded) - 1
            index[i] = place[reference]
            continue
        tilt_range = _tilt_range(particles, i, options)
        if tilt_range not in place:
            loaded.append(wedge_from_tilt_range(box, *tilt_range, options.tilt_axis))
            whitening.append(False)
            place[tilt_range] = len(loaded) - 1
        index[i] = place[tilt_range]
    return torch.stack(loaded), index, whitening


def _tilt_range(particles: ParticleSet, i: int, options: InputOptions) -> tuple[float, float]:
    tomogram = particles.tomograms[i]
    found = (options.tilt_ranges or {}).get(tomogram, options.tilt_range)
    if found is None:
        raise InputError(
            "no weight: the STAR has no rlnCtfImage, and no tilt range is given"
            + (f" for tomogram {tomogram!r}" if options.tilt_ranges else ""),
            file=particles.source,
            row=int(particles.rows[i]),
            remedy="give the tilt angles, for example --tilt-range -60 60, or per tomogram --tilt-ranges FILE.csv",
        )
    return found


def _require_memory(particles: ParticleSet) -> None:
    n_weights = 0 if particles.weight_images is None else len(set(particles.weight_images))
    n_bytes = 4 * particles.box_size**3 * (len(particles) + n_weights / 2)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > 0.7 * physical:
        raise InputError(
            "these particles do not fit in memory",
            file=particles.source,
            expected=f"at most {0.7 * physical / 2**30:.1f} GiB",
            found=f"{len(particles)} particles of box {particles.box_size}: {n_bytes / 2**30:.1f} GiB",
            remedy="bin the particles, or train on part of them",
        )
