"""Tilt ranges by tomogram, from a table or from files of tilt angles."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from cryodc.errors import InputError
from cryodc.io import number_of, read_text
from cryodc.tilt_angles.series import TiltAngles, read_series, series_ending

Range = tuple[float, float]
_SAME_DEGREES = 0.05
_FILES = ".tlt, .rawtlt, .mdoc, Warp's .xml and .tomostar, RELION's tomograms.star and tilt series, AreTomo's .aln"


def read_tilt_ranges(path: Path) -> dict[str, Range]:
    """Read the tilt range of each tomogram, in degrees.

    Parameters
    ----------
    path
        A table ``tomogram,tilt_min,tilt_max``; a file of tilt angles: ``.tlt``, ``.rawtlt``, ``.mdoc``, ``.xml`` and
        ``.tomostar`` (Warp), ``.aln`` (AreTomo), ``.star`` (RELION); or a folder of such files, looked through with the
        folders in it. There a file that an alignment wrote wins over the angles of the microscope.

    Raises
    ------
    InputError
        If a file cannot be read or tells no range, or two files of equal rank tell different ranges of one tomogram.
    """
    if path.is_dir():
        return _read_files(sorted(file for pattern in ("*", "*/*") for file in path.glob(pattern)), path)
    return _read_files([path], path) if series_ending(path.name) else _read_table(path)


def _read_files(files: Iterable[Path], asked: Path) -> dict[str, Range]:
    found: dict[str, tuple[Path, TiltAngles]] = {}
    for file in files:
        if not series_ending(file.name) or (not file.is_file() and file != asked):
            continue
        for name, series in read_series(file).items():
            if len(series.angles) < 2:
                continue
            other = found.get(name)
            if other is None or series.aligned > other[1].aligned:
                found[name] = file, series
            elif series.aligned == other[1].aligned:
                _require_same(name, other, (file, series))
    if not found:
        raise InputError(
            "no tilt angles are found",
            file=asked,
            expected=f"two angles or more of a tilt series in {_FILES}",
            remedy="give the file of the tilt series, or a table tomogram,tilt_min,tilt_max",
        )
    return {name: _range(file, series) for name, (file, series) in found.items()}


def _require_same(name: str, first: tuple[Path, TiltAngles], second: tuple[Path, TiltAngles]) -> None:
    ranges = [(series.angles.min(), series.angles.max()) for _, series in (first, second)]
    if max(abs(a - b) for a, b in zip(*ranges, strict=True)) > _SAME_DEGREES:
        told = [f"{file}: {low:g} to {high:g}" for (file, _), (low, high) in zip((first, second), ranges, strict=True)]
        raise InputError(
            f"two files tell different tilt ranges of {name}",
            file=second[0],
            expected="one",
            found="; ".join(told),
            remedy="keep the one that is meant in the folder",
        )


def _range(file: Path, series: TiltAngles) -> Range:
    low, high = (round(float(angle), 2) for angle in (series.angles.min(), series.angles.max()))
    if not -90 <= low < high <= 90:
        raise InputError(
            "these tilt angles span no range",
            file=file,
            expected="-90 <= smallest < largest <= 90",
            found=f"{low:g}, {high:g}",
        )
    return low, high


def _read_table(path: Path) -> dict[str, tuple[float, float]]:
    """``tomogram,tilt_min,tilt_max``, with or without that header line."""
    try:
        rows = list(csv.reader(io.StringIO(read_text(path, "the tilt ranges"), newline="")))
    except csv.Error as error:
        raise InputError(
            f"cannot read the tilt ranges: {error}",
            file=path,
            expected="a CSV of three columns: tomogram, tilt_min, tilt_max",
            remedy="write it anew as plain text",
        ) from error
    ranges: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#") or (not ranges and cells[0].lower() == "tomogram"):
            continue
        limits = [number_of(cell) for cell in cells[1:]]
        name = cells[0]
        low, high = limits if len(limits) == 2 else (None, None)
        if low is None or high is None or not -90 <= low < high <= 90:
            raise InputError(
                "a row of the tilt ranges cannot be used",
                file=path,
                row=number,
                expected="tomogram,tilt_min,tilt_max with -90 <= tilt_min < tilt_max <= 90",
                found=",".join(cells),
            )
        if name in ranges:
            raise InputError(f"the tomogram {name} comes twice", file=path, row=number, remedy="keep one row")
        ranges[name] = (low, high)
    if not ranges:
        raise InputError("the table of tilt ranges is empty", file=path, expected="tomogram,tilt_min,tilt_max")
    return ranges
