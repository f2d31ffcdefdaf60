"""What each program means by an angle, and where it keeps position and tomogram: readers of picks.

What a coordinate counts, and from where, is stated in :mod:`cryodc.particles.coordinates`.

============ ============================ ===================================================
format       position                     rotation, reference → tomogram (xyz)
============ ============================ ===================================================
RELION       coordinate − A_subtomo · o   ``A_subtomo · (Rz(rot) Ry(tilt) Rz(psi))ᵀ``
Dynamo       x + dx                       ``(Rz(narot) Rx(tilt) Rz(tdrot))ᵀ``
STOPGAP      orig + shift                 ``Rz(psi) Rx(the) Rz(phi)``
EM           as STOPGAP                   as STOPGAP
copick       location + shift             ``transformation_``
Data Portal  location                     ``xyz_rotation_matrix``
CSV          x, y, z                      RELION's rot, tilt, psi
============ ============================ ===================================================

RELION and Dynamo angles bring a particle onto the reference, STOPGAP's bring the reference onto the particle.
"""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.geometry import matrices_from_euler
from cryodc.io import read_text
from cryodc.particles import coordinate_frame, unwritable_names
from cryodc.picks.columns import classes_of, no_picks, read_classes, read_half_sets, tomogram_numbers
from cryodc.picks.json_points import floats, read_copick, read_portal, zyx_of
from cryodc.picks.motivelist import read_em_motivelist
from cryodc.picks.picks import Picks
from cryodc.picks.relion import read_relion
from cryodc.star import StarBlock, StarDocument, numbers_of, read_numbers, read_star, whole_number_of

MIN_DYNAMO_COLUMNS = 26
_DYNAMO_NEEDED = [3, 4, 5, 6, 7, 8, 19, 23, 24, 25]
"""Shifts, angles, tomogram and position, counted from 0; NaN elsewhere, a cc for example, refuses nothing."""


def read_picks(path: Path, coordinate_spacing_angstrom: float | None = None) -> Picks:
    """Read picks in any format: ``.star`` (RELION, STOPGAP), ``.tbl``, ``.em``, ``.json``, ``.ndjson`` or ``.csv``.

    Parameters
    ----------
    path
        The file; it may be gzipped.
    coordinate_spacing_angstrom
        Å per unit of its coordinates, where the file does not say or is wrong.

    Raises
    ------
    InputError
        If it is none of these formats, or a number cannot be read.
    """
    ending = path.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    readers = {
        "tbl": _read_dynamo,
        "json": read_copick,
        "ndjson": read_portal,
        "csv": _read_csv,
        "star": _read_star,
        "em": read_em_motivelist,
    }
    if ending not in readers:
        raise InputError(
            "these picks are in no format that can be read",
            file=path,
            expected=".star (RELION, STOPGAP), .tbl (Dynamo), .em (Artiatomi), .json (copick), .ndjson or .csv",
            found=path.name,
        )
    picks = readers[ending](path)
    if not len(picks):
        raise no_picks(path)
    for problem in unwritable_names(path, {"the tomogram's name": picks.tomograms}, picks.rows.tolist())[:1]:
        raise problem.error
    if coordinate_spacing_angstrom is not None:
        if picks.frame.from_centre:
            raise InputError(
                "these coordinates are in Å: they have no spacing",
                file=path,
                expected="no --coordinate-spacing",
                found=f"{picks.frame.describe()}, and --coordinate-spacing {coordinate_spacing_angstrom:g}",
                remedy="leave it out",
            )
        picks = replace(picks, frame=picks.frame.given(coordinate_spacing_angstrom))
    return picks


def _read_star(path: Path) -> Picks:
    document = read_star(path)
    for block in document.blocks:
        if block.is_loop and "orig_x" in block:
            return _read_stopgap(document, block)
    return read_relion(document)


def _read_stopgap(document: StarDocument, block: StarBlock) -> Picks:
    needed = ["orig_x", "orig_y", "orig_z", "x_shift", "y_shift", "z_shift", "phi", "psi", "the", "tomo_num"]
    missing = [label for label in needed if label not in block]
    if missing:
        raise InputError(
            "the motivelist lacks columns",
            file=document.source,
            row=block.header_line + 1,
            expected=", ".join(needed),
            found=f"no {', '.join(missing)}",
        )
    used = [*needed, *(label for label in ("class", "halfset") if label in block)]
    cells = block.columns(used)
    numbers = {label: read_numbers(document, block, label, cells[label]) for label in needed[:-1]}
    xyz = np.stack([numbers[f"orig_{axis}"] + numbers[f"{axis}_shift"] for axis in "xyz"], axis=1)
    frame = coordinate_frame("STOPGAP")
    angles = np.stack([numbers[label] for label in ("phi", "the", "psi")], axis=1)
    classes, unread_classes = read_classes(block, "class")
    half_sets, unread_halves = read_half_sets(block, "halfset")
    return Picks(
        document.source,
        "STOPGAP motivelist",
        block.line_numbers.astype(np.int64),
        tuple(_whole(text) for text in cells["tomo_num"]),
        np.ascontiguousarray(xyz[:, ::-1]) - frame.first_voxel,
        frame,
        rotations=zyx_of(_rotations("zxz", angles)),
        classes=classes,
        half_sets=half_sets,
        left_out=(*(label for label in block.labels if label not in used), *unread_classes, *unread_halves),
    )


