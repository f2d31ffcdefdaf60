"""tomograms.star: how each tilt of each tomogram was projected, focused and exposed.

RELION 4 and WarpTools write a table per tomogram into the file itself, with projection matrices; RELION 5 names a
file per tilt series (rlnTomoTiltSeriesStarFile), with angles. The rows of the table are the tilts, in the order of
rlnTomoVisibleFrames and of the images in a stack.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.fourier import TiltOptics
from cryodc.io import ImageFinder, find_name, number_of
from cryodc.star import StarBlock, StarDocument, read_numbers, read_star, vector_of

_MATRIX = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")
_ANGLES = ("rlnTomoYTilt", "rlnTomoZRot")
_NEEDED = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnMicrographPreExposure")
_SIZE = ("rlnTomoSizeZ", "rlnTomoSizeY", "rlnTomoSizeX")
_ROTATION_TOLERANCE = 0.1


@dataclass(frozen=True)
class TiltSeries:
    """One tomogram's tilts, in the order of its table. Vectors are zyx.

    Parameters
    ----------
    name, source
        rlnTomoName as the particles have it, and the file its tilts stand in.
    projections
        ``(t, 3, 3)``: a point of the tomogram → the image, z along the beam.
    optics
        Defocus, dose and scale of each tilt.
    hand
        rlnTomoHand, 1 or −1: whether defocus grows with depth; None where the file does not say.
    defocus_slope
        Defocus per depth, in size.
    size_pixels
        ``(3,)`` of the tomogram, in pixels of the tilt series; None where the file does not say.
    pixel_angstrom
        Of the tilt series; None where the file does not say.
    """

    name: str
    source: Path
    projections: Float[NDArray[np.float64], "t 3 3"]
    optics: TiltOptics
    hand: int | None
    defocus_slope: float
    size_pixels: Float[NDArray[np.float64], " 3"] | None
    pixel_angstrom: float | None

    def __len__(self) -> int:
        return len(self.projections)


def read_tilt_series(path: Path, names: Iterable[str], finder: ImageFinder) -> dict[str, TiltSeries]:
    """Read these tomograms of a tomograms.star.

    Raises
    ------
    InputError
        If a tomogram, a table, a column or a file is not there, a name could be several tomograms, or a value cannot be
        used.
    """
    document = read_star(path)
    overview = document.find("global")
    if overview is None or "rlnTomoName" not in overview:
        raise InputError(
            "this is no tomograms.star",
            file=path,
            expected="data_global with rlnTomoName",
            found=", ".join(f"data_{block.name}" for block in document.blocks),
            remedy="name the tomograms.star of the RELION or WarpTools job that wrote the particles: --tomograms FILE",
        )
    table = overview.columns(list(overview.labels))
    series = {}
    for name in dict.fromkeys(names):
        at = find_name(name, table["rlnTomoName"], file=path, row=overview.header_line + 1)
        if at is None:
            raise InputError(
                f"tomogram {name} of the particles is not in tomograms.star",
                file=path,
                row=overview.header_line + 1,
                expected=f"rlnTomoName {name}",
                found=_listed(table["rlnTomoName"]),
                remedy="name the tomograms.star that belongs to these particles: --tomograms FILE",
            )
        cells = {label: column[at] for label, column in table.items()}
        row = _Row(path, int(overview.line_numbers[at]), cells)
        series[name] = replace(_read_one(document, cells["rlnTomoName"], row, finder), name=name)
    return series


def require_columns(document: StarDocument, block: StarBlock, labels: Sequence[str], remedy: str) -> None:
    """Check that a block has columns.

    Parameters
    ----------
    document, block
        The STAR, and a block of it.
    labels
        Columns that are needed.
    remedy
        What to do where one is missing.

    Raises
    ------
    InputError
        If one is missing.
    """
    missing = [label for label in labels if label not in block]
    if missing:
        raise InputError(
            f"data_{block.name} has no {', '.join(missing)}",
            file=document.source,
            row=block.header_line + 1,
            expected=", ".join(labels),
            found=_listed(block.labels),
            remedy=remedy,
        )


@dataclass(frozen=True)
class _Row:
    """A row of data_global, whose cells are read as numbers."""

    source: Path
    line: int
    cells: Mapping[str, str]

    def number(self, label: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """A number in a range, or None where there is no such column."""
        if label not in self.cells:
            return None
        value = number_of(self.cells[label])
        if value is None or not low <= value <= high:
            raise InputError(
                f"{label} cannot be used",
                file=self.source,
                row=self.line,
                expected="a finite number" if math.isinf(high) else f"a number from {low:g} to {high:g}",
                found=self.cells[label],
            )
        return value

    def needed(self, label: str, low: float, high: float) -> float:
        """A number in a range that must be there."""
        value = self.number(label, low, high)
        if value is None:
            raise InputError(
                f"data_global has no {label}",
                file=self.source,
                row=self.line,
                expected=f"a column {label}",
                found=_listed(list(self.cells)),
                remedy="give the tomograms.star as RELION or WarpTools wrote it",
            )
        return value


def _read_one(document: StarDocument, name: str, row: _Row, finder: ImageFinder) -> TiltSeries:
    hand = row.number("rlnTomoHand", -1, 1)
    if hand not in (None, 1, -1):
        raise InputError(
            "rlnTomoHand is neither 1 nor -1",
            file=row.source,
            row=row.line,
            expected="1 or -1, the sign of the defocus gradient",
            found=f"{hand:g}",
            remedy="write it as RELION or WarpTools gave it; --hand auto measures the sign",
        )
    size = [row.number(label) for label in _SIZE]
    slope = row.number("rlnTomoDefocusSlope")
    tilts, block = _tilt_table(document, name, row, finder)
    return TiltSeries(
        name,
        tilts.source,
        _projections(tilts, block),
        _optics(tilts, block, row),
        None if hand is None else int(hand),
        1.0 if slope is None else slope,
        None if None in size else np.array(size, dtype=np.float64),
        row.number("rlnTomoTiltSeriesPixelSize"),
    )


def _optics(tilts: StarDocument, block: StarBlock, row: _Row) -> TiltOptics:
    require_columns(tilts, block, _NEEDED, "run CTF estimation, and give the tomograms.star that has its results")

    def column(label: str, default: float = 0.0) -> Float[torch.Tensor, " t"]:
        return _numbers(tilts, block, label) if label in block else torch.full((block.n_rows,), default)

    return TiltOptics(
        row.needed("rlnVoltage", 1, 5000),
        row.needed("rlnSphericalAberration", 0, 100),
        row.needed("rlnAmplitudeContrast", 0, 1),
        column("rlnDefocusU"),
        column("rlnDefocusV"),
        column("rlnDefocusAngle"),
        column("rlnPhaseShift"),
        column("rlnCtfBfactor"),
        column("rlnCtfScalefactor", 1.0),
        column("rlnMicrographPreExposure"),
        row.number("rlnCtfBfactorPerElectronDose") or 0.0,
    )


def _tilt_table(document: StarDocument, name: str, row: _Row, finder: ImageFinder) -> tuple[StarDocument, StarBlock]:
    if "rlnTomoTiltSeriesStarFile" in row.cells:
        file = row.cells["rlnTomoTiltSeriesStarFile"]
        found = finder.find(file)
        if found is None:
            raise InputError(
                "the tilt series file does not exist",
                file=document.source,
                row=row.line,
                expected=finder.describe(file),
                found=f"{file}: no such file",
                remedy="run from the folder the paths are relative to, or name it with --data-dir",
            )
        document = read_star(Path(found))
        block: StarBlock | None = document.find(name) or document.blocks[0]
    else:
        block = document.find(name)
    if block is None or not block.is_loop or not block.n_rows:
        raise InputError(
            f"tomogram {name} has no table of tilts",
            file=document.source,
            row=row.line if document.source == row.source else None,
            expected=f"data_{name} with a row per tilt, or rlnTomoTiltSeriesStarFile",
            found=_listed([f"data_{b.name}" for b in document.blocks]),
            remedy="give the tomograms.star as RELION or WarpTools wrote it",
        )
    return document, block


def _projections(document: StarDocument, block: StarBlock) -> Float[NDArray[np.float64], "t 3 3"]:
    if all(label in block for label in _MATRIX):
        cells = block.columns(_MATRIX)
        rows = [
            [_vector(document, int(line), label, cells[label][i]) for label in _MATRIX]
            for i, line in enumerate(block.line_numbers)
        ]
        xyz = np.array(rows, dtype=np.float64)
    else:
        require_columns(
            document, block, _ANGLES, "align the tilt series first: projection matrices or angles are needed"
        )
        angles = [_numbers(document, block, label) for label in _ANGLES]
        tilt = _numbers(document, block, "rlnTomoXTilt") if "rlnTomoXTilt" in block else torch.zeros_like(angles[0])
        # The specimen is turned about x, then y, then z.
        xyz = Rotation.from_euler("xyz", torch.stack([tilt, *angles], dim=1).numpy(), degrees=True).as_matrix()
    error = np.abs(xyz @ xyz.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    if (error > _ROTATION_TOLERANCE).any():
        at = int(error.argmax())
        raise InputError(
            "a projection matrix is not a rotation",
            file=document.source,
            row=int(block.line_numbers[at]),
            expected="rows of length 1, at right angles",
            found=", ".join(np.array2string(line, precision=3) for line in xyz[at]),
        )
    return np.ascontiguousarray(xyz[:, ::-1, ::-1])


def _vector(document: StarDocument, row: int, label: str, text: str) -> list[float]:
    values = vector_of(text)
    if values is None or len(values) != 4:
        raise InputError(
            f"{label} is not a row of a projection matrix",
            file=document.source,
            row=row,
            expected="[a,b,c,d], four numbers",
            found=text,
        )
    return values[:3]


def _numbers(document: StarDocument, block: StarBlock, label: str) -> Float[torch.Tensor, " t"]:
    return torch.from_numpy(read_numbers(document, block, label, block.column(label))).float()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
