"""Motivelists of TOM, AV3 and Artiatomi, which ArtiaX writes too: an EM file of 20 numbers per particle.

An EM file is a header of 512 bytes (machine code, data type in byte 3, three sizes from byte 4) and its numbers. Of
the 20: 5 tomogram, 8–10 position (the first voxel is 1), 11–13 shift, 17–19 phi, psi, theta, 20 class, as STOPGAP,
their successor, has them.
"""

import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.io import read_bytes
from cryodc.particles import coordinate_frame
from cryodc.picks.columns import classes_of, tomogram_numbers
from cryodc.picks.picks import Picks

_HEADER_BYTES = 512
_N_NUMBERS = 20
_NEEDED = [4, 7, 8, 9, 10, 11, 12, 16, 17, 18]
_LITTLE_ENDIAN_MACHINE = 6
_TYPES = {5: "f4", 9: "f8"}


def read_em_motivelist(path: Path) -> Picks:
    """Read the picks of an EM motivelist; :func:`cryodc.picks.formats.read_picks` calls it for ``.em``.

    Raises
    ------
    InputError
        If it is no EM file of 20 finite real numbers per particle, or is truncated.
    """
    content = read_bytes(path, "the picks")
    order = "<" if content[:1] == bytes([_LITTLE_ENDIAN_MACHINE]) else ">"
    sizes = struct.unpack(f"{order}3i", content[4:16]) if len(content) >= _HEADER_BYTES else (0, 0, 0)
    kind = _TYPES.get(content[3]) if len(content) >= _HEADER_BYTES else None
    if kind is None or sizes[0] != _N_NUMBERS or sizes[1] < 0 or sizes[2] != 1:
        raise InputError(
            "this is no EM motivelist",
            file=path,
            expected=f"an EM header of {_HEADER_BYTES} bytes, {_N_NUMBERS} × n × 1 real numbers",
            found=f"{len(content)} bytes, {' × '.join(map(str, sizes))} numbers",
        )
    expected = _HEADER_BYTES + sizes[0] * sizes[1] * int(kind[1])
    if len(content) != expected:
        raise InputError(
            "the motivelist is truncated" if len(content) < expected else "the motivelist is longer than it says",
            file=path,
            expected=f"{expected} bytes for {sizes[1]} particles",
            found=f"{len(content)} bytes",
        )
    table = np.frombuffer(content, f"{order}{kind}", offset=_HEADER_BYTES).astype(np.float64).reshape(-1, _N_NUMBERS)
    bad = np.flatnonzero(~np.isfinite(table[:, _NEEDED]).all(axis=1))
    if len(bad):
        raise InputError(
            "expected finite numbers",
            file=path,
            row=int(bad[0]) + 1,
            expected="the tomogram, position, shift and angles of each particle",
            found=", ".join(f"{number:g}" for number in table[bad[0], _NEEDED]),
        )
    xyz = table[:, 7:10] + table[:, 10:13]
    frame = coordinate_frame("EM")
    matrices = np.zeros((0, 3, 3))
    if len(table):
        matrices = Rotation.from_euler("zxz", table[:, [16, 18, 17]], degrees=True).as_matrix()
    rows = np.arange(1, len(table) + 1, dtype=np.int64)
    classes, unread = classes_of(table[:, 19], rows, "row 20 (class)")
    return Picks(
        path,
        "EM motivelist",
        rows,
        tomogram_numbers(table[:, 4], rows, path),
        np.ascontiguousarray(xyz[:, ::-1]) - frame.first_voxel,
        frame,
        rotations=np.ascontiguousarray(matrices[:, ::-1, ::-1]),
        classes=classes,
        left_out=("score", "particle number", "object", "rows 2, 3, 7 and 14 to 16", *unread),
    )
