"""Picks: where particles lie in tomograms, and how they are turned, whatever program wrote them.

RELION STAR, Dynamo table, STOPGAP or EM motivelist, copick JSON or CSV → one frozen table. What each program means by
a coordinate and an angle is written once, in :mod:`cryodc.picks.formats`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError


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
        ``(n, 3)`` zyx, in units of ``unit_angstrom``; the centre of the first voxel is 0.
    unit_angstrom
        Å per unit of ``positions``; None where they are voxels of the tomogram.
    from_centre
        Whether positions count from the tomogram's centre, ``size / 2``, instead.
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
    unit_angstrom: float | None = None
    from_centre: bool = False
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
        if spacing_angstrom is None and (self.unit_angstrom is not None or (shifts is not None and shifts.any())):
            raise InputError(
                "these positions need the voxel spacing of the tomogram",
                file=self.source,
                found=f"{self.format}: positions or shifts in Å",
                remedy="give it: --spacing",
            )
        if spacing_angstrom is not None:
            positions = positions * ((self.unit_angstrom or spacing_angstrom) / spacing_angstrom)
            positions = positions if shifts is None else positions + shifts / spacing_angstrom
        if self.from_centre:
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
    """Particles of each tomogram file, by the name of the file without its ending.

    ``TS_01`` and ``TS_01.mrc`` are ``TS_01.mrc`` or ``TS_01_10.00Apx.mrc``; the number 7 is ``tomo_07.mrc``. Picks
    that name no tomogram belong to the only file. With ``skip_others``, picks whose tomogram is none of the files
    belong nowhere.

    Raises
    ------
    InputError
        If a pick's tomogram is none of the files, or could be several, or no pick is left.
    """
    stems = [tomogram_stem(file.name) for file in files]
    doubled = next((stem for stem in stems if stems.count(stem) > 1), None)
    if doubled is not None:
        raise InputError("two tomograms have the same name", found=doubled, remedy="rename one of the files")
    place: dict[str, int] = {}
    for name, row in zip(picks.tomograms, picks.rows.tolist(), strict=True):
        if name not in place:
            place[name] = _find(picks, name, row, stems, skip_others)
    if all(owner < 0 for owner in place.values()):
        raise InputError(
            "no pick is from these tomograms",
            file=picks.source,
            expected=", ".join(stems[:6]),
            found=", ".join(list(place)[:6]),
            remedy="name the tomogram files as the picks do",
        )
    owners = np.array([place[name] for name in picks.tomograms], dtype=np.int64)
    return [np.flatnonzero(owners == i) for i in range(len(files))]


def tomogram_stem(name: str) -> str:
    """File name without folder and endings that programs add.

    Examples
    --------
    >>> [tomogram_stem(name) for name in ("a/TS_01.mrc", "TS_01.rec.gz", "TS.01", "TS_01.tomostar")]
    ['TS_01', 'TS_01', 'TS.01', 'TS_01']
    """
    stem = name.replace("\\", "/").rsplit("/", 1)[-1]
    for ending in (".gz", ".mrc", ".mrcs", ".rec", ".st", ".map", ".tomostar"):
        stem = stem.removesuffix(ending)
    return stem


def last_number(stem: str) -> int | None:
    """Last number in a name, or None."""
    digits = "".join(c if c.isascii() and c.isdigit() else " " for c in stem).split()
    # Python reads no number of more digits than this.
    return int(digits[-1]) if digits and len(digits[-1]) <= 18 else None


def _find(picks: Picks, name: str, row: int, stems: Sequence[str], skip_others: bool) -> int:
    wanted = tomogram_stem(name)
    if not wanted and len(stems) == 1:
        return 0
    found = [i for i, stem in enumerate(stems) if stem == wanted]
    if not found and wanted:
        found = [i for i, stem in enumerate(stems) if _begins(stem, wanted) or _begins(wanted, stem)]
    if not found and wanted.isascii() and wanted.isdigit() and len(wanted) <= 18:
        found = [i for i, stem in enumerate(stems) if last_number(stem) == int(wanted)]
    if not found and wanted and skip_others:
        return -1
    if len(found) != 1:
        raise InputError(
            "no tomogram has this pick's name" if not found else "several tomograms could be this pick's",
            file=picks.source,
            row=row,
            expected=f"a file named {wanted}.mrc" if wanted else "a tomogram name in every row: several are given",
            found=", ".join(stems[i] for i in found)
            if found
            else f"{', '.join(stems[:6])}{', …' if len(stems) > 6 else ''}",
            remedy="name the tomogram files as the picks do, or leave picks of others out: --skip-others",
        )
    return found[0]


def _begins(text: str, start: str) -> bool:
    return text.startswith(start) and not text[len(start) : len(start) + 1].isalnum()
