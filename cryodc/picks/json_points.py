"""Picks as JSON: a copick file, and the annotations of the CZ CryoET Data Portal, a JSON object on each line.

A point of the portal counts voxels of the tomogram from its first, and ``xyz_rotation_matrix`` takes the reference to
the particle, in x, y, z, as the portal's own importers make it of RELION's and STOPGAP's angles.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import number_of, read_text
from cryodc.particles import coordinate_frame
from cryodc.picks.picks import Picks

_VOXEL_FOLDER = re.compile(r"VoxelSpacing(\d+(?:\.\d+)?)")


def read_copick(path: Path) -> Picks:
    """Read copick picks; :func:`cryodc.picks.formats.read_picks` calls it for ``.json``."""
    try:
        content = json.loads(read_text(path, "the picks"))
        points: list[Mapping[str, Any]] = content["points"]
        locations = [floats([point["location"][axis] for axis in "xyz"]) for point in points]
        matrices = [np.asarray(point.get("transformation_", np.eye(4)), dtype=np.float64) for point in points]
    except (RecursionError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            "these are no copick picks",
            file=path,
            expected='{"run_name": …, "points": [{"location": {"x": …, "y": …, "z": …}, "transformation_": 4 × 4}, …]}',
            found=f"{type(error).__name__}: {error}"[:80],
        ) from error
    for i, (location, matrix) in enumerate(zip(locations, matrices, strict=True), start=1):
        is_rotation = matrix.shape == (4, 4) and np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3)
        if location is None or not is_rotation or np.linalg.det(matrix[:3, :3]) < 0 or not np.isfinite(matrix).all():
            raise InputError(
                f"point {i} cannot be used",
                file=path,
                expected="a location of finite numbers, and a transformation_ that is a rotation and a shift",
                found=f"location {location}, transformation_ {np.round(matrix, 3).tolist()}"[:160],
            )
    unit = content.get("unit", "angstrom")
    if unit != "angstrom":
        raise InputError("expected picks in Å", file=path, expected='"unit": "angstrom"', found=str(unit))
    xyz = np.array(locations, dtype=np.float64).reshape(-1, 3)
    xyz_rotations = np.array([matrix[:3, :3] for matrix in matrices], dtype=np.float64).reshape(-1, 3, 3)
    shifts = np.array([matrix[2::-1, 3] for matrix in matrices], dtype=np.float64).reshape(-1, 3)
    has_poses = any("transformation_" in point for point in points)
    return Picks(
        path,
        "copick",
        np.arange(1, len(points) + 1, dtype=np.int64),
        (str(content.get("run_name") or ""),) * len(points),
        np.ascontiguousarray(xyz[:, ::-1]),
        coordinate_frame("copick"),
        shifts_angstrom=shifts if shifts.any() else None,
        rotations=zyx_of(xyz_rotations) if has_poses else None,
        left_out=("instance_id", "score"),
    )


def read_portal(path: Path) -> Picks:
    """Read points or oriented points; :func:`cryodc.picks.formats.read_picks` calls it for ``.ndjson``.

    Where the file lies as in the portal, ``RUN/Reconstructions/VoxelSpacing13.480/…``, its folders name the tomogram
    and the unit.
    """
    rows, places, matrices = [], [], []
    for row, line in enumerate(read_text(path, "the picks").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            point: Mapping[str, Any] = json.loads(line)
            place = floats([point["location"][axis] for axis in "xyz"])
            given = point.get("xyz_rotation_matrix")
            matrix = np.eye(3) if given is None else np.asarray(given, dtype=np.float64)
        except (RecursionError, LookupError, TypeError, ValueError, AttributeError, OverflowError):
            place, matrix = None, np.zeros((0, 0))
        if place is None or not _is_rotation(matrix):
            raise InputError(
                "this line is no point of the CryoET Data Portal",
                file=path,
                row=row,
                expected='{"location": {"x": …, "y": …, "z": …}, "xyz_rotation_matrix": 3 × 3}',
                found=line[:80],
            )
        rows.append(row)
        places.append(place)
        matrices.append(None if given is None else matrix)
    frame = coordinate_frame("Data Portal")
    spacing = next((found[1] for folder in path.absolute().parts if (found := _VOXEL_FOLDER.fullmatch(folder))), None)
    if spacing is not None and float(spacing) > 0:
        frame = replace(frame, unit_angstrom=float(spacing), stated_by=f"VoxelSpacing{spacing}")
    run = next((folder.parent.name for folder in path.absolute().parents if folder.name == "Reconstructions"), "")
    turned = [np.eye(3) if matrix is None else matrix for matrix in matrices]
    xyz = np.array(places, dtype=np.float64).reshape(-1, 3)
    return Picks(
        path,
        "CryoET Data Portal",
        np.array(rows, dtype=np.int64),
        (run,) * len(rows),
        np.ascontiguousarray(xyz[:, ::-1]),
        frame,
        rotations=None
        if all(matrix is None for matrix in matrices)
        else zyx_of(np.array(turned, dtype=np.float64).reshape(-1, 3, 3)),
        left_out=("type", "instance_id"),
    )


def floats(cells: Sequence[Any]) -> list[float] | None:
    """Numbers of JSON and of text; None where one is none."""
    values = [number_of(cell) if isinstance(cell, str) else cell for cell in cells]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    try:
        numbers = [float(value) for value in values if value is not None]
    except OverflowError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def zyx_of(matrices_xyz: NDArray[np.float64]) -> Float[NDArray[np.float64], "n 3 3"]:
    """Matrices of x, y, z as matrices of z, y, x, and back."""
    return np.ascontiguousarray(matrices_xyz[:, ::-1, ::-1])


def _is_rotation(matrix: NDArray[np.float64]) -> bool:
    is_square = matrix.shape == (3, 3) and bool(np.isfinite(matrix).all())
    return is_square and np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3) and bool(np.linalg.det(matrix) > 0)
