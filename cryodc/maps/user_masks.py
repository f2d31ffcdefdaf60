"""Masks that a user gives for averages: read, checked, and tested for whether their orientation matters."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.errors import InputError
from cryodc.fourier import low_pass, view_mask
from cryodc.geometry import random_rotations, resample
from cryodc.io import read_volume

Masks = Mapping[int | None, Float[Tensor, "d h w"]]
"""By class number; under None, of all others."""
_TURNS = 6
_UNCHANGED = 0.1


def read_mask(path: Path, box_size: int, spacing_angstrom: float) -> Float[Tensor, "d h w"]:
    """A mask of this box and spacing; a spacing that its header does not state is that of the averages.

    Raises
    ------
    InputError
        If it has another box or spacing, or values beyond 0 to 1.
    """
    volume = read_volume(path)
    # A header that states nothing, or exactly 1 Å, as many programs write masks, says nothing: the box must fit.
    is_stated = abs(volume.spacing_angstrom - 1) > 1e-4
    is_other = is_stated and abs(volume.spacing_angstrom - spacing_angstrom) > 0.01 * spacing_angstrom
    if volume.box_size != box_size or is_other:
        raise InputError(
            "the mask does not fit the averages",
            file=path,
            expected=f"box {box_size} at {spacing_angstrom:g} Å",
            found=f"box {volume.box_size} at {volume.spacing_angstrom:g} Å",
            remedy="make it from a map in averages/",
        )
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    if low < -1e-3 or high > 1 + 1e-3 or high < 0.5:
        raise InputError(
            "this is no mask", file=path, expected="values from 0 to 1, 1 inside", found=f"{low:g} to {high:g}"
        )
    return torch.from_numpy(volume.voxels.copy()).float().clamp(0, 1)


def read_masks(
    paths: Mapping[int | None, Path], box_size: int, spacing_angstrom: float, any_frame: bool
) -> dict[int | None, Tensor]:
    """Masks of averages, by class number.

    Parameters
    ----------
    paths
        By class number; under None, of all others.
    box_size, spacing_angstrom
        Of the averages.
    any_frame
        Averages lie in whatever orientation alignment gives them, so only a mask that no rotation about the box
        centre changes has a meaning.

    Raises
    ------
    InputError
        If a mask does not fit, is no mask, or has an orientation where none is known.
    """
    masks = {number: read_mask(path, box_size, spacing_angstrom) for number, path in paths.items()}
    for number, path in paths.items():
        if any_frame and not is_spherical(masks[number]):
            raise InputError(
                "the mask has an orientation, but averages aligned from nothing have an arbitrary one",
                file=path,
                expected="poses in the STAR, or a mask that is the same from all sides of the box centre",
                found="a mask that changes when it is turned",
                remedy="average without --mask, make the mask from averages/classNNN.mrc, and start a run from "
                "averages/particles.star, whose poses it fits",
            )
    return masks


def mask_of(number: int, masks: Masks) -> Float[Tensor, "d h w"] | None:
    """The mask of a class; None where it has none of its own."""
    return masks.get(number, masks.get(None))


def is_spherical(mask: Float[Tensor, "d h w"]) -> bool:
    """Whether turning a mask about the box centre changes less than a tenth of it, but for what sampling changes."""
    sphere = view_mask(mask.shape[-1], mask.device)
    # A hard mask has corners of voxels, which turn with it.
    mask = low_pass(mask, mask.shape[-1] / 8, 2.0)
    turns = random_rotations(_TURNS, torch.Generator().manual_seed(0)).to(mask.device)
    turned = resample(mask.expand(_TURNS, -1, -1, -1).contiguous(), turns)
    inside = float((mask * sphere).sum())
    changed = ((turned - mask).abs() * sphere).sum(dim=(1, 2, 3))
    return inside > 0 and float(changed.max()) < _UNCHANGED * inside
