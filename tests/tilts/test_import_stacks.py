"""``cryodc import``: 2D tilt stacks of RELION 5 and WarpTools become 3D subtomograms, as physics and formats say.

Stacks are simulated here in plain numpy and xyz, from RELION's own equations: Gaussian blobs projected by the
matrices of tomograms.star, with an independent CTF. What is imported must then be W · V, in place and in hand.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.import_ import import_
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.alignment import balanced_halves
from cryodc.check import check_particles
from cryodc.dataset import load_dataset
from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, TiltOptics, fourier_crop, soft_sphere
from cryodc.io import read_volume
from cryodc.maps import average_particles
from cryodc.particles import read_particles
from cryodc.star import read_star
from cryodc.tilts import ImportSummary, import_tilt_stacks
from cryodc.tilts.optimisation_set import find_tomograms

N = 24
PIXEL = 10.0
TILTS = np.arange(-57.0, 60.0, 6.0)
TOMOGRAM = np.array([400.0, 300.0, 120.0])  # x, y, z, pixels of the images
TILT_PIXEL = 2.5
# No mirror or turn maps these onto themselves: x, y, z in Å, and how bright each is.
BLOBS = np.array([[0, 0, 0], [55, 0, 0], [0, 40, 10], [-15, -10, 50], [20, -35, -30]], dtype=float)
BRIGHT = np.array([1.0, 0.9, 0.7, 1.1, 0.6])
SIGMA = 14.0


def _projection(tilt: float) -> NDArray[np.float64]:
    """A tilt about x and y, then the tilt axis turned in the image: xyz, tomogram → image."""
    return Rotation.from_euler("xyz", [2.0, tilt, 84.0], degrees=True).as_matrix()


def _ctf(u: float, v: float, angle: float, ky: Any, kx: Any) -> Any:
    """RELION's CTF, with the defocus as a matrix; 300 kV, Cs 2.7 mm, Q 0.07."""
    wavelength = 12.2643247 / np.sqrt(3e5 * (1 + 3e5 * 0.978466e-6))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[c, s], [-s, c]])
    defocus = turn.T @ np.diag([-u, -v]) @ turn
    quadratic = defocus[0, 0] * kx**2 + 2 * defocus[0, 1] * kx * ky + defocus[1, 1] * ky**2
    gamma = np.pi * wavelength * quadratic + np.pi / 2 * 2.7e7 * wavelength**3 * (kx**2 + ky**2) ** 2
    return -np.sin(gamma - np.arcsin(0.07))


