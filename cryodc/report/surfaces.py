"""Volumes as the page turns them: small, in 256 grey values, with the level of their surface."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.figures import surface_threshold
from cryodc.fourier import low_pass
from cryodc.report.embed import packed
from cryodc.volumes import Volume

_EDGE, _SMALL_EDGE = 48, 32
_MANY = 12


@dataclass(frozen=True)
class TurnedVolume:
    """One or more volumes of one grey scale, drawn one at a time.

    Parameters
    ----------
    edge
        Voxels along each axis.
    names
        Of the frames, in their order.
    level
        Of the surface, 0 to 1 between black and white.
    voxels
        ``(frames, d, h, w)`` bytes, packed.
    """

    edge: int
    names: tuple[str, ...]
    level: float
    voxels: str


def turned_volume(volumes: Sequence[Volume], names: Sequence[str], n_beside: int = 1) -> TurnedVolume:
    """Shrink volumes of one box for the page.

    Parameters
    ----------
    volumes
        At least one.
    names
        Of each.
    n_beside
        How many are on the page: many are made smaller.
    """
    edge = min(_EDGE if n_beside <= _MANY else _SMALL_EDGE, volumes[0].box_size)
    small = np.stack([_shrunk(volume.voxels, edge) for volume in volumes])
    # All frames have the surface of the middle one, so that what moves is seen to move.
    middle = small[len(small) // 2]
    dark, bright = float(np.median(middle)), float(small.max())
    scale = max(bright - dark, 1e-9)
    grey = np.round(np.clip((small - dark) / scale, 0, 1) * 255).astype(np.uint8)
    level = float(np.clip((surface_threshold(middle) - dark) / scale, 0.02, 0.98))
    return TurnedVolume(edge, tuple(names), round(level, 4), packed(grey.tobytes()))


def _shrunk(voxels: Float[NDArray[np.float32], "d h w"], edge: int) -> Float[NDArray[np.float32], "e e e"]:
    box = len(voxels)
    smooth = low_pass(torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32)), min(0.3 * box, 0.45 * edge))
    if edge == box:
        return smooth.numpy()
    return F.interpolate(smooth[None, None], size=(edge,) * 3, mode="trilinear", align_corners=False)[0, 0].numpy()
