"""MRC headers: what one says, and whether its file can hold that. Shapes are ``(z, y, x)``.

Headers follow MRC2014, with mrcfile's header type.
"""

import gzip
import math
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from cryodc.errors import InputError

_MOST_EXPANSION = 1032
"""Bytes that one byte of a gzip file can stand for: deflate repeats at most 258 bytes in two bits."""
_MOST_UNPACKED = 4 << 30
_HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_STACK_SPACE_GROUP = 401
_IMOD_STAMP = 1146047817
_IMOD_SIGNED_BYTES = 1


@dataclass(frozen=True)
class MrcHeader:
    """What a header says.

    Parameters
    ----------
    path
        The file.
    file_shape
        Sections, rows, columns as they lie in the file.
    axes
        Position of z, y and x among the file's axes: ``(0, 1, 2)`` but for permuted maps.
    mode
        0 int8, 1 int16, 2 float32, 6 uint16, 12 float16.
    byte_order
        ``"<"`` or ``">"``.
    data_offset
        Where the voxels begin, bytes.
    section_depth
        Planes of one volume: less than the whole where the file is a stack of volumes.
    spacing_zyx_angstrom
        Voxel spacing, 0 where it is not set.
    is_flat
        Whether its least and largest grey value are stated as one number, or as none.
    has_unsigned_bytes
        Whether mode 0 means bytes from 0 to 255, as older programs write it.
    """

    path: Path
    file_shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    mode: int
    byte_order: str
    data_offset: int
    section_depth: int
    spacing_zyx_angstrom: tuple[float, float, float]
    is_flat: bool = False
    has_unsigned_bytes: bool = False

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Shape of the whole file, z, y, x."""
        z, y, x = (self.file_shape[axis] for axis in self.axes)
        return z, y, x

    @property
    def n_sections(self) -> int:
        """Volumes in the file."""
        return self.file_shape[0] // self.section_depth

    @property
    def spacing_angstrom(self) -> float | None:
        """Voxel spacing along x, or None where the header does not say."""
        return self.spacing_zyx_angstrom[2] or None

    @property
    def is_isotropic(self) -> bool:
        """Whether the three spacings agree within 1 %; where any is not set, nothing disagrees."""
        low, high = min(self.spacing_zyx_angstrom), max(self.spacing_zyx_angstrom)
        return low == 0 or high <= 1.01 * low

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel in the file."""
        return np.dtype(self.byte_order + ("u1" if self.has_unsigned_bytes else _MODES[self.mode]))

    @property
    def n_bytes(self) -> int:
        """Length the file must have."""
        return self.data_offset + math.prod(self.file_shape) * self.dtype.itemsize

    def section_shape(self, section: int | None) -> tuple[int, int, int]:
        """Shape z, y, x of one volume of the stack, or of the whole file."""
        return self.shape_zyx if section is None else (self.section_depth, *self.file_shape[1:])