def _damage(dose: float, ky: Any, kx: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.exp(-0.5 * dose / (0.245 * np.hypot(kx, ky) ** -1.665 + 2.81))


@dataclass
class Stacks:
    """What to simulate and how to write it down."""

    folder: Path
    layout: str = "warp"
    premultiplied: bool = True
    hand: int = -1
    stated_hand: int = -1
    n_particles: int = 2
    noise: float = 0.0
    visible: list[int] = field(default_factory=lambda: [1] * len(TILTS))
    subtomogram: tuple[float, float, float] | None = None
    size: int = N

    def position(self, i: int) -> NDArray[np.float64]:
        """Å from the centre of the tomogram, x y z."""
        return (np.array([[0.3, -0.2, 0.35], [-0.35, 0.3, -0.3]])[i % 2] + 0.01 * i) * TOMOGRAM * PIXEL

    def transfers(self, i: int) -> list[NDArray[np.float64]]:
        """CTF · damage · scale of each tilt on the half-Fourier grid."""
        ky = np.fft.fftfreq(self.size, PIXEL)[:, None]
        kx = np.fft.rfftfreq(self.size, PIXEL)[None]
        return [self.transfer(i, f, ky, kx) for f in range(len(TILTS))]

    def transfer(self, i: int, f: int, ky: Any, kx: Any) -> Any:
        """CTF · damage · scale of one tilt: deeper particles have more or less defocus, as ``hand`` says."""
        depth = self.hand * (_projection(TILTS[f]) @ self.position(i))[2]
        scale = np.cos(np.radians(TILTS[f]))
        return _ctf(23000 + depth, 21000 + depth, 30.0, ky, kx) * _damage(3.0 * f, ky, kx) * scale

    def images(self, i: int) -> NDArray[np.float32]:
        """One image per tilt: blobs, seen through the microscope, with noise of one variance."""
        noise = np.random.default_rng(i).standard_normal((len(TILTS), self.size, self.size)) * self.noise
        axis = (np.arange(self.size) - self.size // 2) * PIXEL
        stack = []
        for f, transfer in enumerate(self.transfers(i)):
            x, y, _ = _projection(TILTS[f]) @ BLOBS.T
            shapes = np.exp(-((axis[:, None, None] - y) ** 2 + (axis[None, :, None] - x) ** 2) / (2 * SIGMA**2))
            # A Gaussian summed along the beam: its height in voxels times √(2π) σ.
            projected = shapes @ BRIGHT * (np.sqrt(2 * np.pi) * SIGMA / PIXEL)
            image = np.fft.irfft2(np.fft.rfft2(projected) * transfer, s=(self.size, self.size)) + noise[f]
            if self.premultiplied:
                image = np.fft.irfft2(np.fft.rfft2(image) * transfer, s=(self.size, self.size))
            stack.append(image)
        return np.array(stack, dtype=np.float32)

    def write(self) -> Path:
        """Write everything; gives the particles.star."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shown = np.array(self.visible) == 1
        rows = []
        for i in range(self.n_particles):
            images = self.images(i)
            images[~shown] = 1000.0  # What nobody may look at.
            name = f"stacks/{i}_stack2d.mrcs"
            (self.folder / "stacks").mkdir(exist_ok=True)
            with mrcfile.new(self.folder / name, images if self.layout == "warp" else images[shown]) as mrc:
                mrc.voxel_size = PIXEL
                mrc.set_image_stack()
            position = self.position(i)
            if self.layout == "warp":
                position = position / PIXEL + TOMOGRAM / 2
            cells = ["TS_1", f"TS_1/{i}", name, f"{3800 + i}.25", "-0.50", "7.", "1", *(f"{x:.4f}" for x in position)]
            cells += [str(angle) for angle in self.subtomogram or ()]
            rows.append("  ".join([*cells, "[" + ",".join(map(str, self.visible)) + "]"]))
        kind = "Coordinate{}" if self.layout == "warp" else "CenteredCoordinate{}Angst"
        labels = ["TomoName", "TomoParticleName", "ImageName", "AngleRot", "AngleTilt", "AnglePsi", "OpticsGroup"]
        labels += [kind.format(axis) for axis in "XYZ"]
        labels += [f"TomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")] if self.subtomogram else []
        optics = _loop(
            "optics",
            [
                "OpticsGroup",
                "OpticsGroupName",
                "TomoTiltSeriesPixelSize",
                "CtfDataAreCtfPremultiplied",
                "ImageDimensionality",
                "TomoSubtomogramBinning",
                "ImagePixelSize",
                "ImageSize",
            ],
            [f"1 one {TILT_PIXEL} {int(self.premultiplied)} 2 4.00000 {PIXEL:.5f} {self.size}"],
        )
        star = self.folder / "particles.star"
        star.write_text(
            "# version 50001\n\ndata_general\n\n_rlnTomoSubTomosAre2DStacks   1\n\n"
            + optics
            + _loop("particles", [*labels, "TomoVisibleFrames"], rows)
        )
        self._write_tomograms()
        return star

    def _write_tomograms(self) -> None:
        sizes = " ".join(f"{int(size * PIXEL / TILT_PIXEL)}" for size in TOMOGRAM)
        labels = ["TomoName", "TomoHand", "TomoTiltSeriesPixelSize", "Voltage", "SphericalAberration"]
        labels += ["AmplitudeContrast", "TomoSizeX", "TomoSizeY", "TomoSizeZ"]
        row = f"TS_1 {self.stated_hand} {TILT_PIXEL} 300 2.7 0.07 {sizes}"
        tilts = []
        for f, tilt in enumerate(TILTS):
            if self.layout == "warp":
                matrix = np.eye(4)
                matrix[:3, :3] = _projection(tilt)
                geometry = " ".join("[" + ",".join(f"{x:.9f}" for x in line) + "]" for line in matrix)
            else:
                geometry = f"2.0 {tilt} 84.0"
            tilts.append(f"{geometry} 23000 21000 30.0 {np.cos(np.radians(tilt)):.6f} {3.0 * f}")
        geometry_labels = ["TomoProjX", "TomoProjY", "TomoProjZ", "TomoProjW"]
        if self.layout != "warp":
            geometry_labels = ["TomoXTilt", "TomoYTilt", "TomoZRot"]
        optics_labels = ["DefocusU", "DefocusV", "DefocusAngle", "CtfScalefactor", "MicrographPreExposure"]
        table = _loop("TS_1", geometry_labels + optics_labels, tilts)
        path = self.folder / "tomograms.star"
        if self.layout == "warp":
            path.write_text(_loop("global", labels, [row]) + table)
            return
        (self.folder / "TS_1.star").write_text(table)
        path.write_text(_loop("global", [*labels, "TomoTiltSeriesStarFile"], [row + " TS_1.star"]))
        (self.folder / "optimisation_set.star").write_text(
            "data_\n\n_rlnTomoParticlesFile particles.star\n_rlnTomoTomogramsFile tomograms.star\n"
        )


def _loop(name: str, labels: list[str], rows: list[str]) -> str:
    header = "\n".join(f"_rln{label} #{i}" for i, label in enumerate(labels, start=1))
    return f"data_{name}\n\nloop_\n{header}\n" + "\n".join(f"  {row}" for row in rows) + "\n\n\n"


def _phantom(blobs: NDArray[np.float64], box: int = N, pixel: float = PIXEL) -> NDArray[np.float64]:
    """The blobs as a volume, z y x, about index ``box // 2``."""
    axis = (np.arange(box) - box // 2) * pixel
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distances = [(x - bx) ** 2 + (y - by) ** 2 + (z - bz) ** 2 for bx, by, bz in blobs]
    return np.sum([b * np.exp(-d / (2 * SIGMA**2)) for b, d in zip(BRIGHT, distances, strict=True)], axis=0)


def _imported(summary: ImportSummary, i: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    particles = read_particles(summary.star)
    assert particles.weight_images is not None
    weights = mrcfile.read(particles.weight_images[i].path)
    return read_volume(particles.images[i]).voxels, weights


def _seen(weights: Any, phantom: NDArray[np.float64]) -> NDArray[np.float64]:
    """``W · V``: what the weight says would be seen of the phantom."""
    box = len(phantom)
    spectrum = np.fft.fftn(np.fft.ifftshift(phantom))[:, :, : box // 2 + 1] * weights[:box]
    return np.fft.fftshift(np.fft.irfftn(spectrum, s=phantom.shape, axes=(0, 1, 2)))


def _agreement(volume: Any, weights: Any, phantom: NDArray[np.float64]) -> float:
    """Correlation with what the weight says would be seen of the phantom."""
    box = len(phantom)
    sphere = soft_sphere(box, box / 2 - 4, 2.0).numpy()
    return float(np.corrcoef((volume * sphere).ravel(), (_seen(weights, phantom) * sphere).ravel())[0, 1])


@pytest.mark.parametrize("layout", ["warp", "relion"])
def test_a_subtomogram_is_the_protein_seen_through_its_weight(tmp_path: Path, layout: str) -> None:
    star = Stacks(tmp_path / "in", layout=layout).write()
    volume, weights = _imported(import_tilt_stacks(star, tmp_path / "out"))
    phantom = _phantom(BLOBS)
    assert weights.shape == (2 * N, N, N // 2 + 1)
    right = _agreement(volume, weights, phantom)
    assert right > 0.985
    for axis in range(3):
        mirrored = np.roll(phantom[tuple(slice(None, None, -1 if a == axis else 1) for a in range(3))], 1, axis)
        assert _agreement(volume, weights, mirrored) < right - 0.05
        for step in (-1, 1):
            assert _agreement(volume, weights, np.roll(phantom, step, axis)) < right - 0.01


def test_subtomogram_angles_turn_the_volume_into_their_frame(tmp_path: Path) -> None:
    angles = (40.0, 110.0, -65.0)
    star = Stacks(tmp_path / "in", layout="relion", subtomogram=angles).write()
    volume, weights = _imported(import_tilt_stacks(star, tmp_path / "out"))
    # x_tomogram = A x_subtomogram, with RELION's matrix A.
    to_tomogram = Rotation.from_euler("ZYZ", angles, degrees=True).inv()
    assert _agreement(volume, weights, _phantom(to_tomogram.inv().apply(BLOBS))) > 0.985
    assert _agreement(volume, weights, _phantom(BLOBS)) < 0.9


def test_binning_keeps_place_and_grey_value_and_box_cuts(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in", size=48).write()
    summary = import_tilt_stacks(star, tmp_path / "out", binning=2, box_size=20)
    assert (summary.box_size, summary.spacing_angstrom) == (20, 2 * PIXEL)
    volume, weights = _imported(summary)
    phantom = fourier_crop(torch.from_numpy(_phantom(BLOBS, 40)), 20).numpy()
    assert _agreement(volume, weights, phantom) > 0.98
    assert np.polyfit(_seen(weights, phantom).ravel(), volume.ravel(), 1)[0] == pytest.approx(1.0, abs=0.1)


def test_premultiplied_and_plain_stacks_give_the_same_volume(tmp_path: Path) -> None:
    results = []
    for premultiplied in (True, False):
        folder = tmp_path / str(premultiplied)
        star = Stacks(folder / "in", premultiplied=premultiplied, size=32).write()
        results.append(_imported(import_tilt_stacks(star, folder / "out", hand="-1")))
    (first, first_weights), (second, second_weights) = results
    assert np.abs(first - second).max() < 0.01 * np.abs(first).max()
    np.testing.assert_array_equal(first_weights, second_weights)


def test_a_tilt_that_is_not_visible_is_left_out(tmp_path: Path) -> None:
    visible = [1] * len(TILTS)
    visible[0] = visible[9] = 0
    results = []
    for layout in ("warp", "relion"):
        star = Stacks(tmp_path / layout / "in", layout=layout, visible=visible).write()
        results.append(_imported(import_tilt_stacks(star, tmp_path / layout / "out", hand="-1")))
    # WarpTools keeps a place for it in the stack, RELION does not: nothing of that place may come through.
    for warp, relion in zip(*results, strict=True):
        np.testing.assert_allclose(warp, relion, atol=2e-5 * float(np.abs(relion).max()))
    assert np.abs(results[0][0]).max() < 100
    everything = _imported(import_tilt_stacks(Stacks(tmp_path / "all").write(), tmp_path / "all out", hand="-1"))
    assert everything[1].sum() > 1.05 * results[0][1].sum()


def _twin(stacks: Stacks, box: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same backprojection, voxel by voxel, every image transformed exactly where it is needed."""
    edge, images = 2 * box, stacks.images(0)
    axis = np.arange(stacks.size) - stacks.size // 2
    data = np.zeros((edge, edge, edge), dtype=complex)
    weight = np.zeros((edge, edge, edge))
    frequencies = np.fft.fftfreq(edge, 1 / box)
    for z, y, x in np.ndindex(edge, edge, edge):
        k = np.array([frequencies[x], frequencies[y], frequencies[z]])
        if np.linalg.norm(k) > box / 2 or np.abs(k).max() >= box / 2:
            continue
        for f, tilt in enumerate(TILTS):
            px, py, pz = _projection(tilt) @ k
            share = 2 * (1 - 2 * abs(pz))
            if share <= 0:
                continue
            wave = np.exp(-2j * np.pi * (px * axis[None, :] + py * axis[:, None]) / stacks.size)
            length = stacks.size * PIXEL
            data[z, y, x] += share * (images[f] * wave).sum()
            weight[z, y, x] += share * float(stacks.transfer(0, f, py / length, px / length)) ** 2
    rim = max(2.0, 0.1 * box)
    sphere = soft_sphere(box, box / 2 - rim, rim).numpy()
    keep = slice(edge // 2 - box // 2, edge // 2 + box // 2)
    volume = np.fft.fftshift(np.fft.ifftn(data).real)[keep, keep, keep] * sphere
    spread = np.fft.fftshift(np.fft.ifftn(weight).real)[keep, keep, keep] * sphere
    return volume, np.fft.rfftn(np.fft.ifftshift(spread)).real


def test_a_twin_written_in_loops_gives_the_same_volume_and_weight(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path / "in", size=8, n_particles=1, noise=0.5)
    volume, weights = _imported(import_tilt_stacks(stacks.write(), tmp_path / "out", hand="-1"))
    expected, expected_weight = _twin(stacks, 8)
    assert np.linalg.norm(volume - expected) < 0.03 * np.linalg.norm(expected)
    clipped = np.where(expected_weight > 1e-4 * expected_weight.max(), expected_weight, 0)
    assert np.abs(weights[:8] - clipped).max() < 1e-3 * clipped.max()


def test_phase_plate_bfactor_and_damage_follow_their_equations() -> None:
    one = torch.ones(1)
    plain = TiltOptics(300, 2.7, 0.1, 15e3 * one, 15e3 * one, 0 * one, 0 * one, 0 * one, one, 0 * one)
    k = torch.stack([torch.zeros(50), torch.linspace(0, 0.2, 50)], dim=1)
    at = torch.zeros(1)
    ctf = plain.transfer(0, k, at)[0]
    # A phase plate of 90° turns the sine into a cosine of the same argument; at k = 0 that is √(1 − Q²), not Q.
    plate = replace(plain, phase_shift_degrees=90 * one).transfer(0, k, at)[0]
    torch.testing.assert_close(ctf**2 + plate**2, torch.ones(50))
    assert (float(ctf[0]), float(plate[0])) == pytest.approx((0.1, np.sqrt(0.99)), abs=1e-6)
    square = k[:, 1] ** 2
    blurred = replace(plain, bfactor=80 * one, scale=0.5 * one).transfer(0, k, at)[0]
    torch.testing.assert_close(blurred, 0.5 * ctf * torch.exp(-20 * square))
    damaged = replace(plain, dose=30 * one, bfactor_per_dose=4.0).transfer(0, k, at)[0]
    torch.testing.assert_close(damaged, ctf * torch.exp(-30 * square))
    # More defocus at a particle's depth is the same as more defocus.
    torch.testing.assert_close(
        plain.transfer(0, k, at + 2e3)[0],
        replace(plain, defocus_u_angstrom=17e3 * one, defocus_v_angstrom=17e3 * one).transfer(0, k, at)[0],
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("true_hand", [1, -1])
def test_the_sign_of_the_defocus_gradient_is_read_off_the_images(tmp_path: Path, true_hand: int) -> None:
    star = Stacks(tmp_path / "in", hand=true_hand, stated_hand=-1, noise=1.0, n_particles=6, size=32).write()
    (hand,) = import_tilt_stacks(star, tmp_path / "out").hands.values()
    assert (hand.measured, hand.value, hand.stated) == (true_hand, true_hand, -1)
    told = import_tilt_stacks(star, tmp_path / "told", hand="-1").hands["TS_1"]
    assert (told.value, told.measured) == (-1, 0)


def test_where_images_do_not_say_the_file_is_believed(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in", premultiplied=False, stated_hand=1, noise=1.0).write()
    (hand,) = import_tilt_stacks(star, tmp_path / "out").hands.values()
    assert (hand.measured, hand.value) == (0, 1)


def test_rows_and_poses_of_the_input_stay_as_they_were_written(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in").write()
    summary = import_tilt_stacks(star, tmp_path / "out", binning=2)
    before, after = read_star(star), read_star(summary.star)
    old, new = before.block("particles"), after.block("particles")
    assert new.labels == (*old.labels, "rlnCtfImage")
    for label in old.labels:
        if label != "rlnImageName":
            assert new.column(label) == old.column(label)
    optics = after.block("optics")
    assert optics.column("rlnImageDimensionality") == ["3"]
    assert optics.column("rlnImageSize") == [str(N // 2)]
    assert float(optics.column("rlnImagePixelSize")[0]) == 2 * PIXEL
    assert float(optics.column("rlnTomoSubtomogramBinning")[0]) == 8
    assert after.block("general").column("rlnTomoSubTomosAre2DStacks") == ["0"]
    report = check_particles(summary.star)
    assert report.problems == ()
    assert report.weight_layout is not None
    assert "RELION 4 and 5" in report.weight_layout
    assert mrcfile.read(tmp_path / "out" / new.column("rlnImageName")[0]).dtype == np.float32


@pytest.mark.parametrize("given", ["optimisation_set.star", "particles.star"])
def test_the_tomograms_are_found_from_either_star(tmp_path: Path, given: str) -> None:
    Stacks(tmp_path / "in", layout="relion").write()
    summary = import_tilt_stacks(tmp_path / "in" / given, tmp_path / "out")
    assert summary.tomograms == tmp_path / "in" / "tomograms.star"
    assert json.loads((tmp_path / "out" / "import.json").read_text())["n_particles"] == 2


@pytest.mark.parametrize("written", ["TS_1.tomostar", "frames/TS_1.mrc", "rec_TS_1"])
def test_a_tomogram_of_another_ending_is_the_same_tomogram(tmp_path: Path, written: str) -> None:
    star = Stacks(tmp_path / "in").write()
    _replace(star, "TS_1  TS_1/", f"{written}  TS_1/")
    assert list(import_tilt_stacks(star, tmp_path / "out").hands) == [written]


def test_a_tomogram_whose_name_begins_alike_is_another(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in").write()
    _replace(star, "TS_1  TS_1/", "TS_1_2  TS_1/")
    with pytest.raises(InputError, match="TS_1_2 of the particles is not in"):
        import_tilt_stacks(star, tmp_path / "out")


def test_the_optimisation_set_of_a_refinement_names_the_tomograms(tmp_path: Path) -> None:
    star = Stacks(tmp_path, layout="relion").write().rename(tmp_path / "run_it025_data.star")
    (tmp_path / "tomograms.star").rename(tmp_path / "elsewhere.star")
    (tmp_path / "optimisation_set.star").unlink()
    (tmp_path / "run_it025_optimisation_set.star").write_text("data_\n\n_rlnTomoTomogramsFile elsewhere.star\n")
    assert find_tomograms(star, star, None) == tmp_path / "elsewhere.star"


def _without(path: Path, label: str) -> None:
    """Leave one column of a STAR out."""
    document = read_star(path)
    text = ""
    for block in document.blocks:
        labels = [name for name in block.labels if name != label]
        cells = block.columns(labels)
        if block.is_loop:
            rows = [" ".join(row) for row in zip(*cells.values(), strict=True)]
            text += _loop(block.name, [name.removeprefix("rln") for name in labels], rows)
        else:
            text += f"data_{block.name}\n\n" + "".join(f"_{name} {cells[name][0]}\n" for name in labels)
    path.write_text(text)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _other_stack(folder: Path, n_images: int, size: int) -> None:
    path = folder / "stacks" / "1_stack2d.mrcs"
    with mrcfile.new(path, np.zeros((n_images, size, size), np.float32), overwrite=True) as mrc:
        mrc.voxel_size = PIXEL


FAULTS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no tomograms.star": (lambda f: (f / "tomograms.star").unlink(), "tomograms.star", "--tomograms"),
    "no such tomogram": (lambda f: _replace(f / "particles.star", "TS_1  TS_1/0", "TS_9  TS_1/0"), "TS_9", "TS_1"),
    "no table of tilts": (lambda f: _replace(f / "tomograms.star", "data_TS_1", "data_TS_2"), "TS_1", "data_TS_2"),
    "no defocus": (lambda f: _without(f / "tomograms.star", "rlnDefocusV"), "rlnDefocusV", "CTF"),
    "no dose": (lambda f: _without(f / "tomograms.star", "rlnMicrographPreExposure"), "PreExposure", "CTF"),
    "no geometry": (lambda f: _without(f / "tomograms.star", "rlnTomoProjY"), "rlnTomoYTilt", "align"),
    "no voltage": (lambda f: _without(f / "tomograms.star", "rlnVoltage"), "rlnVoltage", "RELION"),
    "no tomogram size": (lambda f: _without(f / "tomograms.star", "rlnTomoSizeX"), "size of tomogram", "rlnTomoSize"),
    "no position": (lambda f: _without(f / "particles.star", "rlnCoordinateZ"), "rlnCoordinateZ", "positions"),
    "no premultiplied": (
        lambda f: _without(f / "particles.star", "rlnCtfDataAreCtfPremultiplied"),
        "rlnCtfDataAreCtfPremultiplied",
        "1 if images were multiplied",
    ),
    "a stack of another size": (lambda f: _other_stack(f, len(TILTS), 20), "another size", "1_stack2d.mrcs"),
    "a stack of another length": (lambda f: _other_stack(f, 7, N), "number of images", "7 images"),
    "a stack that is not there": (lambda f: (f / "stacks" / "1_stack2d.mrcs").unlink(), "does not exist", "1_stack2d"),
    "visible frames of another series": (lambda f: _replace(f / "particles.star", "[1,1", "[1"), "VisibleFrames", "20"),
    "no rotation": (lambda f: _replace(f / "tomograms.star", "[0.0", "[9.0"), "rotation", "length 1"),
    "3D already": (
        lambda f: _replace(f / "particles.star", "2DStacks   1", "2DStacks   0"),
        "nothing to import",
        "train",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_one_message_before_anything_is_written(tmp_path: Path, fault: str) -> None:
    spoil, problem, said = FAULTS[fault]
    star = Stacks(tmp_path / "in").write()
    spoil(tmp_path / "in")
    with pytest.raises(InputError) as caught:
        import_tilt_stacks(star, tmp_path / "out")
    assert problem in caught.value.problem
    assert said in str(caught.value)
    assert caught.value.file is not None
    assert not (tmp_path / "out").exists()


def test_positions_in_another_pixel_are_an_error_until_it_is_stated(tmp_path: Path) -> None:
    """Pixels of the tilt series, four of which are one of the images: outside if read as WarpTools writes them."""
    right = import_tilt_stacks(Stacks(tmp_path / "right").write(), tmp_path / "right out", hand="-1")
    star = Stacks(tmp_path / "in").write()
    document = read_star(star)
    labels = [f"rlnCoordinate{axis}" for axis in "XYZ"]
    cells = document.block("particles").columns(labels)
    finer = {label: [f"{float(text) * PIXEL / TILT_PIXEL:.4f}" for text in cells[label]] for label in labels}
    star.write_text("".join(document.with_columns("particles", finer).lines))
    with pytest.raises(InputError, match="outside its tomogram") as caught:
        import_tilt_stacks(star, tmp_path / "out", hand="-1")
    assert f"pixels of {PIXEL:g} Å (rlnImagePixelSize)" in str(caught.value.found)
    assert "rlnMicrographPixelSize" in str(caught.value.remedy)
    assert not (tmp_path / "out").exists()
    stated = read_star(star).with_column("optics", "rlnMicrographPixelSize", [f"{TILT_PIXEL}"])
    star.write_text("".join(stated.lines))
    summary = import_tilt_stacks(star, tmp_path / "out", hand="-1")
    for ours, theirs in zip(_imported(summary), _imported(right), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("choice", [{"box_size": 26}, {"box_size": 9}, {"binning": 4}, {"binning": 0}])
def test_a_box_that_does_not_fit_is_refused(tmp_path: Path, choice: dict[str, int]) -> None:
    star = Stacks(tmp_path / "in").write()
    with pytest.raises(InputError, match="box does not fit"):
        import_tilt_stacks(star, tmp_path / "out", **choice)


def test_train_and_check_name_the_command(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "my data").write()
    command = f"cryodc import '{star}' --out subtomos/"
    with pytest.raises(InputError) as caught:
        read_particles(star)
    assert command in str(caught.value.remedy)
    (problem,) = check_particles(star).problems
    assert command in str(problem.error.remedy)


def test_the_command_imports_and_never_writes_over(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in").write()
    arguments = [str(star), "--out", str(tmp_path / "subtomos"), "--bin", "2", "--hand", "-1", "--device", "cpu"]
    done = CliRunner().invoke(import_, arguments)
    assert done.exit_code == 0, done.output
    assert f"Wrote 2 subtomograms of box {N // 2} at {2 * PIXEL:g} Å" in done.output
    again = CliRunner().invoke(import_, arguments)
    assert isinstance(again.exception, InputError)
    assert "overwrite" in again.exception.problem


def test_the_real_ribosomes_average_to_the_published_map(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "real" / "ribosome70s"
    (star,) = (folder / "tilt_stacks").glob("*_optimisation_set.star")
    summary = import_tilt_stacks(star, tmp_path / "out")
    dataset = load_dataset(read_particles(summary.star))
    poses = dataset.particles.poses
    assert poses is not None
    average = average_particles(
        ParticleStack(dataset.volumes, dataset.weights, dataset.weight_index),
        torch.from_numpy(poses.rotations).float(),
        torch.from_numpy(poses.origins_angstrom).float() / summary.spacing_angstrom,
        balanced_halves(len(dataset), 0),
    ).average
    published = torch.from_numpy(read_volume(folder / "published_average.mrc").voxels)
    mask = soft_sphere(32, 12.0, 3.0)
    a, b = (np.fft.fftn((m * mask).numpy()) for m in (torch.roll(average.flip(0), 1, 0), published))
    k = np.fft.fftfreq(32, 1 / 32)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    for low, high, least in ((1, 2.5, 0.95), (2.5, 5, 0.86), (5, 8, 0.66)):
        x, y = a[(radius >= low) & (radius < high)], b[(radius >= low) & (radius < high)]
        assert (x * y.conj()).real.sum() / (np.linalg.norm(x) * np.linalg.norm(y)) > least
    # Every tilt series of this set tilts the other way than its rlnTomoHand says.
    assert {hand.measured for hand in summary.hands.values()} == {1}
