"""Simulated particles as the library takes those it has read, and volumes that are known everywhere."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cryodc.dataset import SubtomogramDataset
from cryodc.fourier import standardise
from cryodc.io import ImageReference
from cryodc.particles import ParticleSet


def as_dataset(
    volumes: torch.Tensor, weights: torch.Tensor, index: torch.Tensor, spacing_angstrom: float = 20.0
) -> SubtomogramDataset:
    """A data set in memory, of these volumes and the weight of each."""
    n = len(volumes)
    particles = ParticleSet(
        source=Path("particles.star"),
        names=tuple(f"p{i}" for i in range(n)),
        rows=np.arange(n),
        images=tuple(ImageReference(Path(f"p{i}.mrc")) for i in range(n)),
        weight_images=None,
        tomograms=("t",) * n,
        box_size=volumes.shape[-1],
        spacing_angstrom=spacing_angstrom,
    )
    return SubtomogramDataset(particles, standardise(volumes), weights, index)


def blobs(
    shape_zyx: Sequence[int], centres_zyx: ArrayLike, sigma: float, heights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Gaussian blobs in a volume, at places in voxels from its first voxel, of height 1 where none is given."""
    grid = np.stack(np.indices(tuple(shape_zyx), dtype=np.float64), axis=-1)
    centres = np.asarray(centres_zyx, dtype=np.float64)
    heights = np.ones(len(centres)) if heights is None else np.asarray(heights, dtype=np.float64)
    total = np.zeros(tuple(shape_zyx))
    for height, centre in zip(heights, centres, strict=True):
        total += height * np.exp(-np.square(grid - centre).sum(axis=-1) / (2 * sigma**2))
    return total


def centred_blobs(centres: torch.Tensor, box: int, sigma: float) -> torch.Tensor:
    """Blobs of height 1 in a cubic box, at places in voxels from its middle, in the order of the axes."""
    return torch.from_numpy(blobs((box,) * 3, centres.double().numpy() + box // 2, sigma)).float()
