"""A small cube as an MRC file."""

import struct
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray


def _cube(dtype: str = "f4", box: int = 6) -> NDArray[Any]:
    values = np.random.default_rng(1).integers(-100, 100, (box, box, box))
    return (np.abs(values) if dtype == "u2" else values).astype(dtype)


def _write(path: Path, voxels: NDArray[Any], spacing: float = 4.0) -> Path:
    with mrcfile.new(path, voxels, overwrite=True) as mrc:
        mrc.voxel_size = spacing
    return path


def _poke(path: Path, offset: int, layout: str, *values: int | float) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(layout, *values))
