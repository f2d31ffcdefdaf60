"""``cryodc import`` of image series: a row a tilt, as Warp and M write particles, becomes a volume a particle.

Series are simulated in plain NumPy and xyz from RELION's equations. What is imported must be W · V, where V is the
protein as it lies in the least tilted image of the particle.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.prepare.import_ import import_
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.check import check_particles
from cryodc.dataset import load_dataset
from cryodc.errors import InputError
from cryodc.particles import read_particles
from cryodc.tilts import import_tilt_stacks
from tests.tilts.stacks import BLOBS, BRIGHT, PIXEL, SIGMA, N, _agreement, _ctf, _imported, _phantom

# In the order they were taken: out from 3 degrees to both sides.
TILTS = 3.0 + np.array([0, 6, -6, 12, -12, 18, -18, 24, -24, 30, -30, 36, -36, 42, -42, 48, -48, 54, -54])
DOSE = 3.0
LABELS = [
    "rlnMagnification",
    "rlnDetectorPixelSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnPhaseShift",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnCtfBfactor",
    "rlnCtfScalefactor",
    "rlnImageName",
    "rlnMicrographName",
    "rlnGroupName",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "rlnOriginX",
    "rlnOriginY",
    "rlnRandomSubset",
]


@dataclass
class Series:
    """What to simulate: particles of two tomograms in these poses, ``x_tomogram = A x_reference``."""

    folder: Path
    poses: Rotation = field(default_factory=lambda: Rotation.random(4, rng=np.random.default_rng(5)))
    bfactor_sign: float = -1.0
    premultiplied: bool = False

    def orientation(self, particle: int, tilt: int) -> Rotation:
        """Reference → image."""
        return Rotation.from_euler("xyz", [2.0, TILTS[tilt], 84.0], degrees=True) * self.poses[particle]

    def image(self, particle: int, tilt: int, origin: NDArray[np.float64]) -> NDArray[np.float64]:
        """The blobs, moved by minus the origin (x, y, pixels), seen through the microscope."""
        axis = (np.arange(N) - N // 2) * PIXEL
        x, y = self.orientation(particle, tilt).apply(BLOBS)[:, :2].T - origin[:, None] * PIXEL
        shapes = np.exp(-((axis[:, None, None] - y) ** 2 + (axis[None, :, None] - x) ** 2) / (2 * SIGMA**2))
        ky, kx = np.fft.fftfreq(N, PIXEL)[:, None], np.fft.rfftfreq(N, PIXEL)[None]
        transfer = _ctf(*self.defocus(particle, tilt), 30.0, ky, kx) * np.cos(np.radians(TILTS[tilt]))
        transfer *= np.exp(-DOSE * (tilt + 1) * (kx**2 + ky**2))
        spectrum = np.fft.rfft2(shapes @ BRIGHT * (np.sqrt(2 * np.pi) * SIGMA / PIXEL)) * transfer
        return np.fft.irfft2(spectrum * (transfer if self.premultiplied else 1), s=(N, N))

    @staticmethod
    def defocus(particle: int, tilt: int) -> tuple[float, float]:
        return 23000.0 + 300 * particle + 40 * tilt, 21000.0 + 300 * particle + 40 * tilt

    def write(self) -> Path:
        (self.folder / "series").mkdir(parents=True)
        rows, rng = [], np.random.default_rng(1)
        for particle in range(len(self.poses)):
            tomogram = f"TS_0{1 + particle // 2}"
            name, stack = f"{tomogram}_{particle:07d}", []
            for tilt, degrees in enumerate(TILTS):
                origin = rng.uniform(-2, 2, 2)
                stack.append(self.image(particle, tilt, origin))
                angles = self.orientation(particle, tilt).inv().as_euler("ZYZ", degrees=True)
                u, v = self.defocus(particle, tilt)
                optics = [10000, PIXEL, 300, 2.7, 0.07, 0, u, v, 30.0]
                dose = [f"{self.bfactor_sign * 4 * DOSE * (tilt + 1):.2f}", f"{np.cos(np.radians(degrees)):.7f}"]
                names = [f"{tilt + 1:06d}@series/{name}.mrcs", f"{tomogram}.tomostar", name]
                places = [f"{value:.5f}" for value in (*angles, *origin)]
                rows.append([*optics, *dose, *names, *places, 1 + particle % 2])
            with mrcfile.new(self.folder / f"series/{name}.mrcs", np.array(stack, dtype=np.float32)) as mrc:
                mrc.voxel_size = PIXEL
                mrc.set_image_stack()
        labels, optics_block = LABELS, ""
        if self.premultiplied:
            labels, rows = [*LABELS, "rlnOpticsGroup"], [[*row, 1] for row in rows]
            optics_block = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n_rlnImageSize #3\n"
            optics_block += f"_rlnCtfDataAreCtfPremultiplied #4\n1 {PIXEL} {N} 1\n\n"
        header = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels, 1))
        body = "\n".join("  ".join(map(str, row)) for row in rows)
        star = self.folder / "series.star"
        star.write_text(f"{optics_block}data_particles\n\nloop_\n{header}\n{body}\n")
        return star


def _changed(star: Path, label: str, change: object) -> Path:
    """The same rows with ``change(row number, text)`` in a column."""
    lines = star.read_text().splitlines()
    rows = [i for i, line in enumerate(lines) if "@" in line]
    for number, i in enumerate(rows):
        cells = lines[i].split()
        cells[LABELS.index(label)] = str(change(number, cells[LABELS.index(label)]))  # type: ignore[operator]
        lines[i] = "  ".join(cells)
    star.write_text("\n".join(lines) + "\n")
    return star


@pytest.mark.parametrize("premultiplied", [False, True])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_particle_is_the_protein_as_it_lies_in_its_least_tilted_image(
    premultiplied: bool, sign: float, tmp_path: Path
) -> None:
    series = Series(tmp_path / "in", premultiplied=premultiplied, bfactor_sign=sign)
    summary = import_tilt_stacks(series.write(), tmp_path / "out")
    assert (summary.n_particles, summary.box_size, summary.spacing_angstrom) == (4, N, PIXEL)
    least = int(np.abs(TILTS).argmin())
    for i in range(4):
        volume, weights = _imported(summary, i)
        phantom = _phantom(series.orientation(i, least).apply(BLOBS))
        right = _agreement(volume, weights, phantom)
        assert right > 0.985
        for axis in range(3):
            mirrored = np.roll(phantom[tuple(slice(None, None, -1 if a == axis else 1) for a in range(3))], 1, axis)
            assert _agreement(volume, weights, mirrored) < right - 0.05
            for step in (-1, 1):
                assert _agreement(volume, weights, np.roll(phantom, step, axis)) < right - 0.01


def test_particles_have_the_pose_half_set_and_tomogram_of_their_rows(tmp_path: Path) -> None:
    series = Series(tmp_path / "in")
    star = series.write()
    # In no order: which image is upright is told by its scale.
    rng = np.random.default_rng(0)
    lines = star.read_text().splitlines()
    at = [i for i, line in enumerate(lines) if "@" in line]
    shuffled = rng.permutation(at)
    star.write_text("\n".join([*lines[: at[0]], *(lines[i] for i in shuffled)]) + "\n")
    summary = import_tilt_stacks(star, tmp_path / "out")
    table = starfile.read(summary.star)["particles"].set_index("rlnGroupName")
    least = int(np.abs(TILTS).argmin())
    for i in range(4):
        row = table.loc[f"TS_0{1 + i // 2}_{i:07d}"]
        angles = row[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy(dtype=float)
        turned = Rotation.from_euler("ZYZ", angles, degrees=True).inv() * series.orientation(i, least).inv()
        assert np.degrees(turned.magnitude()) < 0.001
        assert (row["rlnRandomSubset"], row["rlnMicrographName"]) == (1 + i % 2, f"TS_0{1 + i // 2}.tomostar")
    assert not {"rlnDefocusU", "rlnCtfBfactor", "rlnOriginX"} & {*table.columns}
    particles = read_particles(summary.star)
    assert particles.poses is not None
    assert len(load_dataset(particles)) == 4
    assert check_particles(summary.star).problems == ()
    assert json.loads((tmp_path / "out/import.json").read_text())["tomograms"] is None


def test_angles_that_hold_the_tilt_alone_are_no_poses(tmp_path: Path) -> None:
    """Particles that were never aligned have the same angles in one tomogram."""
    summary = import_tilt_stacks(Series(tmp_path / "in", poses=Rotation.identity(4)).write(), tmp_path / "out")
    assert read_particles(summary.star).poses is None
    volume, weights = _imported(summary, 1)
    upright = Rotation.from_euler("xyz", [2.0, TILTS[np.abs(TILTS).argmin()], 84.0], degrees=True)
    assert _agreement(volume, weights, _phantom(upright.apply(BLOBS))) > 0.985


def test_places_of_particles_are_kept_with_their_pixel(tmp_path: Path) -> None:
    star = Series(tmp_path / "in").write()
    lines = star.read_text().splitlines()
    at = [i for i, line in enumerate(lines) if "@" in line]
    for number, i in enumerate(at):
        particle = number // len(TILTS)
        lines[i] += f"  {100 + 7 * particle}.5  {50 + particle}  {20 + particle}"
    labels = [f"_rlnCoordinate{axis} #{len(LABELS) + 1 + i}" for i, axis in enumerate("XYZ")]
    star.write_text("\n".join([*lines[: at[0]], *labels, *lines[at[0] :]]) + "\n")
    summary = import_tilt_stacks(star, tmp_path / "out", binning=2)
    tables = starfile.read(summary.star)
    assert tables["particles"]["rlnCoordinateX"].tolist() == [100.5, 107.5, 114.5, 121.5]
    assert tables["optics"]["rlnMicrographPixelSize"].tolist() == [PIXEL]
    assert tables["optics"]["rlnImagePixelSize"].tolist() == [2 * PIXEL]


REFUSED = {
    "one orientation for all tilts": ("rlnAngleTilt", lambda n, text: "10.0", "one orientation"),
    "B factors of both signs": ("rlnCtfBfactor", lambda n, text: text.lstrip("-") if n == 7 else text, "both signs"),
    "an image beyond its stack": ("rlnImageName", lambda n, text: "000020" + text[6:] if n == 3 else text, "not an im"),
    "no section": ("rlnImageName", lambda n, text: text.partition("@")[2] if n == 3 else text, "not an image"),
    "a stack that is not there": ("rlnImageName", lambda n, text: text + "x" if n == 3 else text, "not exist"),
    "a defocus that is no number": ("rlnDefocusU", lambda n, text: "none" if n == 5 else text, "rlnDefocusU"),
    "an angle that is NaN": ("rlnAngleRot", lambda n, text: "nan" if n == 5 else text, "rlnAngleRot"),
    "pixels that differ": ("rlnDetectorPixelSize", lambda n, text: "5.0" if n == 5 else text, "differ in pixel size"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_rows_that_cannot_be_read_are_one_error_that_names_them(fault: str, tmp_path: Path) -> None:
    label, change, match = REFUSED[fault]
    star = Series(tmp_path / "in").write()
    if fault.startswith("one orientation"):
        for other in ("rlnAngleRot", "rlnAnglePsi"):
            _changed(star, other, change)
    _changed(star, label, change)
    with pytest.raises(InputError, match=match) as caught:
        import_tilt_stacks(star, tmp_path / "out")
    assert caught.value.file is not None
    assert caught.value.row is not None
    assert not (tmp_path / "out").exists()


def test_pixels_that_are_no_numbers_leave_no_folder(tmp_path: Path) -> None:
    star = Series(tmp_path / "in").write()
    with mrcfile.open(tmp_path / "in/series/TS_02_0000003.mrcs", mode="r+") as mrc:
        mrc.data[4, 5, 6] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        import_tilt_stacks(star, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_where_geometry_came_from_and_refuses_what_it_would_not_use(tmp_path: Path) -> None:
    star = Series(tmp_path / "in").write()
    arguments = [str(star), "--out", str(tmp_path / "subtomos"), "--device", "cpu"]
    refused = CliRunner().invoke(import_, [*arguments, "--hand", "1"])
    assert isinstance(refused.exception, InputError)
    assert refused.exception.found == "--hand 1"
    done = CliRunner().invoke(import_, arguments, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    assert f"Geometry and defocus: the rows of {star}, one for every tilt image" in done.output
    assert f"Wrote 4 subtomograms of box {N} at {PIXEL:g} Å" in done.output
