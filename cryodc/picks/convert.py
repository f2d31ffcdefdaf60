"""Convert picks between programs: positions, rotations, tomograms, classes and half sets."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import read_text, write_text
from cryodc.particles import TILT_SERIES_PIXEL
from cryodc.picks.formats import read_picks
from cryodc.picks.picks import Picks
from cryodc.picks.writers import PickFormat, PickText, picks_as, relion_star, tomogram_numbers_table

_FARTHEST = 1e9


@dataclass(frozen=True)
class Conversion:
    """What was converted: the picks, the file, its table of tomogram numbers (if any), and what to know."""

    picks: Picks
    out: Path
    tomograms: Path | None
    notes: tuple[str, ...]


def convert_picks(
    source: Path,
    out: Path,
    to: PickFormat | None = None,
    *,
    spacing_angstrom: float | None = None,
    tomogram_size_xyz: tuple[int, int, int] | None = None,
    coordinate_spacing_angstrom: float | None = None,
    tilt_series_spacing_angstrom: float | None = None,
    tomogram_names: Mapping[str, str] | None = None,
) -> Conversion:
    """Convert a file of picks: positions are written in voxels of the tomogram, for RELION in tilt-series pixels.

    RELION 4 and 5 import coordinates in pixels of the tilt series. Where that pixel is neither given nor stated by
    ``source``, voxels are written and a note says what is missing. Coordinates from the centre are written as such
    where no tomogram size is given: RELION 5 imports them.

    Some formats number their tomograms. Where ``source`` has names, a table of numbers and names is written beside
    ``out``, as ``….tomograms.csv``.

    Parameters
    ----------
    source
        Any format of :func:`cryodc.picks.formats.read_picks`.
    out
        The file to write; it must not exist.
    to
        By default what the ending of ``out`` says: ``.tbl`` Dynamo, ``.csv`` CSV, ``.star`` RELION,
        ``.ndjson`` CryoET Data Portal.
    spacing_angstrom
        Voxel spacing of the tomograms: needed where ``source`` has positions or shifts in Å.
    tomogram_size_xyz
        Voxels: needed where ``source`` counts from the centre (RELION 5).
    coordinate_spacing_angstrom
        Å per unit of the source's coordinates, over what it says.
    tilt_series_spacing_angstrom
        Pixel of the tilt series: RELION counts it. By default what ``source`` states.
    tomogram_names
        Names for tomograms that ``source`` calls otherwise, by number for example.

    Raises
    ------
    InputError
        If ``out`` or its table exists, ``source`` cannot be read, or something that it needs is not given.
    """
    kind = to or _kind_of(out)
    table = out.with_name(f"{out.stem}.tomograms.csv")
    for path in (out, table) if kind in ("dynamo", "stopgap") else (out,):
        if path.exists():
            raise InputError("refusing to overwrite", file=path, remedy="choose another output, or remove this file")
    picks = read_picks(source, coordinate_spacing_angstrom)
    if tomogram_names is not None:
        picks = replace(picks, tomograms=_renamed(picks, tomogram_names))
    shape = None if tomogram_size_xyz is None else tomogram_size_xyz[::-1]
    if kind == "relion":
        written = _for_relion(picks, spacing_angstrom, shape, tilt_series_spacing_angstrom)
    else:
        written = picks_as(kind, picks, _require_near(picks, picks.in_voxels(spacing_angstrom, shape)))
    write_text(out, written.text)
    if written.tomogram_numbers:
        write_text(table, tomogram_numbers_table(written.tomogram_numbers))
    lost = (f"not carried over: {', '.join(picks.left_out)}",) if picks.left_out else ()
    return Conversion(picks, out, table if written.tomogram_numbers else None, (*written.notes, *lost))


def read_tomogram_names(path: Path) -> dict[str, str]:
    """Read a table ``number,tomogram``, with or without that header line.

    Raises
    ------
    InputError
        If a row does not hold two cells, or a number comes twice.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_text(path, "the tomogram names"), newline="")))
    except csv.Error as error:
        raise InputError(
            f"cannot read the tomogram names: {error}",
            file=path,
            expected="a CSV of two columns: number, tomogram",
            remedy="write it anew as plain text",
        ) from error
    names: dict[str, str] = {}
    for line, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (line == 1 and cells[0].lower() == "number"):
            continue
        if len(cells) != 2 or not all(cells) or cells[0] in names:
            raise InputError(
                "a row of the tomogram names cannot be used",
                file=path,
                row=line,
                expected="number,tomogram; each number once",
                found=",".join(row),
            )
        names[cells[0]] = cells[1]
    return names


