"""Picks: where particles lie in tomograms, and how they are turned, whatever program wrote them.

RELION STAR, Dynamo table, STOPGAP or EM motivelist, copick JSON or CSV → one frozen table. What each program means by
a coordinate and an angle is written once, in :mod:`cryodc.picks.formats`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import find_name, tomogram_stem
from cryodc.particles import CoordinateFrame


@dataclass(frozen=True)
class Picks:
    """Particles in tomograms, in the order of their file.

    Parameters
    ----------
    source, format
        The file, and the name of its format.
    rows
        ``(n,)`` line of each particle, 1-based.
    tomograms
        Name (or number) of each particle's tomogram; "" where the file does not say.
    positions
        ``(n, 3)`` zyx, in units of ``frame``; the centre of the first voxel is 0, or that of the tomogram.
    frame
        Unit and origin of ``positions``.
    shifts_angstrom
        ``(n, 3)`` zyx, to be added to the positions, or None.
    rotations
        ``(n, 3, 3)`` zyx, reference → tomogram, or None.
    classes, half_sets
        ``(n,)`` class numbers as the file has them (0 or below for none), and half sets 1 and 2; None where the file
        has none.
    left_out
        Columns of the file that a pick does not carry, and cells that could not be read.

    Raises
    ------
    ValueError
        If lengths differ.
    """

    source: Path
    format: str
    rows: Int[NDArray[np.int64], " n"]
    tomograms: tuple[str, ...]
    positions: Float[NDArray[np.float64], "n 3"]
    frame: CoordinateFrame
    shifts_angstrom: Float[NDArray[np.float64], "n 3"] | None = None
    rotations: Float[NDArray[np.float64], "n 3 3"] | None = None
    classes: Int[NDArray[np.int64], " n"] | None = None
    half_sets: Int[NDArray[np.int64], " n"] | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("rows", "tomograms", "shifts_angstrom", "rotations", "classes", "half_sets"):
            value = getattr(self, field)
            if value is not None and len(value) != len(self.positions):
                raise ValueError(f"{len(self.positions)} positions but {len(value)} {field}")

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, keep: NDArray[np.int64]) -> "Picks":
        """The picks at these positions, in this order."""
        return replace(
            self,
            rows=self.rows[keep],
            tomograms=tuple(self.tomograms[i] for i in keep),
            positions=self.positions[keep],
            frame=self.frame.select(keep),
            shifts_angstrom=None if self.shifts_angstrom is None else self.shifts_angstrom[keep],
            rotations=None if self.rotations is None else self.rotations[keep],
            classes=None if self.classes is None else self.classes[keep],
            half_sets=None if self.half_sets is None else self.half_sets[keep],
        )

    def in_voxels(
        self, spacing_angstrom: float | None, shape_zyx: Sequence[int] | None, rows: NDArray[np.int64] | None = None
    ) -> Float[NDArray[np.float64], "m 3"]:
        """Positions as 0-based voxel indices of a tomogram, zyx.

        Raises
        ------
        InputError
            If that needs the tomogram's spacing or size, and it is not known.
        """
        keep = np.arange(len(self)) if rows is None else rows
        positions = self.positions[keep]
        shifts = None if self.shifts_angstrom is None else self.shifts_angstrom[keep]
        if spacing_angstrom is None and (self.frame.unit_angstrom is not None or (shifts is not None and shifts.any())):
            raise InputError(
                "these positions need the voxel spacing of the tomogram",
                file=self.source,
                found=f"{self.format}: {self.frame.describe()}" + ("" if shifts is None else ", shifts in Å"),
                remedy="give it: --spacing",
            )
        if spacing_angstrom is not None:
            # What overflows lies outside of every tomogram.
            with np.errstate(over="ignore"):
                positions = positions * (self.frame.units(len(self), spacing_angstrom)[keep] / spacing_angstrom)
                positions = positions if shifts is None else positions + shifts / spacing_angstrom
        if self.frame.from_centre:
            if shape_zyx is None:
                raise InputError(
                    "these positions count from the centre of the tomogram, whose size is not known",
                    file=self.source,
                    found=self.format,
                    remedy="give its size in voxels: --tomogram-size X Y Z",
                )
            positions = positions + np.array(shape_zyx, dtype=np.float64) / 2
        return positions


def match_tomograms(picks: Picks, files: Sequence[Path], skip_others: bool = False) -> list[NDArray[np.int64]]:
    """Particles of each tomogram file, by name: :func:`cryodc.io.find_name` says which name is which.

    Picks that name no tomogram belong to the only file. With ``skip_others``, picks whose tomogram is none of the
    files belong nowhere.

    Raises
    ------
    InputError
        If a pick's tomogram is none of the files, or could be several, or no pick is left.
    """
    names = [file.name for file in files]
    doubled = next((i for i, name in enumerate(names) if tomogram_stem(name) in map(tomogram_stem, names[:i])), None)
    if doubled is not None:
        first = next(i for i, name in enumerate(names) if tomogram_stem(name) == tomogram_stem(names[doubled]))
        raise InputError(
            "two tomograms have the same name",
            found=f"{files[first]} and {files[doubled]}",
            remedy="rename one of the files",
        )
    place: dict[str, int] = {}
    for name, row in zip(picks.tomograms, picks.rows.tolist(), strict=True):
        if name not in place:
            place[name] = _owner(picks, name, row, names, skip_others)
    if all(owner < 0 for owner in place.values()):
        raise InputError(
            "no pick is from these tomograms",
            file=picks.source,
            expected=", ".join(map(tomogram_stem, names[:6])),
            found=", ".join(list(place)[:6]),
            remedy="name the tomogram files as the picks do",
        )
    _refuse_several(picks, place, names)
    owners = np.array([place[name] for name in picks.tomograms], dtype=np.int64)
    return [np.flatnonzero(owners == i) for i in range(len(files))]


def _owner(picks: Picks, name: str, row: int, names: Sequence[str], skip_others: bool) -> int:
    if not tomogram_stem(name):
        if len(names) == 1:
            return 0
        raise InputError(
            "a pick names no tomogram, and several are given",
            file=picks.source,
            row=row,
            expected="a tomogram name in every row",
            found=", ".join(names[:6]),
            remedy="extract from each tomogram with its own picks, or name the tomogram in every row",
        )
    found = find_name(name, names, file=picks.source, row=row)
    if found is None and not skip_others:
        raise InputError(
            "no tomogram has this pick's name",
            file=picks.source,
            row=row,
            expected=f"a file named {tomogram_stem(name)}.mrc",
            found=", ".join(map(tomogram_stem, names[:6])) + (", …" if len(names) > 6 else ""),
            remedy="name the tomogram files as the picks do, or leave picks of others out: --skip-others",
        )
    return -1 if found is None else found


def _refuse_several(picks: Picks, place: Mapping[str, int], names: Sequence[str]) -> None:
    """Two tomograms of the picks, by stem or folder, cannot be one file."""
    for owner in sorted(set(place.values()) - {-1}):
        mine = [name for name, at in place.items() if at == owner]
        folders = {name.replace("\\", "/").rpartition("/")[0] for name in mine} - {""}
        if len(folders) > 1 or len({tomogram_stem(name) for name in mine}) > 1:
            raise InputError(
                f"several tomograms of the picks could be {names[owner]}",
                file=picks.source,
                row=int(picks.rows[picks.tomograms.index(mine[1])]),
                expected="one",
                found=", ".join(mine[:6]),
                remedy="name the file as one of them in full, or give a file of picks for each",
            )
