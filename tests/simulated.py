"""Simulated particles as the library takes those it has read."""

from pathlib import Path

import numpy as np
import torch

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
