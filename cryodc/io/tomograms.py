"""Tomograms: their names, and on disk, where boxes are read without the rest of the file.

A tomogram has one name in a STAR, another in a table and a third on disk. Two names are the same where they are equal
without folder and without the endings of files; failing that, where they are equal without what programs add
(:data:`ADDED`) too. Names that merely begin alike are different tomograms: Position_1 is not Position_1_2.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io.mrc import read_array
from cryodc.io.mrc_header import read_header

T = TypeVar("T")
_ANGSTROM: dict[str | None, float] = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4, None: 0.0}
"""Å in units of OME-Zarr; 0 is not known."""
# Python reads no number of thousands of digits.
_MOST_DIGITS = 18
FILE_ENDINGS = (".gz", ".mrc", ".mrcs", ".rec", ".st", ".ali", ".map", ".tomostar", ":mrc", ":mrcs", ".zarr", ".ome")
"""Endings of files: never part of a name."""
ADDED = ("_10.00Apx", "_rec", "_full", "_full_rec", "_ali", "_aligned", "_bin4", "_b4", "_deconv", "_denoised",
         "_corrected", "_Vol", "rec_")  # fmt: skip
"""What programs add to the name of a tilt series, with examples of numbers: behind it, and RELION 5 before it."""
_ADDED_BEHIND = re.compile(
    r"(_\d+(\.\d+)?Apx|_rec|_full|_ali|_aligned|_bin\d+|_b\d+|_deconv|_denoised|_corrected|_Vol)$", re.IGNORECASE
)


@lru_cache(maxsize=65536)
def tomogram_stem(name: str) -> str:
    """Name without folder and :data:`FILE_ENDINGS`.

    Examples
    --------
    >>> [tomogram_stem(name) for name in ("a/TS_01.mrc", "TS_01.rec.gz", "TS.01", "TS_01.tomostar", "TS_01.st:mrc")]
    ['TS_01', 'TS_01', 'TS.01', 'TS_01', 'TS_01']
    """
    stem, before = name.replace("\\", "/").rsplit("/", 1)[-1], ""
    while stem != before:
        before = stem
        for ending in FILE_ENDINGS:
            stem = stem.removesuffix(ending)
    return stem


@lru_cache(maxsize=65536)
def series_name(name: str) -> str:
    """:func:`tomogram_stem` without what programs add to it (:data:`ADDED`).

    Examples
    --------
    >>> [series_name(name) for name in ("TS_01_10.00Apx.mrc", "tomo.mrc_15.00Apx.mrc", "rec_TS_01.mrc", "TS_1_2.rec")]
    ['TS_01', 'tomo', 'TS_01', 'TS_1_2']
    """
    stem, before = tomogram_stem(name), ""
    while stem != before:
        before = stem
        stem = tomogram_stem(_ADDED_BEHIND.sub("", stem)) or before
    return stem.removeprefix("rec_") or stem


def last_number(stem: str) -> int | None:
    """Last number in a name, or None."""
    digits = "".join(c if c.isascii() and c.isdigit() else " " for c in stem).split()
    return int(digits[-1]) if digits and len(digits[-1]) <= _MOST_DIGITS else None


def find_name(name: str, names: Sequence[str], *, file: Path | None = None, row: int | None = None) -> int | None:
    """Which of these names is the same tomogram, as this module defines it; None where none is.

    A bare number, as Dynamo and STOPGAP have, is the tomogram whose last number it is, where no name is equal.

    Parameters
    ----------
    name, names
        Of one tomogram, and of those that it may be.
    file, row
        Where ``name`` stands, for the error.

    Raises
    ------
    InputError
        If several are: both are shown.

    Examples
    --------
    >>> find_name("Position_1", ["Position_1_2.mrc", "Position_1_10.00Apx.mrc"]), find_name("7", ["TS_07.rec"])
    (1, 0)
    """
    stem = tomogram_stem(name)
    found = [i for i, other in enumerate(names) if other == name]
    if not found:
        found = [i for i, other in enumerate(names) if tomogram_stem(other) == stem]
    if not found:
        found = [i for i, other in enumerate(names) if series_name(other) == series_name(name)]
    if not found and stem.isascii() and stem.isdigit() and len(stem) <= _MOST_DIGITS:
        found = [i for i, other in enumerate(names) if last_number(series_name(other)) == int(stem)]
    distinct = list(dict.fromkeys(names[i] for i in found))
    if len(distinct) > 1:
        raise InputError(
            f"{name} could be several tomograms",
            file=file,
            row=row,
            expected="one of them",
            found=", ".join(distinct[:6]) + (", …" if len(distinct) > 6 else ""),
            remedy="give only the one that is meant, or name the tomogram in full",
        )
    return found[0] if found else None


def find_by_name(table: Mapping[str, T], name: str) -> T | None:
    """What a table says of a tomogram, by :func:`find_name`; None where it has no such tomogram.

    Raises
    ------
    InputError
        If several rows could be meant.
    """
    if name in table:
        return table[name]
    keys = list(table)
    found = find_name(name, keys)
    return None if found is None else table[keys[found]]


def file_names(names: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Give each tomogram a name for its files: letters that trouble no file system or STAR, and no two alike.

    Where names are equal without their folders, the folder goes in front: ``a/TS.mrc`` and ``b/TS.mrc`` are ``a_TS``
    and ``b_TS``.

    Parameters
    ----------
    names
        Those of one output folder.
    taken
        Endings of other files of a tomogram: no name is another and such an ending.
    """
    distinct = list(dict.fromkeys(names))
    stems = [tomogram_stem(name) for name in distinct]
    given: dict[str, str] = {}
    used: set[str] = set()
    for name, stem in zip(distinct, stems, strict=True):
        folder = name.replace("\\", "/").rpartition("/")[0].replace("/", "_")
        text = f"{folder}_{stem}" if folder and stems.count(stem) > 1 else stem
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-+") else "_" for c in text)
        plain = base = plain.lstrip(".-")[:100] or "tomogram"
        number = 1
        while not used.isdisjoint({plain.lower(), *(f"{plain}{ending}".lower() for ending in taken)}):
            number += 1
            plain = f"{base}_{number}"
        used |= {plain.lower(), *(f"{plain}{ending}".lower() for ending in taken)}
        given[name] = plain
    return given


