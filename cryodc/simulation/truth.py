"""Files of a simulation: its answer (truth.csv) and its particles (particles.star).

truth.csv has one row per particle: ``name`` (rlnImageName of the STAR), ``protein``, ``state``, RELION's ``rot``,
``tilt``, ``psi`` in degrees and origins ``shift_x_angstrom`` … (rlnOriginXAngst …), ``tomogram``, ``symmetry``, and
numbers that only some simulations have: ``n_neighbours``, ``defocus_micrometres``, ``tilt_min``, ``tilt_max``.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.geometry import euler_from_matrices, matrices_from_euler
from cryodc.io import write_text
from cryodc.particles import Poses
from cryodc.star import number_texts, star_table

_ANGLES = ("rot", "tilt", "psi")
_SHIFTS = ("shift_x_angstrom", "shift_y_angstrom", "shift_z_angstrom")
_REQUIRED = ("name", "protein", *_ANGLES, *_SHIFTS)
COLUMNS = ("name", "protein", "state", *_ANGLES, *_SHIFTS, "tomogram", "symmetry")


@dataclass(frozen=True)
class Truth:
    """The answer: everything about simulated particles but their voxels.

    Parameters
    ----------
    names
        Unique particle names.
    proteins, symmetries
        Distinct proteins, and the point group of each.
    labels
        ``(n,)`` protein of each particle, an index of ``proteins``.
    states
        ``(n,)`` in [0, 1]; 0 for rigid proteins.
    poses
        Rotations and origins, as everywhere.
    tomograms
        Tomogram of each particle.
    extra
        ``(n,)`` further numbers by column.

    Raises
    ------
    ValueError
        If lengths differ.
    """

    names: tuple[str, ...]
    proteins: tuple[str, ...]
    symmetries: tuple[str, ...]
    labels: Int[NDArray[np.int64], " n"]
    states: Float[NDArray[np.float64], " n"]
    poses: Poses
    tomograms: tuple[str, ...]
    extra: Mapping[str, Float[NDArray[np.float64], " n"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("labels", "states", "poses", "tomograms"):
            if len(getattr(self, name)) != len(self.names):
                raise ValueError(f"{len(self.names)} names but {len(getattr(self, name))} {name}")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Recording:
    """How particles of simulated tilt series were recorded.

    Parameters
    ----------
    voltage_kilovolts, spherical_aberration_millimetres, amplitude_contrast
        Of the microscope.
    defocus_angstrom
        ``(n,)`` of each particle in the untilted image.
    """

    voltage_kilovolts: float
    spherical_aberration_millimetres: float
    amplitude_contrast: float
    defocus_angstrom: Float[NDArray[np.float64], " n"]


def write_truth(path: Path, truth: Truth) -> None:
    """Write truth.csv atomically."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, *truth.extra])
    angles = euler_from_matrices(truth.poses.rotations)
    for i, label in enumerate(truth.labels):
        numbers = [*angles[i], *truth.poses.origins_angstrom[i, ::-1]]
        writer.writerow(
            [
                truth.names[i],
                truth.proteins[label],
                f"{truth.states[i]:.6f}",
                *(f"{number:.6f}" for number in numbers),
                truth.tomograms[i],
                truth.symmetries[label],
                *(f"{values[i]:g}" for values in truth.extra.values()),
            ]
        )
    write_text(path, buffer.getvalue())


