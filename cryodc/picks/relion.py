"""Picks from a RELION STAR of any generation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.geometry import matrices_from_euler
from cryodc.particles import BOX_ANGLES, CENTRED, CORNER, ORIGINS, has_coordinates, read_positions
from cryodc.picks.columns import no_picks, read_classes, read_half_sets
from cryodc.picks.picks import Picks
from cryodc.star import StarBlock, StarDocument, describe_layout, read_numbers

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_OTHER = (
    "rlnTomoName", "rlnMicrographName", "rlnClassNumber", "rlnRandomSubset", "rlnOpticsGroup", "rlnPixelSize",
    "rlnDetectorPixelSize", "rlnMagnification",
)  # fmt: skip
_USED = (*CENTRED, *CORNER, *ORIGINS["Angst"], *ORIGINS[""], *BOX_ANGLES, *_ANGLES, *_OTHER)


def read_relion(document: StarDocument) -> Picks:
    """Read positions, angles, classes and half sets; the images, where it names any, are not looked at.

    Unit and origin are those of :func:`cryodc.particles.coordinate_frame`. Origins and angles are in the frame of
    rlnTomoSubtomogramRot, Tilt, Psi, where it has them.

    Raises
    ------
    InputError
        If no table has coordinates, or a number cannot be read.
    """
    block = _coordinate_block(document)
    cells = block.columns([label for label in _USED if label in block])

    def rotations_of(labels: Sequence[str]) -> NDArray[np.float64] | None:
        if not all(label in cells for label in labels):
            return None
        angles = [read_numbers(document, block, label, cells[label]) for label in labels]
        return matrices_from_euler(np.stack(angles, axis=1))

    positions = read_positions(document, block)
    frame, rotations = rotations_of(BOX_ANGLES), rotations_of(_ANGLES)
    if frame is not None:
        rotations = frame if rotations is None else frame @ rotations
    classes, unread_classes = read_classes(block, "rlnClassNumber")
    half_sets, unread_halves = read_half_sets(block, "rlnRandomSubset")
    return Picks(
        document.source,
        describe_layout(document),
        block.line_numbers.astype(np.int64),
        tuple(cells.get("rlnTomoName", cells.get("rlnMicrographName", [""] * block.n_rows))),
        positions.coordinates,
        positions.frame,
        shifts_angstrom=positions.shifts_angstrom,
        rotations=rotations,
        classes=classes,
        half_sets=half_sets,
        left_out=(*(label for label in block.labels if label not in _USED), *unread_classes, *unread_halves),
    )


def _coordinate_block(document: StarDocument) -> StarBlock:
    found = [block for block in document.blocks if block.is_loop and has_coordinates(block)]
    named = [block for block in found if block.name == "particles"]
    if len(named or found) != 1:
        raise InputError(
            "the STAR holds no picks" if not found else "several blocks could be the picks",
            file=document.source,
            expected="one table with rlnCoordinateX … or rlnCenteredCoordinateXAngst …, or with orig_x …",
            found=", ".join(f"data_{block.name}" for block in found) or "none",
        )
    block = (named or found)[0]
    if not block.n_rows:
        raise no_picks(document.source, block.header_line + 1)
    return block
