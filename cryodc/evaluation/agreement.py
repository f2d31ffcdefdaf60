"""A class average against the true map: registration, then FSC inside the true map's soft mask."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from cryodc.alignment import register_map
from cryodc.fourier import fourier_shell_correlation, resolution_angstrom
from cryodc.simulation import prepare_map
from cryodc.volumes import Volume

_MASK_LEVEL = 0.05
_MASK_GROW_VOXELS = 2.0
_MASK_EDGE_VOXELS = 4.0


@dataclass(frozen=True)
class MapAgreement:
    """A map against the true one, after registration.

    Parameters
    ----------
    fsc
        ``(N // 2 + 1,)`` inside the soft mask of the true map.
    resolution_angstrom
        Where the FSC first falls below 0.5; infinity if it is below from the first shell on.
    fraction_of_nyquist
        The same as a share of the Nyquist frequency.
    moved
        The map on top of the true one.
    """

    fsc: Float[NDArray[np.float64], " shells"]
    resolution_angstrom: float
    fraction_of_nyquist: float
    moved: Volume


def compare_maps(average: Volume, truth: Volume) -> MapAgreement:
    """Turn and shift a map onto the true one, then FSC inside the true map's soft mask.

    The true map is brought to the average's grid first if its own differs. The hand is never changed.

    Raises
    ------
    InputError
        If the true map does not fit the average's box.
    """
    same_grid = average.box_size == truth.box_size and np.isclose(
        average.spacing_angstrom, truth.spacing_angstrom, rtol=1e-3
    )
    if not same_grid:
        specimen = prepare_map("truth", truth, average.box_size, average.spacing_angstrom)
        voxels = specimen.mean_map(average.box_size, average.spacing_angstrom)
        truth = Volume(voxels.numpy(), average.spacing_angstrom)
    _, _, moved = register_map(average, truth)
    mask = map_mask(truth)
    fsc = fourier_shell_correlation(torch.from_numpy(moved.voxels) * mask, torch.from_numpy(truth.voxels) * mask)
    resolution = resolution_angstrom(fsc, average.spacing_angstrom, threshold=0.5)
    return MapAgreement(fsc, resolution, 2 * average.spacing_angstrom / resolution, moved)


def map_mask(truth: Volume) -> Float[Tensor, "d h w"]:
    """Soft mask of a clean map: above 5 % of its peak, grown by 2 voxels, with a raised-cosine edge of 4."""
    inside = truth.voxels > _MASK_LEVEL * np.percentile(truth.voxels, 99.9)
    beyond = (distance_transform_edt(~inside) - _MASK_GROW_VOXELS) / _MASK_EDGE_VOXELS
    return torch.from_numpy(0.5 + 0.5 * np.cos(np.pi * np.clip(beyond, 0, 1))).float()
