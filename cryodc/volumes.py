"""Volume: voxels with their spacing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError

SPACING_RANGE_ANGSTROM = (0.05, 1000.0)
"""Voxel spacings that particles can have: a smaller voxel is a part of an atom, a larger one a whole particle."""


def is_spacing(value_angstrom: float) -> bool:
    """Whether a number can be the voxel spacing of particles; NaN and infinity cannot."""
    low, high = SPACING_RANGE_ANGSTROM
    return low <= value_angstrom <= high


def no_spacing(whose: str, found_angstrom: float, file: Path, row: int | None = None) -> InputError:
    """Describe a voxel spacing that no particles have.

    Parameters
    ----------
    whose
        What has it: "the pixel size".
    found_angstrom
        The spacing.
    file, row
        Where it stands.
    """
    low, high = SPACING_RANGE_ANGSTROM
    return InputError(
        f"{whose} is beyond any that particles have",
        file=file,
        row=row,
        expected=f"{low:g} to {high:g} Å per voxel",
        found=f"{found_angstrom:g} Å",
        remedy="correct it; it may be in nanometres, or not be a pixel size at all",
    )


@dataclass(frozen=True)
class Volume:
    """A cubic map, average or half map: ``(d, h, w)`` float32 voxels and their spacing in Å.

    Protein is positive (white). The centre is index ``N // 2``.

    Raises
    ------
    ValueError
        If the voxels are not a cube of even box size, or the spacing is not positive.
    """

    voxels: Float[NDArray[np.float32], "d h w"]
    spacing_angstrom: float

    def __post_init__(self) -> None:
        shape = self.voxels.shape
        if len(shape) != 3 or len(set(shape)) != 1 or shape[0] % 2:
            raise ValueError(f"expected a cube with an even box size, found shape {shape}")
        if not self.spacing_angstrom > 0:
            raise ValueError(f"expected a positive voxel spacing, found {self.spacing_angstrom}")

    @property
    def box_size(self) -> int:
        """Edge of the box, voxels."""
        return int(self.voxels.shape[0])
