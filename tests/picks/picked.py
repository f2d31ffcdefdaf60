"""A tomogram of known particles, and picks of them as every program writes them."""

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tests.simulated import blobs

SPACING = 8.0
SHAPE = (40, 72, 88)
# xyz, 0-based voxels; far enough apart that each box of 16 holds one.
POSITIONS = np.array([[20.25, 18.5, 16.0], [60.0, 20.75, 20.3], [30.1, 50.4, 22.7], [68.9, 52.0, 18.45]])
ANGLES = np.array([[10.0, 20.0, 30.0], [-75.5, 140.0, 3867.465], [170.0, 5.0, -12.0], [33.0, 91.0, 200.0]])
# Three blobs, no symmetry: xyz from the centre in voxels, of the reference.
BLOBS = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 2.5, 1.0]])
SIGMA = 1.3


def _matrices() -> NDArray[np.float64]:
    """RELION's A, xyz: reference → tomogram."""
    return Rotation.from_euler("ZYZ", ANGLES, degrees=True).inv().as_matrix()


def _blobs(shape: tuple[int, ...], centres_xyz: NDArray[np.float64], sigma: float = SIGMA) -> NDArray[np.float32]:
    return blobs(shape, centres_xyz[:, ::-1], sigma).astype(np.float32)


def _star(labels: list[str], rows: list[list[object]], optics: str = "", general: str = "") -> str:
    header = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels, start=1))
    return (
        f"{general}{optics}data_particles\n\nloop_\n{header}\n"
        + "\n".join(" ".join(map(str, row)) for row in rows)
        + "\n"
    )


def _angles(label: str = "rlnAngle") -> list[str]:
    return [f"{label}{name}" for name in ("Rot", "Tilt", "Psi")]


def _xyz(label: str, ending: str = "") -> list[str]:
    return [f"{label}{axis}{ending}" for axis in "XYZ"]