def read_truth(path: Path) -> Truth:
    """Read truth.csv; ``state``, ``tomogram`` and ``symmetry`` may be missing. Further columns are not read.

    Raises
    ------
    InputError
        If it is no such table, a number is not one, a name comes twice, or one protein has two symmetries.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise InputError(
            f"cannot read the truth: {reason}",
            file=path,
            expected="truth.csv, as `cryodc simulate` writes it",
            remedy="give that file, or leave --truth out",
        ) from error
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in _REQUIRED if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(
            "the truth lacks columns",
            file=path,
            expected=", ".join(_REQUIRED),
            found="none of " + ", ".join(missing),
            remedy="use the truth.csv that `cryodc simulate` wrote",
        )
    rows = [(reader.line_num, row) for row in reader]
    names: dict[str, None] = {}
    symmetries: dict[str, str] = {}
    numbers = np.zeros((len(rows), 7))
    for i, (line, row) in enumerate(rows):
        if row["name"] in names:
            raise InputError(
                "a name comes twice",
                file=path,
                row=line,
                expected="one line for each particle",
                found=row["name"],
                remedy="leave one of the two lines out",
            )
        names[row["name"]] = None
        symmetry = row.get("symmetry") or "C1"
        if symmetries.setdefault(row["protein"], symmetry) != symmetry:
            raise InputError(
                f"protein {row['protein']} has two symmetries",
                file=path,
                row=line,
                expected=symmetries[row["protein"]],
                found=symmetry,
            )
        try:
            numbers[i] = [float(row[column]) for column in (*_ANGLES, *_SHIFTS)] + [float(row.get("state") or 0)]
        except (TypeError, ValueError) as error:
            raise InputError(
                "angles and shifts are not all numbers",
                file=path,
                row=line,
                expected="numbers in " + ", ".join((*_ANGLES, *_SHIFTS)),
                found=str(error),
                remedy="simulate again, or correct the line",
            ) from error
    proteins = tuple(symmetries)
    return Truth(
        tuple(names),
        proteins,
        tuple(symmetries.values()),
        np.array([proteins.index(row["protein"]) for _, row in rows], dtype=np.int64),
        numbers[:, 6],
        Poses(matrices_from_euler(numbers[:, :3]), numbers[:, 5:2:-1].copy()),
        tuple(row.get("tomogram") or "" for _, row in rows),
    )


def write_particles(
    path: Path,
    truth: Truth,
    weight_files: Sequence[str],
    coordinates: Float[NDArray[np.float64], "n 3"],
    box_size: int,
    spacing_angstrom: float,
    with_poses: bool,
    recording: Recording | None = None,
    microscope: Mapping[str, str] | None = None,
) -> None:
    """Write particles.star in RELION 3.1's layout, atomically.

    Parameters
    ----------
    path
        The STAR file; image names are relative to its folder.
    truth
        Names (rlnImageName), tomograms and, if asked for, poses.
    weight_files
        rlnCtfImage of each particle.
    coordinates
        ``(n, 3)`` zyx, voxels of the tomogram.
    box_size, spacing_angstrom
        Of every particle.
    with_poses
        Whether angles and origins are written too: nothing that reads the file can then be called blind.
    recording
        Of particles that are ``ΣCTF · image``: the file then says so, with their defocus.
    microscope
        Labels of the optics group that are to be written, over those that are written by themselves.
    """
    optics = {
        "rlnOpticsGroup": "1",
        "rlnOpticsGroupName": "simulated",
        "rlnVoltage": "300.000000",
        "rlnSphericalAberration": "2.700000",
        "rlnAmplitudeContrast": "0.100000",
        "rlnMicrographPixelSize": f"{spacing_angstrom:.6f}",
        "rlnImagePixelSize": f"{spacing_angstrom:.6f}",
        "rlnImageSize": str(box_size),
        "rlnImageDimensionality": "3",
    }
    if recording is not None:
        optics |= {
            "rlnVoltage": f"{recording.voltage_kilovolts:.6f}",
            "rlnSphericalAberration": f"{recording.spherical_aberration_millimetres:.6f}",
            "rlnAmplitudeContrast": f"{recording.amplitude_contrast:.6f}",
            "rlnCtfDataAreCtfPremultiplied": "1",
        }
    optics |= microscope or {}
    columns: dict[str, Sequence[str]] = {
        "rlnMicrographName": truth.tomograms,
        **{f"rlnCoordinate{axis}": number_texts(coordinates[:, 2 - i]) for i, axis in enumerate("XYZ")},
        "rlnImageName": truth.names,
        "rlnCtfImage": weight_files,
        "rlnOpticsGroup": ["1"] * len(truth),
    }
    if recording is not None:
        defocus = number_texts(recording.defocus_angstrom)
        columns |= {"rlnDefocusU": defocus, "rlnDefocusV": defocus, "rlnDefocusAngle": ["0.000000"] * len(truth)}
    if with_poses:
        angles = euler_from_matrices(truth.poses.rotations)
        columns |= {f"rlnAngle{name}": number_texts(angles[:, i]) for i, name in enumerate(("Rot", "Tilt", "Psi"))}
        origins = truth.poses.origins_angstrom
        columns |= {f"rlnOrigin{axis}Angst": number_texts(origins[:, 2 - i]) for i, axis in enumerate("XYZ")}
    table = star_table("optics", {label: [value] for label, value in optics.items()})
    write_text(path, f"\n# version 30001\n\n{table}\n\n# version 30001\n\n{star_table('particles', columns)}\n")
