"""Files of an extraction: particles.star in RELION 3.1's layout, weights, and dropped.csv."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.dry_run import Forecast
from cryodc.fourier import TiltAxis, wedge_from_tilt_range
from cryodc.geometry import euler_from_matrices
from cryodc.io import write_array, write_text
from cryodc.particles import COORDINATE_PIXEL
from cryodc.picks.picks import Picks
from cryodc.star import number_texts, star_table

_MICROSCOPE = {"rlnVoltage": "300.000000", "rlnSphericalAberration": "2.700000", "rlnAmplitudeContrast": "0.100000"}
"""RELION finds no particles where these are missing; with weight volumes nothing is computed of them."""


@dataclass(frozen=True)
class Extracted:
    """One particle that was cut out.

    Parameters
    ----------
    pick
        Its place among the picks.
    tomogram, position_voxels
        Where it was cut out; zyx, 0-based.
    image, weight
        Names of its files; None where no weight was written.
    """

    pick: int
    tomogram: str
    position_voxels: Float[NDArray[np.float64], " 3"]
    image: str
    weight: str | None


@dataclass(frozen=True)
class Dropped:
    """One pick that gave no particle: its line, tomogram, position (zyx, 0-based voxels), and why."""

    row: int
    tomogram: str
    position_voxels: Float[NDArray[np.float64], " 3"]
    why: str


def plan_of_boxes(out: Path, n_tomograms: int, n_boxes: int, box_size: int, binning: int) -> Forecast:
    """What cutting boxes would read, write and cost.

    Parameters
    ----------
    out
        The folder to make.
    n_tomograms, n_boxes
        To cut from, and to cut.
    box_size, binning
        Of the output, and voxels of the tomogram along each of its voxels.
    """
    cut, n_bytes = (box_size * binning,) * 3, 4.0 * n_boxes * box_size**3
    told = f"{n_boxes} boxes of {n_tomograms} tomograms"
    return Forecast(out, told, n_bytes * binning**3, n_bytes, cut, {"box": n_boxes}, 8)


def write_extracted(
    path: Path,
    picks: Picks,
    particles: Sequence[Extracted],
    box_size: int,
    spacing_angstrom: float,
    tomogram_spacing_angstrom: float,
) -> None:
    """Write particles.star atomically; image names are relative to its folder.

    rlnCoordinateX, Y, Z count 0-based voxels of the tomogram, whose size rlnMicrographPixelSize states; shifts are
    included, so origins are 0. Angles, classes and half sets are those of the picks, where they have them. Of the
    microscope nothing is known: 300 kV, 2.7 mm and 0.1 are written, since RELION reads no optics without them.

    Parameters
    ----------
    path
        The STAR to write.
    picks
        All picks.
    particles
        Those that were extracted.
    box_size, spacing_angstrom
        Of the subtomograms.
    tomogram_spacing_angstrom
        Å per voxel of the tomograms.
    """
    optics = {
        "rlnOpticsGroup": "1",
        "rlnOpticsGroupName": "extracted",
        **_MICROSCOPE,
        COORDINATE_PIXEL: f"{tomogram_spacing_angstrom:.6f}",
        "rlnImagePixelSize": f"{spacing_angstrom:.6f}",
        "rlnImageSize": str(box_size),
        "rlnImageDimensionality": "3",
    }
    positions = np.array([particle.position_voxels for particle in particles])
    kept = np.array([particle.pick for particle in particles])
    columns: dict[str, Sequence[str]] = {
        "rlnTomoName": [particle.tomogram for particle in particles],
        **{f"rlnCoordinate{axis}": number_texts(positions[:, 2 - i]) for i, axis in enumerate("XYZ")},
        "rlnImageName": [particle.image for particle in particles],
    }
    weights = [particle.weight for particle in particles if particle.weight is not None]
    if weights:
        columns["rlnCtfImage"] = weights
    columns["rlnOpticsGroup"] = ["1"] * len(particles)
    if picks.rotations is not None:
        angles = euler_from_matrices(picks.rotations[kept])
        columns |= {f"rlnAngle{name}": number_texts(angles[:, i]) for i, name in enumerate(("Rot", "Tilt", "Psi"))}
        columns |= {f"rlnOrigin{axis}Angst": ["0.000000"] * len(particles) for axis in "XYZ"}
    for label, values in (("rlnClassNumber", picks.classes), ("rlnRandomSubset", picks.half_sets)):
        if values is not None:
            columns[label] = [str(value) for value in values[kept].tolist()]
    table = star_table("optics", {label: [value] for label, value in optics.items()})
    write_text(path, f"\n# version 30001\n\n{table}\n\n# version 30001\n\n{star_table('particles', columns)}\n")


def write_dropped(path: Path, dropped: Sequence[Dropped]) -> None:
    """Write dropped.csv atomically: line of the picks file, tomogram, x, y, z in 0-based voxels, reason."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["line", "tomogram", "x", "y", "z", "reason"])
    for pick in dropped:
        writer.writerow([pick.row, pick.tomogram, *(f"{at:.3f}" for at in pick.position_voxels[::-1]), pick.why])
    write_text(path, buffer.getvalue())


def write_weights(
    folder: Path,
    tilt_ranges: Iterable[tuple[float, float]],
    box_size: int,
    tilt_axis: TiltAxis,
    spacing_angstrom: float,
) -> dict[tuple[float, float], str]:
    """Write one weight for each tilt range; their names in the folder.

    Parameters
    ----------
    folder
        Of the extraction.
    tilt_ranges, tilt_axis
        Degrees.
    box_size, spacing_angstrom
        Of the subtomograms.
    """
    files = {}
    for pair in dict.fromkeys(tilt_ranges):
        files[pair] = f"weights/wedge{pair[0]:+g}{pair[1]:+g}.mrc"
        weight = wedge_from_tilt_range(box_size, *pair, tilt_axis)
        write_array(folder / files[pair], weight.numpy(), spacing_angstrom)
    return files