def _read_dynamo(path: Path) -> Picks:
    rows, numbers = [], []
    for line_number, line in enumerate(read_text(path, "the picks").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        row = numbers_of(words[:MIN_DYNAMO_COLUMNS])
        if len(row) < MIN_DYNAMO_COLUMNS or np.isnan(row[_DYNAMO_NEEDED]).any():
            raise InputError(
                "a row of the Dynamo table cannot be read",
                file=path,
                row=line_number,
                expected=f"at least {MIN_DYNAMO_COLUMNS} columns, of which 4 to 9, 20 and 24 to 26 are finite numbers",
                found=line[:60],
            )
        rows.append(line_number)
        numbers.append(row)
    table = np.array(numbers, dtype=np.float64).reshape(-1, MIN_DYNAMO_COLUMNS)
    xyz = table[:, 23:26] + table[:, 3:6]
    frame = coordinate_frame("Dynamo")
    lines = np.array(rows, dtype=np.int64)
    classes, unread = classes_of(table[:, 21], lines, "column 22 (class)")
    return Picks(
        path,
        "Dynamo table",
        lines,
        tomogram_numbers(table[:, 19], lines, path),
        np.ascontiguousarray(xyz[:, ::-1]) - frame.first_voxel,
        frame,
        rotations=zyx_of(np.swapaxes(_rotations("zxz", table[:, 6:9]), 1, 2)),
        classes=classes,
        left_out=("tag", "cc", "ftype", "tilt range", "reg", "annotation", "columns from 27", *unread),
    )


def _read_csv(path: Path) -> Picks:
    reader = csv.DictReader(io.StringIO(read_text(path, "the picks"), newline=""))
    names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    if len(names) < len(reader.fieldnames or ()):
        found = ",".join(reader.fieldnames or ())[:60]
        raise InputError("two columns have one name", file=path, row=1, expected="each name once", found=found)
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise InputError(
            "the picks lack columns",
            file=path,
            row=1,
            expected="a header x,y,z and, where known, tomogram,rot,tilt,psi",
            found=",".join(reader.fieldnames or ())[:60],
        )
    has_angles = all(name in names for name in ("rot", "tilt", "psi"))
    wanted = ["x", "y", "z", *(["rot", "tilt", "psi"] if has_angles else [])]
    rows, numbers, tomograms = [], [], []
    for row in reader:
        # A decimal comma makes one cell two, and moves all behind it.
        if None in row or None in row.values():
            n_cells = sum(cell is not None for cell in row.values()) + len(row.get(None) or ()) - (None in row)
            raise InputError(
                "a row of the picks has the wrong number of cells",
                file=path,
                row=reader.line_num,
                expected=f"{len(reader.fieldnames or ())} cells, one per column",
                found=str(n_cells),
                remedy="restore the row; numbers have a decimal point, not a comma",
            )
        values = floats([row[names[name]] for name in wanted])
        if values is None:
            found = ",".join(str(row[names[name]]) for name in wanted)
            raise InputError("expected numbers", file=path, row=reader.line_num, expected=",".join(wanted), found=found)
        rows.append(reader.line_num)
        numbers.append(values)
        tomograms.append((row[names["tomogram"]] or "").strip() if "tomogram" in names else "")
    table = np.array(numbers, dtype=np.float64).reshape(-1, len(wanted))
    return Picks(
        path,
        "CSV",
        np.array(rows, dtype=np.int64),
        tuple(tomograms),
        np.ascontiguousarray(table[:, 2::-1]),
        coordinate_frame("CSV"),
        rotations=matrices_from_euler(table[:, 3:6]) if has_angles else None,
        left_out=tuple(name for name in names if name not in (*wanted, "tomogram")),
    )


def _rotations(axes: str, angles_degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(angles_degrees):
        return np.zeros((0, 3, 3))
    # Lower case is extrinsic: the first angle turns first, about axes that stay.
    return np.asarray(Rotation.from_euler(axes, angles_degrees, degrees=True).as_matrix())


def _whole(text: str) -> str:
    number = whole_number_of(text)
    return text if number is None else str(number)
