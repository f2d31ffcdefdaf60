"""The tilt angles that a file states, in degrees about y.

A projection at the angle θ measures the plane ``k_z = k_x tan θ`` (:func:`cryodc.fourier.wedge_from_tilt_range`). So
does rlnTomoYTilt, and IMOD's and AreTomo's angles, which RELION takes over. Warp turns by ``Ry(−(angle + level))``:
its angles have the other sign.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import ImageFinder, number_of, read_text, tomogram_stem
from cryodc.star import StarBlock, StarDocument, read_numbers, read_star, vector_of

Angles = Float[NDArray[np.float64], " t"]
_ALIGNED, _NOMINAL, _WARP, _BEAM = "rlnTomoYTilt", "rlnTomoNominalStageTiltAngle", "wrpAngleTilt", "rlnTomoProjZ"
_SERIES_FILE = "rlnTomoTiltSeriesStarFile"
_LEVELS = 4
_MDOC = re.compile(r"\s*TiltAngle\s*=(.*)")


@dataclass(frozen=True)
class TiltAngles:
    """The angles of one tomogram, in its file's order, and whether an alignment has refined them."""

    angles: Angles
    aligned: bool


def read_series(path: Path) -> dict[str, TiltAngles]:
    """Read the tilt angles in a file, by tomogram; none if it is about something else.

    Raises
    ------
    InputError
        If an angle is no number, or a file that is named in it does not exist.
    """
    ending = series_ending(path.name)
    if ending in (".star", ".tomostar"):
        return _read_star(path)
    readers = {".xml": _read_warp, ".aln": _read_aretomo, ".mdoc": _read_mdoc}
    angles = readers.get(ending, _read_lines)(path)
    return {series_stem(path): TiltAngles(angles, ending not in (".rawtlt", ".mdoc"))} if len(angles) else {}


def series_ending(name: str) -> str:
    """Ending of a file of tilt angles; "" if it has another.

    Examples
    --------
    >>> [series_ending(name) for name in ("TS_01.mrc.mdoc", "TS_01.RAWTLT", "tilts.csv")]
    ['.mdoc', '.rawtlt', '']
    """
    endings = (".tlt", ".rawtlt", ".mdoc", ".xml", ".aln", ".star", ".tomostar")
    return next((ending for ending in endings if name.lower().endswith(ending)), "")


def series_stem(path: Path) -> str:
    """Name of the tilt series: that of the file, without its endings, and without AreTomo's ``_st``.

    Examples
    --------
    >>> [series_stem(Path(name)) for name in ("a/TS_01.mrc.mdoc", "TS_01_st.tlt", "TS_01.xml")]
    ['TS_01', 'TS_01', 'TS_01']
    """
    stem = tomogram_stem(path.name[: len(path.name) - len(series_ending(path.name))])
    return stem.removesuffix("_st")


def _read_lines(path: Path) -> Angles:
    """IMOD: an angle a line."""
    lines = enumerate(read_text(path, "the tilt angles").splitlines(), start=1)
    return _numbers(path, [(number, line.strip()) for number, line in lines if line.strip()])


def _read_mdoc(path: Path) -> Angles:
    """SerialEM and Tomo5: ``TiltAngle = …`` in the section of each tilt."""
    lines = enumerate(read_text(path, "the mdoc").splitlines(), start=1)
    return _numbers(path, [(number, found[1].strip()) for number, line in lines if (found := _MDOC.fullmatch(line))])


def _read_aretomo(path: Path) -> Angles:
    """AreTomo: the last of ten columns, offset included; dark tilts are comments, local shifts another section."""
    cells = []
    for number, line in enumerate(read_text(path, "the alignment").splitlines(), start=1):
        if line.lstrip().startswith("# Local"):
            break
        words = line.split()
        if words and not words[0].startswith("#"):
            cells.append((number, words[9] if len(words) == 10 else line))
    return _numbers(path, cells)