def _for_relion(
    picks: Picks, spacing: float | None, shape: tuple[int, int, int] | None, tilt_series_spacing: float | None
) -> PickText:
    frame, n = picks.frame, len(picks)
    if frame.from_centre and shape is None:
        shifts = 0.0 if picks.shifts_angstrom is None else picks.shifts_angstrom
        return relion_star(picks, _require_near(picks, picks.positions + shifts), None, from_centre=True)
    pixel = None
    if tilt_series_spacing is not None:
        pixel = np.full(n, tilt_series_spacing)
    elif frame.stated_by == TILT_SERIES_PIXEL:
        pixel = frame.units(n, 1.0)[:, 0]
    if pixel is None:
        voxels = _require_near(picks, picks.in_voxels(spacing, shape))
        written = relion_star(picks, voxels, None if spacing is None else np.full(n, spacing))
        note = (
            "RELION 4 and 5 import pixels of the tilt series, and its pixel is not known: these are voxels of the "
            "tomogram. Give --tilt-series-spacing" + (", and --spacing" if spacing is None else "")
        )
        return replace(written, notes=(*written.notes, note))
    if spacing is None and not frame.from_centre and frame.unit_angstrom is not None:
        # Any spacing does: what is written is in pixels of the tilt series.
        spacing = 1.0
    if spacing is None:
        raise InputError(
            "these positions count voxels of the tomogram, whose spacing is not known",
            file=picks.source,
            expected=f"--spacing, to give pixels of {pixel[0]:g} Å",
            found=f"{picks.format}: {frame.describe()}",
            remedy="give it: --spacing",
        )
    places = _require_near(picks, picks.in_voxels(spacing, shape))
    written = relion_star(picks, places * (spacing / pixel[:, None]), pixel)
    sizes = " and ".join(f"{size:g}" for size in np.unique(pixel).tolist())
    note = f"coordinates count pixels of the tilt series, {sizes} Å, as RELION 4 and 5 import them"
    return replace(written, notes=(*written.notes, note))


def _require_near(picks: Picks, places: Float[NDArray[np.float64], "n 3"]) -> Float[NDArray[np.float64], "n 3"]:
    """The places, if any tomogram reaches them all."""
    far = np.flatnonzero(~(np.abs(places) < _FARTHEST).all(axis=1))
    if len(far):
        raise InputError(
            "a pick lies farther off than any tomogram reaches",
            file=picks.source,
            row=int(picks.rows[far[0]]),
            expected=f"less than {_FARTHEST:g} voxels",
            found=", ".join(f"{at:g}" for at in places[far[0], ::-1]) + " (x, y, z)",
            remedy="correct its coordinates or origins",
        )
    return places


def _renamed(picks: Picks, names: Mapping[str, str]) -> tuple[str, ...]:
    missing = {
        name: row
        for name, row in zip(reversed(picks.tomograms), reversed(picks.rows.tolist()), strict=True)
        if name not in names
    }
    if missing:
        name, row = min(missing.items(), key=lambda item: item[1])
        raise InputError(
            "a tomogram is not in the table of names",
            file=picks.source,
            row=row,
            expected=f"one of {', '.join(list(names)[:6])}",
            found=name or "(no name)",
            remedy="add its row to the table",
        )
    return tuple(names[name] for name in picks.tomograms)


def _kind_of(out: Path) -> PickFormat:
    kinds: dict[str, PickFormat] = {".tbl": "dynamo", ".csv": "csv", ".star": "relion", ".ndjson": "portal"}
    ending = Path(out.name.removesuffix(".gz")).suffix.lower()
    if ending not in kinds:
        raise InputError(
            "cannot tell the format to write",
            file=out,
            expected=".star (RELION), .tbl (Dynamo), .csv or .ndjson (CryoET Data Portal)",
            found=ending or "no ending",
            remedy="name the output so, or give --to relion, dynamo, stopgap, csv or portal",
        )
    return kinds[ending]
