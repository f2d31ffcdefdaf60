"""Beads on a grid: Gaussians of one width."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def render_beads(
    positions_voxels: Float[Tensor, "b n 3"],
    masses: Float[Tensor, " n"],
    sigma_voxels: float,
    box_size: int,
) -> Float[Tensor, "b d h w"]:
    """Sum of Gaussians of these masses, positions zyx from the box centre (index ``N // 2``).

    Parameters
    ----------
    positions_voxels
        ``(n, b, 3)`` zyx from the box centre.
    masses
        ``(b,)`` of each bead.
    sigma_voxels
        Width of a bead.
    box_size
        Voxels.
    """
    axis = torch.arange(box_size, dtype=positions_voxels.dtype) - box_size // 2
    gauss = torch.exp(-0.5 * ((axis - positions_voxels[..., None]) / sigma_voxels) ** 2)
    gauss = gauss / (sigma_voxels * math.sqrt(2 * math.pi))
    z, y, x = gauss.unbind(dim=2)
    plane = (z * masses[:, None])[..., :, None] * y[..., None, :]
    return (plane.flatten(2).transpose(1, 2) @ x).reshape(-1, box_size, box_size, box_size)
