"""Soft masks around density."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cryodc.fourier.filters import low_pass, view_mask


def density_mask(
    volume: Float[Tensor, "d h w"], threshold: float = 0.15, grow_voxels: int = 2, edge_voxels: int = 3
) -> Float[Tensor, "d h w"]:
    """1 around the density of a map, falling softly to 0, within the sphere that every rotation keeps.

    The map is low-passed to a quarter of Nyquist; what exceeds ``threshold`` of its maximum is grown by
    ``grow_voxels``. A mask of less than 2 % of the box is too tight to compute an FSC in: then, and where there
    is no density, the whole sphere is returned.
    """
    sphere = view_mask(volume.shape[-1], volume.device)
    smooth = low_pass(volume * sphere, volume.shape[-1] / 8, 2.0)
    dense = (smooth > threshold * smooth.max()).float()[None, None]
    grown = F.max_pool3d(dense, 2 * grow_voxels + 1, stride=1, padding=grow_voxels)
    for _ in range(2):
        grown = F.avg_pool3d(grown, edge_voxels, stride=1, padding=edge_voxels // 2)
    mask = grown[0, 0] * sphere
    return sphere if float(mask.mean()) < 0.02 else mask
