"""MRC files: volumes, sections of stacks, and arrays of any shape, ``(z, y, x)``.

Voxels are read by ``np.fromfile`` behind a checked header, which is five times faster than mrcfile; the file's
length is compared with the header's claim before memory is taken.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io.mrc_header import MrcHeader, read_header, unreadable, wrong_length
from cryodc.io.reference import ImageReference, check_cube, check_section
from cryodc.io.writing import atomic_stream
from cryodc.volumes import Volume


def read_array(reference: ImageReference | Path) -> Float[NDArray[np.float32], "d h w"]:
    """Read the voxels as float32, whatever their shape: maps, volumes of a stack, weight volumes.

    Raises
    ------
    InputError
        As :func:`read_header`; also if the section is not in the stack or a voxel is NaN or infinite.
    """
    path, section = (reference, None) if isinstance(reference, Path) else (reference.path, reference.section)
    header = read_header(path)
    check_section(header, section)
    plane = math.prod(header.file_shape[1:])
    depth = header.file_shape[0] if section is None else header.section_depth
    start = header.data_offset + (section or 0) * depth * plane * header.dtype.itemsize
    try:
        if path.suffix == ".gz":
            voxels = _read_gzip(header, start, depth * plane)
        else:
            voxels = np.fromfile(path, header.dtype, depth * plane, offset=start)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    if len(voxels) != depth * plane:
        raise wrong_length(header, start + voxels.nbytes)
    array = voxels.reshape(depth, *header.file_shape[1:]).astype(np.float32)
    if section is None:
        array = np.ascontiguousarray(array.transpose(header.axes))
    finite = np.isfinite(array)
    if not finite.all():
        raise InputError(
            "the volume holds voxels that are NaN or infinite",
            file=path,
            expected="finite numbers",
            found=f"{array.size - int(finite.sum())} of {array.size} voxels"
            + ("" if section is None else f" in section {section + 1}"),
            remedy="write this volume again, or remove its row from the STAR",
        )
    return array


def read_volume(reference: ImageReference | Path) -> Volume:
    """Read a cubic volume with its spacing (1 Å where the header does not set one).

    Raises
    ------
    InputError
        As :func:`read_array`; also if the volume is not a cube of even box size with one spacing.
    """
    path, section = (reference, None) if isinstance(reference, Path) else (reference.path, reference.section)
    header = read_header(path)
    check_section(header, section)
    check_cube(header, section)
    return Volume(read_array(reference), header.spacing_angstrom or 1.0)


def write_volume(path: Path, volume: Volume) -> None:
    """Write float32 with the voxel size set, atomically. The same volume always gives the same bytes.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_array(path, volume.voxels, volume.spacing_angstrom)


def write_array(path: Path, array: Float[NDArray[np.float32], "d h w"], spacing_angstrom: float) -> None:
    """Write an array of any shape as :func:`write_volume` does: a weight, for example.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    voxels = np.ascontiguousarray(array, dtype="<f4")
    depth, rows, columns = voxels.shape
    header = np.zeros((), HEADER_DTYPE)
    header["nx"] = header["mx"] = columns
    header["ny"] = header["my"] = rows
    header["nz"] = header["mz"] = depth
    header["mode"] = 2
    header["cella"] = tuple(spacing_angstrom * edge for edge in (columns, rows, depth))
    header["cellb"] = (90, 90, 90)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"], header["dmean"] = voxels.min(), voxels.max(), voxels.mean()
    header["rms"] = voxels.std()
    header["ispg"] = 1
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0)
    header["nlabl"] = 1
    header["label"][0] = b"cryodc"
    with atomic_stream(path) as stream:
        stream.write(header.tobytes())
        stream.write(voxels.tobytes())


def _read_gzip(header: MrcHeader, start: int, n_voxels: int) -> NDArray[Any]:
    n_bytes = n_voxels * header.dtype.itemsize
    with gzip.open(header.path) as stream:
        stream.seek(start)
        content = stream.read(n_bytes)
        # Only at the end of the stream are its checksum and its length compared.
        if start + n_bytes == header.n_bytes and (rest := len(stream.read(1))):
            raise wrong_length(header, header.n_bytes + rest)
    return np.frombuffer(content, header.dtype, len(content) // header.dtype.itemsize)
