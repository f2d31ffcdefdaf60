"""Where particles lie in their tomogram: the unit and origin of every program's coordinates, stated in one place.

============================= ===================================================== ======================
file                          a unit is                                             0 is
============================= ===================================================== ======================
RELION 5, centred             1 Å                                                   the tomogram's centre
RELION 4                      a pixel of the tilt series, by optics group           the first voxel
WarpTools and M ``--2d``,     a pixel of the images, by optics group                the first voxel
and in RELION 3.1's layout
Warp 1, WarpTools ``--3d``,   the pixel that the row states: rlnPixelSize, else     the first voxel
RELION 3.0                    detector pixel and magnification
RELION 3.1                    the rlnPixelSize of the row; without, a voxel         the first voxel
Dynamo                        a voxel of the tomogram                               0.5 before that voxel
STOPGAP, EM                   a voxel of the tomogram                               1 before that voxel
copick                        1 Å                                                   the first voxel
CSV, CryoET Data Portal       a voxel of the tomogram                               the first voxel
============================= ===================================================== ======================

Wherever the optics state rlnMicrographPixelSize (RELION: the pixel of what particles were picked in), corner
coordinates count that; ``cryodc extract``, ``import`` and ``simulate`` write it. WarpTools is known by
``data_general`` above corner coordinates, and in RELION 3.1's layout by tilt series that end in ``.tomostar``; since
its version 2.0.0dev40 the (virtual) tilt series have the pixel of the images, so that both rules say the same.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.star import StarBlock, StarDocument, group_number, not_positive, read_numbers, spacing_of_old_layout

CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX")
CORNER = tuple(f"rlnCoordinate{axis}" for axis in "ZYX")
COORDINATE_PIXEL = "rlnMicrographPixelSize"
TILT_SERIES_PIXEL = "rlnTomoTiltSeriesPixelSize"
IMAGE_PIXEL = "rlnImagePixelSize"
_FRACTION = 1e-3
# What no number that a program writes lies beyond.
_SIZES = (1e-6, 1e9)

Program = Literal["Dynamo", "STOPGAP", "EM", "copick", "Data Portal", "CSV"]
_FIRST_VOXEL: dict[Program, float] = {
    "Dynamo": 0.5,
    "STOPGAP": 1.0,
    "EM": 1.0,
    "copick": 0.0,
    "Data Portal": 0.0,
    "CSV": 0.0,
}


@dataclass(frozen=True)
class CoordinateFrame:
    """Unit and origin of the coordinates of a file.

    Parameters
    ----------
    unit_angstrom
        ``(n,)`` Å per unit, for each row, or one for all; None where the file counts voxels of the tomogram.
    from_centre
        Whether 0 is the centre of the tomogram, ``size / 2``, rather than a corner.
    stated_by
        What says so: a label, or the program.
    first_voxel
        The coordinate of the centre of the tomogram's first voxel.
    """

    unit_angstrom: Float[NDArray[np.float64], " n"] | float | None
    from_centre: bool = False
    stated_by: str = ""
    first_voxel: float = 0.0

    def describe(self, assumed_angstrom: float | None = None) -> str:
        """Say unit and origin.

        Parameters
        ----------
        assumed_angstrom
            The voxel that is taken where the file states no unit.
        """
        origin = "from the centre of the tomogram" if self.from_centre else "from the corner of the tomogram"
        if self.unit_angstrom is None:
            taken = "" if assumed_angstrom is None else f", taken to be of {assumed_angstrom:g} Å as the images are"
            return f"voxels of the tomogram{taken}, {origin}"
        sizes = np.unique(np.round(np.atleast_1d(self.unit_angstrom), 5)).tolist()
        by = f" ({self.stated_by})" if self.stated_by else ""
        if self.from_centre or self.stated_by == "copick":
            return f"Å{by}, {origin}"
        shown = " and ".join(f"{size:g}" for size in sizes[:4]) + (" and more" if len(sizes) > 4 else "")
        return f"pixels of {shown} Å{by}, {origin}"

    def select(self, keep: NDArray[np.int64]) -> "CoordinateFrame":
        """The frame of these rows."""
        unit = self.unit_angstrom
        return replace(self, unit_angstrom=unit[keep]) if isinstance(unit, np.ndarray) else self

    def given(self, unit_angstrom: float) -> "CoordinateFrame":
        """The frame with the unit that a user gives, over what the file says."""
        return replace(self, unit_angstrom=unit_angstrom, stated_by="as given")

    def units(self, n: int, otherwise: float) -> Float[NDArray[np.float64], "n 1"]:
        """Å per unit of each row; ``otherwise`` where the file does not say."""
        value = otherwise if self.unit_angstrom is None else self.unit_angstrom
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (n,))[:, None]


def coordinate_frame(
    program: Program | Literal["RELION"], document: StarDocument | None = None, block: StarBlock | None = None
) -> CoordinateFrame:
    """State what the coordinates of a file count, and from where, as the table of this module has it.

    Parameters
    ----------
    program
        RELION stands for every STAR with ``rln`` labels, whatever wrote it.
    document, block
        The STAR and its block of coordinates, of RELION only.

    Raises
    ------
    InputError
        If there are no coordinates, a pixel size is no positive number, or rows name no known optics group.
    """
    if program != "RELION":
        return CoordinateFrame(1.0 if program == "copick" else None, False, program, _FIRST_VOXEL[program])
    if document is None or block is None:
        raise ValueError("a STAR of RELION's labels is judged by its document and block")
    if has_all(block, CENTRED):
        return CoordinateFrame(1.0, True, "rlnCenteredCoordinateX/Y/ZAngst")
    if not has_all(block, CORNER):
        raise InputError(
            "the STAR has no coordinates",
            file=document.source,
            row=block.header_line + 1,
            expected="rlnCoordinateX, Y, Z or rlnCenteredCoordinateXAngst, YAngst, ZAngst",
            found=", ".join(label for label in block.labels if "Coordinate" in label) or "none of them",
        )
    optics = document.find("optics")
    label = None if optics is None or not optics.n_rows else _optics_label(document, block, optics)
    if optics is not None and label is not None:
        return CoordinateFrame(by_optics_group(document, block, optics, label), False, label)
    cells = block.columns(
        [label for label in ("rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification") if label in block]
    )
    if "rlnPixelSize" in cells:
        return CoordinateFrame(positive_numbers(document, block, "rlnPixelSize"), False, "rlnPixelSize of each row")
    if optics is None:
        old = spacing_of_old_layout(document, block, cells)
        return CoordinateFrame(old, False, "" if old is None else "rlnDetectorPixelSize and rlnMagnification")
    if IMAGE_PIXEL in optics and optics.n_rows > 1:
        # A voxel of the tomogram is one of the images that were cut from it, group by group.
        sizes = by_optics_group(document, block, optics, IMAGE_PIXEL)
        if np.ptp(sizes) > _FRACTION * sizes[0]:
            return CoordinateFrame(sizes, False, IMAGE_PIXEL)
    return CoordinateFrame(None)


def has_coordinates(block: StarBlock) -> bool:
    """Whether a block holds positions in three dimensions."""
    return has_all(block, CENTRED) or has_all(block, CORNER)


def has_all(block: StarBlock, labels: tuple[str, ...]) -> bool:
    """Whether a block has all of these columns."""
    return all(label in block for label in labels)


def _optics_label(document: StarDocument, block: StarBlock, optics: StarBlock) -> str | None:
    """The column of the optics that says what corner coordinates count."""
    if COORDINATE_PIXEL in optics:
        return COORDINATE_PIXEL
    general = document.find("general")
    if general is not None and "rlnTomoSubTomosAre2DStacks" in general and IMAGE_PIXEL in optics:
        # RELION 5, whose block this is, counts from the centre.
        return IMAGE_PIXEL
    if TILT_SERIES_PIXEL in optics:
        return TILT_SERIES_PIXEL
    # RELION 3.1 keeps what Warp stated in the rows.
    is_warp = IMAGE_PIXEL in optics and "rlnPixelSize" not in block and _names_tomostar(block)
    return IMAGE_PIXEL if is_warp else None


def _names_tomostar(block: StarBlock) -> bool:
    label = "rlnTomoName" if "rlnTomoName" in block else "rlnMicrographName"
    return label in block and all(name.endswith(".tomostar") for name in block.column(label))


def by_optics_group(
    document: StarDocument, block: StarBlock, optics: StarBlock, label: str
) -> Float[NDArray[np.float64], " n"]:
    """Read a pixel size of the optics for each row of the particles; what unused groups say does not matter.

    Parameters
    ----------
    document, block
        The STAR, and its block of particles.
    optics
        The block of optics groups, if there is one.
    label
        Of the column.

    Raises
    ------
    InputError
        If a size is not positive, or a row names no known group.
    """
    rows = optics_rows(document, block, optics)
    told = "rlnOpticsGroup" in block and "rlnOpticsGroup" in optics
    sizes = np.full(optics.n_rows, np.nan)
    for row in np.unique(rows).tolist() if told else range(optics.n_rows):
        sizes[row] = positive_number(document, optics, label, row)
    if not told and np.ptp(sizes) > _FRACTION * sizes[0]:
        table, name = (optics, "optics") if "rlnOpticsGroup" in block else (block, block.name)
        raise InputError(
            "optics groups differ in a pixel size, and rows do not say which group they are of",
            file=document.source,
            row=table.header_line + 1,
            expected=f"rlnOpticsGroup in data_{name}",
            found=f"{label} {', '.join(f'{size:g}' for size in sizes)}",
            remedy="add the column",
        )
    return sizes[rows]


def optics_rows(document: StarDocument, block: StarBlock, optics: StarBlock) -> Int[NDArray[np.int64], " n"]:
    """The row of the optics that each particle is of: the first where particles do not say.

    Raises
    ------
    InputError
        If a particle names a group that is not there.
    """
    if "rlnOpticsGroup" not in block or "rlnOpticsGroup" not in optics:
        return np.zeros(block.n_rows, dtype=np.int64)
    places = {group_number(text): row for row, text in enumerate(optics.column("rlnOpticsGroup"))}
    groups = [group_number(text) for text in block.column("rlnOpticsGroup")]
    unknown = next((i for i, group in enumerate(groups) if group not in places), None)
    if unknown is not None:
        raise InputError(
            "a particle names an optics group that is not in data_optics",
            file=document.source,
            row=int(block.line_numbers[unknown]),
            expected=f"one of {', '.join(places) or 'no groups'}",
            found=groups[unknown],
            remedy="restore the group's row in data_optics",
        )
    return np.array([places[group] for group in groups], dtype=np.int64)


def positive_number(document: StarDocument, block: StarBlock, label: str, row: int) -> float:
    """Read one cell that is a size.

    Parameters
    ----------
    document, block
        The STAR, and a block of it.
    label
        Of the column.
    row
        0-based.

    Raises
    ------
    InputError
        If it is no finite number above 0.
    """
    text = block.column(label)[row]
    try:
        size = float(text)
    except ValueError:
        size = np.nan
    if not _SIZES[0] <= size <= _SIZES[1]:
        line = int(block.line_numbers[row])
        raise not_positive(label, document, line, text)
    return size


def positive_numbers(document: StarDocument, block: StarBlock, label: str) -> Float[NDArray[np.float64], " n"]:
    """Read a column of pixel sizes.

    Raises
    ------
    InputError
        If one is no finite number above 0.
    """
    sizes = read_numbers(document, block, label, block.column(label))
    bad = np.flatnonzero((sizes < _SIZES[0]) | (sizes > _SIZES[1]))
    if len(bad):
        raise not_positive(label, document, int(block.line_numbers[bad[0]]), f"{sizes[bad[0]]:g}")
    return np.asarray(sizes)
