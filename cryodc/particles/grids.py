"""Optics groups of different box or pixel size: the grid of each particle's files, and the one grid all are brought to.

Particles are compared on one grid: the coarsest pixel of the groups, and the largest even box of such voxels that lies
within every group's box. Each particle is Fourier-interpolated to it when it is read. Nothing that a group measured
below the Nyquist frequency of the coarsest is lost, and files and STAR stay as they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cryodc.errors import InputError
from cryodc.io import ImageReference
from cryodc.particles.headers import HeaderCheck, check_headers, check_weight_headers
from cryodc.particles.table import Grid
from cryodc.star import OpticsGroup, StarBlock, StarDocument, common_value, group_number

_FRACTION = 1e-3
_SMALLEST_BOX = 8


@dataclass(frozen=True)
class StatedGrids:
    """What the optics groups state.

    Parameters
    ----------
    box_size, spacing_angstrom
        That all particles are brought to; None where the STAR does not say.
    of_rows
        The grid of each particle's files; None where all groups have one.
    """

    box_size: float | None
    spacing_angstrom: float | None
    of_rows: tuple[Grid, ...] | None = None

    def describe(self) -> str:
        """Say what is done where groups differ."""
        grids = dict.fromkeys(self.of_rows or ())
        listed = " and ".join(f"box {grid.box_size} at {grid.spacing_angstrom:g} Å" for grid in grids)
        return f"optics groups differ: {listed}; all are read at box {self.box_size:g}, {self.spacing_angstrom:g} Å"


def stated_grids(document: StarDocument, block: StarBlock, groups: Sequence[OpticsGroup]) -> StatedGrids:
    """Give the grid of the optics groups that particles use, and the common one where they differ.

    Raises
    ------
    InputError
        If groups differ and one does not state box and pixel, has an odd box, or leaves no box to all.
    """
    stated = [group for group in groups if group.box_size is not None and group.spacing_angstrom is not None]
    if len(stated) < len(groups) or not _differ(stated):
        spacing = common_value(document, groups, "spacing_angstrom", "pixel size")
        return StatedGrids(common_value(document, groups, "box_size", "box size"), spacing)
    grids = {}
    for group in stated:
        box, spacing = int(group.box_size or 0), float(group.spacing_angstrom or 0)
        if box % 2:
            raise odd_box(document, group.row, box)
        grids[group.number] = Grid(box, spacing)
    coarsest = max(grid.spacing_angstrom for grid in grids.values())
    # A box that is a whole number of voxels must not lose two to rounding.
    common = 2 * math.floor(min(grid.extent_angstrom for grid in grids.values()) / coarsest / 2 + _FRACTION)
    if common < _SMALLEST_BOX:
        raise InputError(
            "optics groups differ so much that no box is common to them",
            file=document.source,
            row=stated[0].row,
            expected=f"at least {_SMALLEST_BOX} voxels of {coarsest:g} Å within every box",
            found="; ".join(f"group {n}: box {g.box_size} at {g.spacing_angstrom:g} Å" for n, g in grids.items()),
            remedy="extract the groups again at closer box and pixel sizes, or give a STAR for each",
        )
    numbers = [group_number(text) for text in block.column("rlnOpticsGroup")]
    return StatedGrids(common, coarsest, tuple(grids[number] for number in numbers))


def check_files(
    images: Sequence[ImageReference], weights: Sequence[ImageReference] | None, rows: Sequence[int], stated: StatedGrids
) -> HeaderCheck:
    """Check the header of every image and weight against its grid; its box and spacing are those of the set.

    Parameters
    ----------
    images, weights, rows
        Of each particle, with its line in the STAR.
    stated
        What the STAR says.
    """
    grids = stated.of_rows or (Grid(int(stated.box_size or 0), stated.spacing_angstrom or 0.0),) * len(rows)
    found = HeaderCheck(None, None, [], 0, [], {})
    for grid in dict.fromkeys(grids):
        members = [i for i, other in enumerate(grids) if other == grid]
        mine = [rows[i] for i in members]
        part = check_headers([images[i] for i in members], mine, grid.box_size or None, grid.spacing_angstrom or None)
        if weights is not None and part.box_size is not None:
            problems, shapes = check_weight_headers([weights[i] for i in members], mine, part.box_size)
            part = replace(part, problems=part.problems + problems, weight_shapes=shapes)
        found = HeaderCheck(
            part.box_size,
            part.spacing_angstrom,
            found.problems + part.problems,
            found.n_spacing_unset + part.n_spacing_unset,
            found.flat + [members[i] for i in part.flat],
            {**found.weight_shapes, **part.weight_shapes},
        )
    if stated.of_rows is not None:
        found = replace(found, box_size=int(stated.box_size or 0), spacing_angstrom=stated.spacing_angstrom)
    return found


def odd_box(document: StarDocument, row: int | None, box_size: int) -> InputError:
    """Say that a box cannot be used because it is odd.

    Parameters
    ----------
    document, row
        The STAR, and the line of its optics group.
    box_size
        What it says.
    """
    return InputError(
        "the box size is odd",
        file=document.source,
        row=row,
        expected="an even rlnImageSize",
        found=str(box_size),
        remedy="extract the particles again with an even box",
    )


def _differ(groups: Sequence[OpticsGroup]) -> bool:
    for field in ("box_size", "spacing_angstrom"):
        values = np.array([getattr(group, field) for group in groups], dtype=np.float64)
        if len(values) and np.ptp(values) > _FRACTION * values[0]:
            return True
    return False
