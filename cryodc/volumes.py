"""Volume: voxels with their spacing."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


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
