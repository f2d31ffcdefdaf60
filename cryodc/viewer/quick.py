"""Quick looks: the average of some particles in known poses, and one particle beside its class's average."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.dataset import SubtomogramDataset
from cryodc.errors import InputError
from cryodc.fourier import (
    backproject_particles,
    ball_weights,
    fourier_ball,
    stack_spectra,
    sums_in_ball,
    volume_from_ball,
)
from cryodc.geometry import resample
from cryodc.particles import Poses
from cryodc.volumes import Volume

MOST_PARTICLES = 2000
FINEST_VOXELS = 3
"""Resolution of a quick average: finer shells cost most of the time, and of few particles show noise alone."""
_AT_ONCE = 250


@dataclass(frozen=True)
class QuickAverage:
    """A map of some particles, and how many of them it is made of."""

    volume: Volume
    n_averaged: int
    n_chosen: int


@torch.no_grad()
def quick_average(
    dataset: SubtomogramDataset, poses: Poses, rows: Int[NDArray[np.int64], " k"], most: int = MOST_PARTICLES
) -> QuickAverage:
    """Average particles in their poses, regularised by one average particle, with no half maps.

    Parameters
    ----------
    dataset
        Of all particles of a run.
    poses
        Of all particles.
    rows
        The particles.
    most
        Of more particles, so many are taken, evenly along the STAR.

    Raises
    ------
    InputError
        If no particle is chosen.
    """
    if len(rows) == 0:
        raise InputError("no particle is chosen", remedy="draw a line round some codes first")
    taken = rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    stack = dataset.gather(torch.from_numpy(taken))
    spacing = dataset.particles.spacing_angstrom
    rotations = torch.from_numpy(poses.rotations[taken]).float()
    origins = torch.from_numpy(poses.origins_angstrom[taken] / spacing).float()
    ball = fourier_ball(stack.box_size, stack.box_size / FINEST_VOXELS)
    grid = torch.zeros(())
    for c, part in stack.batches(_AT_ONCE):
        spectra = stack_spectra(part, ball)
        grid = grid + backproject_particles(spectra.spectra, spectra.own_weights, ball, rotations[c], origins[c])
    numerator, denominator = sums_in_ball(grid, ball)
    one = ball.shell_mean(ball_weights(stack.weights, ball).square().mean(dim=0))[ball.shells].clamp_min(1e-9)
    average = volume_from_ball(numerator / (denominator + one), ball)
    return QuickAverage(Volume(average.numpy().astype(np.float32), spacing), len(taken), len(rows))


def in_pose(average: Volume, poses: Poses, row: int) -> Float[NDArray[np.float32], "d h w"]:
    """A reference as it lies in the box of one particle."""
    rotation = torch.from_numpy(poses.rotations[row]).float()[None]
    origin = torch.from_numpy(poses.origins_angstrom[row] / average.spacing_angstrom).float()
    turned = resample(torch.from_numpy(average.voxels)[None], rotation.mT, (rotation.mT @ origin))
    return turned[0].numpy()
