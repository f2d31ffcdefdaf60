"""Tomograms on disk: boxes are read where they lie, without the rest of the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io.mrc import read_array
from cryodc.io.mrc_header import read_header


class Tomogram:
    """A tomogram whose boxes are read one at a time; a gzipped one is unpacked into memory.

    Parameters
    ----------
    path
        ``.mrc``, ``.rec`` or ``.mrc.gz``.
    spacing_angstrom
        Wins over the header; needed where the header states none.

    Raises
    ------
    InputError
        If it is no MRC volume, or its voxel spacing is not known or differs between axes.
    """

    def __init__(self, path: Path, spacing_angstrom: float | None = None) -> None:
        header = read_header(path)
        if spacing_angstrom is None and not header.is_isotropic:
            z, y, x = header.spacing_zyx_angstrom
            raise InputError(
                "the voxel spacing differs between axes",
                file=path,
                expected="one spacing",
                found=f"{z:.4g}, {y:.4g}, {x:.4g} Å (z, y, x)",
                remedy="correct the header, or give it: --spacing",
            )
        spacing = spacing_angstrom or header.spacing_angstrom
        if spacing is None:
            raise InputError("the header states no voxel spacing", file=path, remedy="give it in Å: --spacing")
        self.path = path
        self.shape = header.shape_zyx
        self.spacing_angstrom = float(spacing)
        self._voxels: NDArray[Any]
        if path.suffix == ".gz":
            self._voxels = read_array(path)
        else:
            mapped = np.memmap(path, header.dtype, "r", header.data_offset, header.file_shape)
            self._voxels = mapped.transpose(header.axes)

    def read_box(self, start: Sequence[int], size: int) -> tuple[Float[NDArray[np.float32], "s s s"], int]:
        """Read a cube from a corner (zyx, may lie outside), and count its voxels within the tomogram.

        Voxels outside are the mean of those inside; 0 where there are none.
        """
        inside: Bool[NDArray[np.bool_], ...] = np.zeros((size,) * 3, dtype=bool)
        box = np.zeros((size,) * 3, dtype=np.float32)
        low = [max(0, at) for at in start]
        high = [min(edge, at + size) for edge, at in zip(self.shape, start, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return box, 0
        target = tuple(slice(a - at, b - at) for a, b, at in zip(low, high, start, strict=True))
        read = np.asarray(self._voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], dtype=np.float32)
        inside[target] = True
        box[target] = read
        if not inside.all():
            box[~inside] = read.mean(dtype=np.float64)
        return box, read.size
