"""Picks from a RELION STAR of any generation: whose pixels, from which corner, in which frame."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.geometry import matrices_from_euler
from cryodc.picks.columns import read_classes, read_half_sets
from cryodc.picks.picks import Picks
from cryodc.star import StarBlock, StarDocument, describe_layout, read_numbers, spacing_of_old_layout

_CORNER = tuple(f"rlnCoordinate{axis}" for axis in "ZYX")
_CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX")
_ORIGINS = {unit: tuple(f"rlnOrigin{axis}{unit}" for axis in "ZYX") for unit in ("Angst", "")}
_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_FRAME = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
_OTHER = (
    "rlnTomoName", "rlnMicrographName", "rlnClassNumber", "rlnRandomSubset", "rlnOpticsGroup", "rlnPixelSize",
    "rlnDetectorPixelSize", "rlnMagnification",
)  # fmt: skip


def read_relion(document: StarDocument) -> Picks:
    """Read coordinates, origins and angles; the images, where it names any, are not looked at.

    RELION 5 counts from the tomogram's centre in Å; RELION 4 in pixels of the tilt series; a STAR without optics
    groups in the pixels it states, and others in voxels of the tomogram. Origins and angles are in the frame of
    rlnTomoSubtomogramRot, Tilt, Psi, where it has them.

    Raises
    ------
    InputError
        If no table has coordinates, or a number cannot be read.
    """
    block = _coordinate_block(document)
    from_centre = _CENTRED[0] in block
    position_labels = _CENTRED if from_centre else _CORNER
    used = (*position_labels, *_ORIGINS["Angst"], *_ORIGINS[""], *_ANGLES, *_FRAME, *_OTHER)
    cells = block.columns([label for label in used if label in block])

    def numbers(labels: Sequence[str]) -> NDArray[np.float64]:
        return np.stack([read_numbers(document, block, label, cells[label]) for label in labels], axis=1)

    positions = numbers(position_labels)
    unit = 1.0 if from_centre else _unit(document, block, cells)
    frame = matrices_from_euler(numbers(_FRAME)) if all(label in cells for label in _FRAME) else None
    rotations = matrices_from_euler(numbers(_ANGLES)) if all(label in cells for label in _ANGLES) else None
    if frame is not None:
        rotations = frame if rotations is None else frame @ rotations
    shifts_angstrom = None
    for name, labels in _ORIGINS.items():
        if not all(label in cells for label in labels):
            continue
        shifts = -numbers(labels)
        shifts = shifts if frame is None else np.einsum("nij,nj->ni", frame, shifts)
        if name:
            shifts_angstrom = shifts
        else:
            positions = positions + shifts
        break
    classes, unread_classes = read_classes(block, "rlnClassNumber")
    half_sets, unread_halves = read_half_sets(block, "rlnRandomSubset")
    return Picks(
        document.source,
        describe_layout(document),
        block.line_numbers.astype(np.int64),
        tuple(cells.get("rlnTomoName", cells.get("rlnMicrographName", [""] * block.n_rows))),
        positions,
        unit_angstrom=unit,
        from_centre=from_centre,
        shifts_angstrom=shifts_angstrom,
        rotations=rotations,
        classes=classes,
        half_sets=half_sets,
        left_out=(*(label for label in block.labels if label not in used), *unread_classes, *unread_halves),
    )


def _coordinate_block(document: StarDocument) -> StarBlock:
    found = [
        block
        for block in document.blocks
        if block.is_loop and any(all(label in block for label in labels) for labels in (_CENTRED, _CORNER))
    ]
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
        raise InputError("the file holds no picks", file=document.source, row=block.header_line + 1)
    return block


def _unit(document: StarDocument, block: StarBlock, cells: Mapping[str, Sequence[str]]) -> float | None:
    """Å per unit of rlnCoordinateX; None where it counts voxels of the tomogram."""
    optics = document.find("optics")
    if optics is None:
        return spacing_of_old_layout(document, block, cells)
    if not optics.n_rows or "rlnTomoTiltSeriesPixelSize" not in optics:
        return None
    label = "rlnTomoTiltSeriesPixelSize"
    sizes = read_numbers(document, optics, label, optics.column(label))
    if sizes.min() <= 0 or np.ptp(sizes) > 1e-3 * sizes[0]:
        raise InputError(
            "optics groups differ in the pixel size of the tilt series",
            file=document.source,
            row=int(optics.line_numbers[0]),
            found=", ".join(f"{size:g}" for size in sizes),
            remedy="give a STAR for each, or say what a coordinate is: --coordinate-spacing",
        )
    return float(sizes[0])
