"""Where each particle of a STAR lies in its tomogram: coordinates less origins, in the frame that the file has."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.geometry import matrices_from_euler
from cryodc.particles.coordinates import (
    CENTRED,
    CORNER,
    IMAGE_PIXEL,
    CoordinateFrame,
    by_optics_group,
    coordinate_frame,
    has_all,
    has_coordinates,
    positive_numbers,
)
from cryodc.star import (
    StarBlock,
    StarDocument,
    number_texts,
    particle_block,
    read_numbers,
    spacing_of_old_layout,
)

ORIGINS = {unit: tuple(f"rlnOrigin{axis}{unit}" for axis in "ZYX") for unit in ("Angst", "")}
BOX_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")


@dataclass(frozen=True)
class Positions:
    """Positions as a STAR has them: ``(coordinates + shifts)``, zyx, in the unit and from the origin of ``frame``.

    Parameters
    ----------
    frame
        Unit and origin.
    coordinates
        ``(n, 3)`` zyx, in units of the frame.
    shifts_angstrom
        ``(n, 3)`` zyx, ``−A_subtomo · origin``; None where the STAR has no origins.
    """

    frame: CoordinateFrame
    coordinates: Float[NDArray[np.float64], "n 3"]
    shifts_angstrom: Float[NDArray[np.float64], "n 3"] | None

    def angstrom(self, assumed_angstrom: float) -> Float[NDArray[np.float64], "n 3"]:
        """Positions in Å; a voxel of the tomogram is ``assumed_angstrom`` where the STAR does not say."""
        # What overflows is farther off than anything else.
        with np.errstate(over="ignore"):
            positions = self.coordinates * self.frame.units(len(self.coordinates), assumed_angstrom)
            return positions if self.shifts_angstrom is None else positions + self.shifts_angstrom


def read_positions(document: StarDocument, block: StarBlock) -> Positions:
    """Read coordinates and origins: coordinate − ``A_subtomo`` · origin, as RELION defines positions.

    Origins without a unit (RELION 3.0 and before) are in pixels of the images; where no image pixel is stated they
    are taken to be in the unit of the coordinates.

    Raises
    ------
    InputError
        If there are no coordinates, or one is no number.
    """
    frame = coordinate_frame("RELION", document, block)
    coordinates = _numbers(document, block, CENTRED if frame.from_centre else CORNER)
    unit = next((unit for unit, labels in ORIGINS.items() if any(label in block for label in labels)), None)
    if unit is None:
        return Positions(frame, coordinates, None)
    shifts = -_numbers(document, block, ORIGINS[unit])
    if has_all(block, BOX_ANGLES):
        shifts = np.einsum("nij,nj->ni", matrices_from_euler(_numbers(document, block, BOX_ANGLES)), shifts)
    if not unit:
        pixel = _image_pixel(document, block)
        if pixel is None:
            return Positions(frame, coordinates + shifts, None)
        with np.errstate(over="ignore"):
            shifts = shifts * pixel[:, None]
    return Positions(frame, coordinates, shifts)


def with_coordinates_moved(
    document: StarDocument, shifts_angstrom: Float[NDArray[np.float64], "n 3"], assumed_angstrom: float
) -> StarDocument:
    """Move the coordinates of every row by ``A_subtomo`` · shift: to where its box is cut after it was moved.

    Parameters
    ----------
    document
        The STAR; one without coordinates stays as it is.
    shifts_angstrom
        ``(n, 3)`` zyx, along the axes of the boxes.
    assumed_angstrom
        A voxel of the tomogram, where the STAR does not say.
    """
    block = particle_block(document)
    if not has_coordinates(block):
        return document
    frame = coordinate_frame("RELION", document, block)
    if has_all(block, BOX_ANGLES):
        turns = matrices_from_euler(_numbers(document, block, BOX_ANGLES))
        shifts_angstrom = np.einsum("nij,nj->ni", turns, shifts_angstrom)
    labels = CENTRED if frame.from_centre else CORNER
    moved = _numbers(document, block, labels) + shifts_angstrom / frame.units(block.n_rows, assumed_angstrom)
    return document.with_columns(block.name, {label: number_texts(moved[:, i]) for i, label in enumerate(labels)})


def _image_pixel(document: StarDocument, block: StarBlock) -> Float[NDArray[np.float64], " n"] | None:
    """Pixel of the image of each row, where the STAR states it."""
    optics = document.find("optics")
    if optics is not None and optics.n_rows and IMAGE_PIXEL in optics:
        return by_optics_group(document, block, optics, IMAGE_PIXEL)
    if "rlnPixelSize" in block:
        return positive_numbers(document, block, "rlnPixelSize")
    labels = [label for label in ("rlnDetectorPixelSize", "rlnMagnification") if label in block]
    old = spacing_of_old_layout(document, block, block.columns(labels))
    return None if old is None else np.full(block.n_rows, old)


def _numbers(document: StarDocument, block: StarBlock, labels: tuple[str, ...]) -> Float[NDArray[np.float64], "n k"]:
    """Columns as numbers; one that is missing is 0."""
    cells = block.columns([label for label in labels if label in block])
    columns = [
        read_numbers(document, block, label, cells[label]) if label in cells else np.zeros(block.n_rows)
        for label in labels
    ]
    return np.stack(columns, axis=1)