def _write_picks(kind: str, folder: Path) -> Path:
    """The same four picks as each program writes them, by formulas that are not the package's."""
    inverse = Rotation.from_matrix(np.swapaxes(_matrices(), 1, 2))
    if kind == "relion 3.0":
        origins = np.array([1.5, -2.0, 0.25])
        rows = [["TS_07.mrc", *(p + origins), *a, *origins] for p, a in zip(POSITIONS, ANGLES, strict=True)]
        text = _star(["rlnMicrographName", *_xyz("rlnCoordinate"), *_angles(), *_xyz("rlnOrigin")], rows)
    elif kind == "relion 3.1":
        origins = np.array([12.0, -16.0, 2.0])
        rows = [["TS_07", *(p + origins / SPACING), *a, *origins] for p, a in zip(POSITIONS, ANGLES, strict=True)]
        labels = ["rlnTomoName", *_xyz("rlnCoordinate"), *_angles(), *_xyz("rlnOrigin", "Angst")]
        text = _star(labels, rows, "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n1 4.0\n\n")
    elif kind == "relion 4":
        # Pixels of the tilt series, four to a voxel.
        rows = [["TS_07", *(4 * p), *a, 1] for p, a in zip(POSITIONS, ANGLES, strict=True)]
        optics = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n1 2.0\n\n"
        text = _star(["rlnTomoName", *_xyz("rlnCoordinate"), *_angles(), "rlnOpticsGroup"], rows, optics)
    elif kind == "relion 5":
        # Å from the centre, pose split into frame and rest, origin in the frame.
        frames = Rotation.from_euler("ZYZ", [[40, 60, -20]] * 4, degrees=True)
        rest = frames * Rotation.from_matrix(_matrices())
        eulers = rest.inv().as_euler("ZYZ", degrees=True)
        origins = np.array([10.0, -6.0, 4.0])
        centred = (POSITIONS - np.array(SHAPE[::-1]) / 2) * SPACING + frames.inv().apply(origins)
        rows = [["TS_07", *c, 40, 60, -20, *e, *origins] for c, e in zip(centred, eulers, strict=True)]
        labels = ["rlnTomoName", *_xyz("rlnCenteredCoordinate", "Angst"), *_angles("rlnTomoSubtomogram"), *_angles()]
        text = _star(
            [*labels, *_xyz("rlnOrigin", "Angst")], rows, general="data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n\n"
        )
    elif kind == "dynamo":
        # tdrot, tilt, narot bring the particle onto the reference; the first voxel's centre is 0.5.
        eulers = inverse.as_euler("zxz", degrees=True)
        shift = np.array([0.5, -1.25, 2.0])
        rows = []
        for i, (p, e) in enumerate(zip(POSITIONS, eulers, strict=True), start=1):
            row = [i, 1, 1, *shift, *e, *[0] * 10, 7, 0, 3, 0, *(p + 0.5 - shift), *[0] * 9]
            rows.append(" ".join(str(value) for value in row))
        text = "\n".join(rows) + "\n"
    elif kind == "stopgap":
        # phi, the, psi bring the reference onto the particle; the first voxel is 1.
        eulers = inverse.inv().as_euler("zxz", degrees=True)
        labels = "motl_idx tomo_num object subtomo_num halfset orig_x orig_y orig_z score x_shift y_shift z_shift "
        labels += "phi psi the class"
        rows = []
        for i, (p, (phi, the, psi)) in enumerate(zip(POSITIONS, eulers, strict=True), start=1):
            rows.append([i, 7, 1, i, "AB"[i % 2], *np.round(p + 1), 0.5, *(p + 1 - np.round(p + 1)), phi, psi, the, 3])
        text = _star(labels.split(), rows).replace("data_particles", "data_stopgap_motivelist")
    elif kind == "copick":
        points = []
        for p, a in zip(POSITIONS * SPACING, _matrices(), strict=True):
            affine = np.eye(4)
            affine[:3, :3] = a
            points.append(
                {"location": dict(zip("xyz", p, strict=True)), "transformation_": affine.tolist(), "instance_id": 0}
            )
        text = json.dumps({"run_name": "TS_07", "voxel_spacing": 10.0, "unit": "angstrom", "points": points})
    elif kind == "portal":
        lines = [
            {"type": "orientedPoint", "location": dict(zip("xyz", p, strict=True)), "xyz_rotation_matrix": a.tolist()}
            for p, a in zip(POSITIONS, _matrices(), strict=True)
        ]
        # As in the portal: no line end behind the last.
        text = "\n".join(json.dumps(line) for line in lines)
        path = folder / "TS_07/Reconstructions/VoxelSpacing8.000/Annotations/101/ribosome-1.0_orientedpoint.ndjson"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return path
    elif kind == "em":
        # The same angles and first voxel as STOPGAP's, packed by hand: 512 bytes, then 20 floats a particle.
        eulers = inverse.inv().as_euler("zxz", degrees=True)
        body = b""
        for i, (p, (phi, the, psi)) in enumerate(zip(POSITIONS, eulers, strict=True), start=1):
            row = [0.5, 0, 0, i, 7, 1, 0, *np.round(p + 1), *(p + 1 - np.round(p + 1)), 0, 0, 0, phi, psi, the, 3]
            body += struct.pack("<20f", *row)
        header = bytes([6, 0, 0, 5]) + struct.pack("<3i", 20, len(POSITIONS), 1)
        path = folder / "picks.em"
        path.write_bytes(header.ljust(512, b"\0") + body)
        return path
    else:
        rows = [[*p, "TS_07", *a] for p, a in zip(POSITIONS, ANGLES, strict=True)]
        text = "X,Y,Z,tomogram,rot,tilt,psi\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n"
    ending = {"dynamo": "tbl", "copick": "json", "csv": "csv"}.get(kind, "star")
    path = folder / f"picks.{ending}"
    path.write_text(text)
    return path
