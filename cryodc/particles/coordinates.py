"""Where particles lie in their tomogram, from the coordinate columns of a STAR."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.geometry import matrices_from_euler
from cryodc.particles.table import Poses
from cryodc.star import StarBlock, StarDocument, read_numbers

_CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX")
_CORNER = tuple(f"rlnCoordinate{axis}" for axis in "ZYX")
_BOX_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")


def read_positions(
    document: StarDocument, block: StarBlock, spacing_angstrom: float | None, poses: Poses | None
) -> Float[NDArray[np.float64], "n 3"] | None:
    """Positions of every row in Å, zyx: coordinate − ``A_subtomo`` · origin, as RELION defines them.

    Pixels are those of the tilt series where the optics state them (RELION 4 and 5), else of the particles.
    Only distances mean anything: the origin of the coordinates differs between layouts.

    Returns
    -------
    ``(n, 3)``, or None where the STAR has no coordinates.

    Raises
    ------
    InputError
        If a coordinate is no number.
    """
    labels, pixel = _CENTRED, 1.0
    if not all(label in block for label in labels):
        labels, pixel = _CORNER, _pixel_angstrom(document) or spacing_angstrom or 0.0
    if not all(label in block for label in labels) or pixel == 0:
        return None
    cells = block.columns([*labels, *(label for label in _BOX_ANGLES if label in block)])
    positions = pixel * np.stack([read_numbers(document, block, label, cells[label]) for label in labels], axis=1)
    if poses is None:
        return positions
    origins = poses.origins_angstrom
    if all(label in cells for label in _BOX_ANGLES):
        angles = [read_numbers(document, block, label, cells[label]) for label in _BOX_ANGLES]
        origins = np.einsum("nij,nj->ni", matrices_from_euler(np.stack(angles, axis=1)), origins)
    return positions - origins


def _pixel_angstrom(document: StarDocument) -> float | None:
    """Pixel size of the tilt series, where the optics have one."""
    optics = document.find("optics")
    if optics is None or "rlnTomoTiltSeriesPixelSize" not in optics:
        return None
    values = optics.columns(["rlnTomoTiltSeriesPixelSize"])["rlnTomoTiltSeriesPixelSize"]
    return float(read_numbers(document, optics, "rlnTomoTiltSeriesPixelSize", values)[0])