def read_header(path: Path) -> MrcHeader:
    """Read 1,024 bytes and check them against the length of the file.

    Raises
    ------
    InputError
        If the file is missing, no MRC file, of a mode without real numbers, or of another length than its
        header claims: truncated files are found here. (The length of a ``.gz`` shows only
        when it is read; no more is read than the header claims.)
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # A pipe would never answer and a device never end.
            raise InputError("this is not a file", file=path, expected="an MRC file", found="a folder, pipe or device")
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                head = stream.read(_HEADER_BYTES)
            n_bytes = None
        else:
            with path.open("rb") as file:
                head = file.read(_HEADER_BYTES)
                n_bytes = os.fstat(file.fileno()).st_size
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    header = _parse_header(path, head)
    if n_bytes is not None and n_bytes != header.n_bytes:
        raise wrong_length(header, n_bytes)
    if n_bytes is None and header.n_bytes > _MOST_EXPANSION * path.stat().st_size:
        raise InputError(
            "the compressed file is too short for what its header claims",
            file=path,
            expected=f"{header.n_bytes:,} bytes when read",
            found=f"{path.stat().st_size:,} bytes, which hold at most {_MOST_EXPANSION} times as many",
            remedy="copy or reconstruct it again",
        )
    if n_bytes is None and header.n_bytes > _MOST_UNPACKED:
        raise InputError(
            "the compressed file is too large to be read as it is",
            file=path,
            expected=f"at most {_MOST_UNPACKED:,} bytes when read",
            found=f"{header.n_bytes:,}",
            remedy="unpack it with `gunzip`: then only what is needed of it is read",
        )
    return header


def wrong_length(header: MrcHeader, n_bytes: int) -> InputError:
    """Describe a file whose length is not what its header claims."""
    shape = " × ".join(str(edge) for edge in header.file_shape)
    return InputError(
        "the file is truncated" if n_bytes < header.n_bytes else "the file is longer than its header says",
        file=header.path,
        expected=f"{header.n_bytes} bytes for {shape} voxels of mode {header.mode}",
        found=f"{n_bytes} bytes",
        remedy="copy or reconstruct it again",
    )


def unreadable(path: Path, error: Exception) -> InputError:
    """Describe a file that the system or gzip would not read."""
    if isinstance(error, FileNotFoundError):
        return InputError("the file does not exist", file=path, expected="an MRC file")
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"cannot read the MRC file: {reason}", file=path, remedy="copy or reconstruct it again")


def _parse_header(path: Path, head: bytes) -> MrcHeader:
    if len(head) < _HEADER_BYTES:
        raise InputError(
            "the file ends within its header",
            file=path,
            expected=f"at least {_HEADER_BYTES} bytes",
            found=f"{len(head)} bytes",
            remedy="copy or reconstruct it again",
        )
    order, raw = _read_fields(path, head)
    columns, rows, planes, mode = (int(raw[field]) for field in ("nx", "ny", "nz", "mode"))
    if mode not in _MODES:
        raise InputError(
            "this MRC mode cannot be used",
            file=path,
            expected="mode 0 (int8), 1 (int16), 2 (float32), 6 (uint16) or 12 (float16)",
            found=f"mode {mode}",
            remedy="write the volumes as float32",
        )
    stored = tuple(int(raw[field]) for field in ("maps", "mapr", "mapc"))
    stored = stored if any(stored) else (3, 2, 1)
    if sorted(stored) != [1, 2, 3] or int(raw["nsymbt"]) < 0 or bytes(raw["map"])[:3] not in (b"MAP", b""):
        raise InputError(
            "this is not an MRC file",
            file=path,
            expected="'MAP ' at byte 209, axes 1, 2, 3 and an extended header of positive length",
            found=f"{bytes(raw['map'])!r}, axes {stored}, extended header {int(raw['nsymbt'])} bytes",
        )
    grid = [int(raw[field]) for field in ("mz", "my", "mx")]
    cell = [float(raw["cella"][axis]) for axis in ("z", "y", "x")]
    with np.errstate(all="ignore"):
        z, y, x = (_spacing(edge, n) for edge, n in zip(cell, grid, strict=True))
    is_stack = int(raw["ispg"]) >= _STACK_SPACE_GROUP and 0 < grid[0] <= planes
    return MrcHeader(
        path=path,
        file_shape=(planes, rows, columns),
        axes=(stored.index(3), stored.index(2), stored.index(1)),
        mode=mode,
        byte_order=order,
        data_offset=_HEADER_BYTES + int(raw["nsymbt"]),
        section_depth=grid[0] if is_stack else min(rows, planes),
        spacing_zyx_angstrom=(z, y, x),
        is_flat=not float(raw["dmin"]) < float(raw["dmax"]) and not float(raw["dmin"]) > float(raw["dmax"]),
        has_unsigned_bytes=mode == 0 and _are_bytes_unsigned(order, head, float(raw["dmin"]), float(raw["dmax"])),
    )


def _are_bytes_unsigned(order: str, head: bytes, lowest: float, highest: float) -> bool:
    """Whether mode 0 means 0 to 255: by IMOD's stamp and flags, else by the grey values that the header states.

    MRC2014 says −128 to 127; before it, most programs wrote unsigned bytes. IMOD's own rule is followed: where no
    flag says, a largest value beyond 127 means unsigned, unless the least is further below 0.
    """
    stamp, flags = struct.unpack(f"{order}2i", head[152:160])
    if stamp == _IMOD_STAMP:
        return not flags & _IMOD_SIGNED_BYTES
    return math.isfinite(lowest) and 127 < highest < 256 and highest - 127 > -lowest


def _read_fields(path: Path, head: bytes) -> tuple[str, Any]:
    """The byte order in which a header makes sense, and its fields.

    Read in the wrong order, a small number is a huge one: 65,536 is 256 from the other side. Where both make sense, the
    one whose longest edge is the shorter is right: of 64 × 64 × 65,536 the other is 2³⁰ × 2³⁰ × 256.
    """
    found = []
    for order in ("<", ">"):
        raw = np.frombuffer(head, HEADER_DTYPE.newbyteorder(order), 1)[0]
        edges = [int(raw[field]) for field in ("nx", "ny", "nz")]
        if 0 <= int(raw["mode"]) < 256 and min(edges) > 0:
            found.append((max(edges), order, raw))
    if not found:
        raise InputError(
            "this is not an MRC file",
            file=path,
            expected="an MRC header with positive dimensions",
            found="dimensions or a mode that no byte order makes sense of",
        )
    return min(found, key=lambda each: each[0])[1:]


def _spacing(edge_angstrom: float, n_intervals: int) -> float:
    if n_intervals <= 0 or not math.isfinite(edge_angstrom) or edge_angstrom <= 0:
        return 0.0
    return edge_angstrom / n_intervals