def _read_warp(path: Path) -> Angles:
    """Warp and M: ``Angles`` of the tilts that ``UseTilt`` keeps, and the level of the specimen."""
    try:
        root = ElementTree.fromstring(read_text(path, "the XML").lstrip("\ufeff"))
    except ElementTree.ParseError as error:
        raise InputError(f"cannot read the XML: {error}", file=path, remedy="give the file as Warp wrote it") from error
    if root.tag != "TiltSeries":
        return np.zeros(0)
    angles = -_numbers(path, [(None, word) for word in (root.findtext("Angles") or "").split()])
    angles = angles - _numbers(path, [(None, root.get("LevelAngleY", "0"))])
    used = [word.lower() == "true" for word in (root.findtext("UseTilt") or "").split()]
    if used and len(used) != len(angles):
        raise InputError(
            "UseTilt and Angles differ in length", file=path, expected=f"{len(angles)}", found=f"{len(used)}"
        )
    return angles[np.array(used, dtype=bool)] if used else angles


def _read_star(path: Path) -> dict[str, TiltAngles]:
    """RELION's tomograms.star with its tables or files, or the table of one tilt series; Warp's .tomostar."""
    document = read_star(path)
    overview = document.find("global")
    if overview is not None and _SERIES_FILE in overview:
        return _read_named(document, overview)
    found = {}
    for block in document.blocks:
        angles = _of_table(document, block)
        if angles is not None:
            found[block.name if block.name and path.suffix != ".tomostar" else series_stem(path)] = angles
    return found


def _read_named(document: StarDocument, overview: StarBlock) -> dict[str, TiltAngles]:
    # RELION names files from the folder of the project, which is above the job's.
    above = [("a folder above this file", folder) for folder in document.source.absolute().parents[:_LEVELS]]
    finder = ImageFinder((("the current folder", Path.cwd()), *above))
    found = {}
    cells = overview.columns(["rlnTomoName", _SERIES_FILE]) if "rlnTomoName" in overview else {}
    for name, file, line in zip(*cells.values(), overview.line_numbers.tolist(), strict=True) if cells else ():
        series = finder.find(file)
        if series is None:
            raise InputError(
                "the tilt series file does not exist",
                file=document.source,
                row=line,
                expected=finder.describe(file),
                found=f"{file}: no such file",
                remedy="run from the folder of the RELION project",
            )
        of_series = list(_read_star(Path(series)).values())
        if of_series:
            found[name] = of_series[0]
    return found


def _of_table(document: StarDocument, block: StarBlock) -> TiltAngles | None:
    if not block.is_loop or not block.n_rows:
        return None
    if _ALIGNED in block:
        return TiltAngles(read_numbers(document, block, _ALIGNED, block.column(_ALIGNED)), True)
    if _BEAM in block:
        rows = zip(block.line_numbers.tolist(), block.column(_BEAM), strict=True)
        return TiltAngles(np.array([_about_y(document.source, line, text) for line, text in rows]), True)
    if _WARP in block:
        return TiltAngles(-read_numbers(document, block, _WARP, block.column(_WARP)), False)
    if _NOMINAL in block:
        return TiltAngles(read_numbers(document, block, _NOMINAL, block.column(_NOMINAL)), False)
    return None


def _about_y(source: Path, line: int, text: str) -> float:
    """The row of a projection matrix along the beam is ``(−sin θ, 0, cos θ)``."""
    row = vector_of(text)
    if row is None or len(row) != 4 or not any(row[:3]):
        raise InputError(
            f"{_BEAM} is not a row of a projection matrix",
            file=source,
            row=line,
            expected="[x,y,z,w], four numbers",
            found=text,
            remedy="give --tilt-range, or a file of tilt angles as --tilt-ranges",
        )
    return math.degrees(math.atan2(-row[0], row[2]))


def _numbers(path: Path, cells: Sequence[tuple[int | None, str]]) -> Angles:
    values = [number_of(text) for _, text in cells]
    for (line, text), value in zip(cells, values, strict=True):
        if value is None:
            raise InputError("a tilt angle is no number", file=path, row=line, expected="degrees", found=text[:60])
    return np.array(values, dtype=np.float64)
