"""Where a particle lies in its box: the top of the hill that its density makes of a broad Gaussian blob."""

from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import shell_radius

SIGMA_OF_DIAMETER = 0.3
"""Of the blob, beside the diameter of the particle."""
_STEPS = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])


def find_mass(
    volume: Float[Tensor, "d h w"], weight: Float[Tensor, "d h hw"], diameter_angstrom: float, spacing_angstrom: float
) -> Int[NDArray[np.int64], " 3"]:
    """Where the mass nearest to the centre lies, in whole voxels from the centre, zyx.

    The particle is correlated with a Gaussian blob under its weight. From the centre of the box the way goes uphill,
    voxel by voxel. So a neighbour at the edge of the box, which may weigh more, is not taken for the particle, unless
    there is no valley between the two.

    Parameters
    ----------
    volume, weight
        Protein positive; what the particle's Fourier voxels count.
    diameter_angstrom
        About, of the particle. The blob has σ = 0.3 of it.
    spacing_angstrom
        Å per voxel.
    """
    box = volume.shape[-1]
    sigma = SIGMA_OF_DIAMETER * diameter_angstrom / spacing_angstrom
    blob = torch.exp(-2 * (torch.pi * sigma / box * shell_radius(box, volume.device)).square())
    hill = torch.fft.irfftn(torch.fft.rfftn(volume) * weight * blob, s=volume.shape).cpu().numpy()
    place = np.zeros(3, dtype=np.int64)
    while np.abs(place).max() < box // 2 - 1:
        around = place + _STEPS
        heights = hill[tuple((around + box // 2).T)]
        if heights.max() <= hill[tuple(place + box // 2)]:
            break
        place = around[heights.argmax()]
    return place