class Tomogram:
    """A tomogram whose boxes are read one at a time; a gzipped one is unpacked into memory.

    Parameters
    ----------
    path
        ``.mrc``, ``.rec`` or ``.mrc.gz``; or an OME-Zarr folder, of which the finest level is read.
    spacing_angstrom
        Wins over the file; needed where it states none.

    Raises
    ------
    InputError
        If it is no MRC volume and no OME-Zarr, or its voxel spacing is not known or differs between axes.
    """

    def __init__(self, path: Path, spacing_angstrom: float | None = None) -> None:
        self.path = path
        self._voxels: Any
        if path.is_dir():
            self._voxels, spacing_zyx = _open_ome_zarr(path)
        else:
            header = read_header(path)
            spacing_zyx = header.spacing_zyx_angstrom
            if path.suffix == ".gz":
                self._voxels = read_array(path)
            else:
                mapped = np.memmap(path, header.dtype, "r", header.data_offset, header.file_shape)
                self._voxels = mapped.transpose(header.axes)
        z, y, x = spacing_zyx
        if spacing_angstrom is None and min(spacing_zyx) > 0 and max(spacing_zyx) > 1.01 * min(spacing_zyx):
            raise InputError(
                "the voxel spacing differs between axes",
                file=path,
                expected="one spacing",
                found=f"{z:.4g}, {y:.4g}, {x:.4g} Å (z, y, x)",
                remedy="correct the header, or give it: --spacing",
            )
        spacing = spacing_angstrom or x
        if not spacing:
            raise InputError("the header states no voxel spacing", file=path, remedy="give it in Å: --spacing")
        self.shape: tuple[int, int, int] = tuple(self._voxels.shape)
        self.spacing_angstrom = float(spacing)

    def read_box(self, start: Sequence[int], size: int) -> tuple[Float[NDArray[np.float32], "s s s"], int]:
        """Read a cube from a corner (zyx, may lie outside), and count its voxels within the tomogram.

        Voxels outside are the mean of those inside; 0 where there are none.

        Raises
        ------
        InputError
            If a chunk of an OME-Zarr is damaged.
        """
        inside: Bool[NDArray[np.bool_], ...] = np.zeros((size,) * 3, dtype=bool)
        box = np.zeros((size,) * 3, dtype=np.float32)
        low = [max(0, at) for at in start]
        high = [min(edge, at + size) for edge, at in zip(self.shape, start, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return box, 0
        target = tuple(slice(a - at, b - at) for a, b, at in zip(low, high, start, strict=True))
        try:
            cut = self._voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        # What a damaged chunk raises is up to its codec.
        except Exception as error:
            raise InputError(
                f"the voxels cannot be read: {error}",
                file=self.path,
                expected="every chunk of the tomogram, whole",
                remedy="copy or write the tomogram again",
            ) from error
        read = np.asarray(cut, dtype=np.float32)
        inside[target] = True
        box[target] = read
        if not inside.all():
            box[~inside] = read.mean(dtype=np.float64)
        return box, read.size


def _open_ome_zarr(path: Path) -> tuple[Any, tuple[float, float, float]]:
    """The finest level, and its spacing in Å, z, y, x: versions 0.4 (zarr 2) and 0.5 (zarr 3) of the format."""
    try:
        import zarr
    except ImportError as error:
        raise InputError("zarr is not installed", remedy="in your clone of cryodc: pip install '.[zarr]'") from error
    try:
        group: Any = zarr.open_group(str(path), mode="r")
        told = dict(group.attrs)
        image = told.get("ome", told)["multiscales"][0]
        level = image["datasets"][0]
        scale = np.ones(3)
        for part in (*level["coordinateTransformations"], *image.get("coordinateTransformations", ())):
            if part["type"] == "scale":
                scale = scale * np.array(part["scale"][-3:], dtype=np.float64)
        units = [_ANGSTROM[axis.get("unit")] for axis in image["axes"][-3:]]
        names = [axis["name"] for axis in image["axes"][-3:]]
        voxels = group[level["path"]]
        if names != ["z", "y", "x"] or voxels.ndim != 3 or voxels.dtype.kind not in "iuf":
            raise ValueError(f"axes {', '.join(names)}, {voxels.ndim} dimensions of {voxels.dtype}")
    # What damaged metadata raise is up to zarr.
    except Exception as error:
        raise InputError(
            "this folder is no OME-Zarr tomogram",
            file=path,
            expected="multiscales with axes z, y, x in angstrom, nanometer or micrometer, and the scale of each level",
            found=f"{type(error).__name__}: {error}".splitlines()[0][:100],
        ) from error
    z, y, x = (float(value) for value in scale * np.array(units))
    return voxels, (z, y, x)
