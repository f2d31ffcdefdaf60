"""``cryodc check``: it says what is there, finds every fault with its row, and is silent on what is right."""

import json
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.check import check

from cryodc.check import CheckSettings, check_particles
from cryodc.check.contrast import contrast_sign
from cryodc.check.wedge_fit import measured_fraction
from cryodc.dataset import InputOptions
from cryodc.fourier import apply_weight, soft_sphere, wedge_from_tilt_range
from cryodc.io import read_volume, write_volume
from cryodc.volumes import Volume

BOX = 16
N = 24


def _particles(n: int = N, snr: float = 0.1, sign: float = 1.0) -> torch.Tensor:
    """Noisy balls of radius 4, off centre by up to a voxel, seen through a ±60° wedge."""
    generator = torch.Generator().manual_seed(0)
    ball = soft_sphere(BOX, 4.0, 2.0)
    shifts = torch.randint(-1, 2, (n, 3), generator=generator).tolist()
    clean = torch.stack([sign * ball.roll(tuple(shift), (0, 1, 2)) for shift in shifts])
    noise = torch.randn(clean.shape, generator=generator) * (clean.var() / snr).sqrt()
    return apply_weight(clean + noise, wedge_from_tilt_range(BOX, -60, 60))


@pytest.fixture
def star(tmp_path: Path) -> Path:
    """A good particle set: RELION 3.1, two tomograms, poses, half sets, no weights."""
    rows = []
    for i, voxels in enumerate(_particles()):
        write_volume(tmp_path / f"{i:03d}.mrc", Volume(voxels.numpy(), 8.0))
        rows.append(f"{i:03d}.mrc TS_{1 + i % 2} 1 10 20 30 {1 + i % 2}")
    labels = ["ImageName", "TomoName", "OpticsGroup", "AngleRot", "AngleTilt", "AnglePsi", "RandomSubset"]
    header = "\n".join(f"_rln{label} #{i}" for i, label in enumerate(labels, start=1))
    path = tmp_path / "particles.star"
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n_rlnImageSize #3\n1 8.0 16\n\n"
        f"data_particles\n\nloop_\n{header}\n" + "\n".join(rows) + "\n"
    )
    return path


def _line(star: Path, word: str) -> int:
    return next(i for i, line in enumerate(star.read_text().splitlines(), start=1) if word in line)


def test_good_particles_are_described_and_nothing_is_complained_of(star: Path) -> None:
    report = check_particles(star, CheckSettings(options=InputOptions((-60, 60))))
    assert report.problems == ()
    assert (report.layout, report.n_particles, report.box_size) == ("RELION 3.1", N, BOX)
    assert report.spacing_angstrom == 8.0
    assert report.tomograms == {"TS_1": N // 2, "TS_2": N // 2}
    assert report.half_sets == (N // 2, N // 2)
    assert report.has_poses
    assert report.weight_layout is None
    assert report.contrast is not None
    assert report.contrast.sign == "white"
    assert report.found_in == {"the STAR's folder": N}
    assert report.measured_fraction is not None
    # A tilt range of 120° out of 180° measures two thirds of Fourier space.
    assert report.measured_fraction[1] == pytest.approx(2 / 3, abs=0.06)


def test_the_real_ribosomes_are_white_and_without_fault(shared_data: Path) -> None:
    folder = shared_data / "real" / "ribosome70s"
    report = check_particles(folder / "particles.star")
    assert report.problems == ()
    assert report.contrast is not None
    assert report.contrast.sign == "white"
    assert report.weight_layout is not None
    assert "Warp" in report.weight_layout
    # The published average of many more of them has its protein positive.
    average = read_volume(folder / "published_average.mrc").voxels
    middle = average[12:20, 12:20, 12:20].mean()
    assert middle > 3 * abs(average[:4].mean())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_contrast_is_found_at_low_signal_and_turns_with_the_sign(sign: float) -> None:
    found = contrast_sign(_particles(60, snr=0.02, sign=sign))
    assert found.sign == ("white" if sign > 0 else "black")
    assert abs(found.score) > 5


def test_contrast_of_noise_or_of_too_few_is_undetermined() -> None:
    for seed in range(20):
        noise = torch.randn(50, BOX, BOX, BOX, generator=torch.Generator().manual_seed(seed))
        assert contrast_sign(noise).sign == "undetermined"
    assert contrast_sign(_particles(4, snr=10)).sign == "undetermined"


def test_black_particles_are_a_problem_unless_training_inverts_them(star: Path) -> None:
    for path in star.parent.glob("*.mrc"):
        write_volume(path, Volume(-read_volume(path).voxels, 8.0))
    report = check_particles(star)
    assert report.contrast is not None
    assert report.contrast.sign == "black"
    (problem,) = report.problems
    assert "--invert" in str(problem.error.remedy)
    assert check_particles(star, CheckSettings(options=InputOptions(invert=True))).problems == ()


def test_inverting_white_particles_is_a_problem(star: Path) -> None:
    (problem,) = check_particles(star, CheckSettings(options=InputOptions(invert=True))).problems
    assert "protein is white" in problem.error.problem


@pytest.mark.parametrize(("tilt_degrees", "share"), [(90, 1.0), (60, 2 / 3), (30, 1 / 3)])
def test_the_share_measured_is_the_share_of_angles(tilt_degrees: float, share: float) -> None:
    wedge = wedge_from_tilt_range(64, -tilt_degrees, tilt_degrees)
    assert measured_fraction(wedge) == pytest.approx(share, abs=0.02)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def _wrong_box(path: Path) -> None:
    write_volume(path, Volume(np.ones((8, 8, 8), np.float32), 8.0))


def _odd_box(path: Path) -> None:
    mrcfile.write(path, np.ones((15, 15, 15), np.float32), voxel_size=8, overwrite=True)


def _wrong_spacing(path: Path) -> None:
    write_volume(path, Volume(read_volume(path).voxels, 16.0))


def _constant(path: Path) -> None:
    write_volume(path, Volume(np.full((BOX, BOX, BOX), 3, np.float32), 8.0))


def _nan(path: Path) -> None:
    voxels = read_volume(path).voxels
    voxels[0, 0, 0] = np.nan
    path.write_bytes(path.read_bytes()[:1024] + voxels.tobytes())


FAULTS: dict[str, Callable[[Path], None]] = {
    "does not exist": Path.unlink,
    "truncated": _truncate,
    "box size is not that of": _wrong_box,
    "box size is odd": _odd_box,
    "voxel spacing is not that of": _wrong_spacing,
    "constant": _constant,
    "NaN": _nan,
}


@pytest.mark.parametrize(("problem", "damage"), FAULTS.items())
def test_each_fault_is_named_with_its_row_and_exits_with_2(
    star: Path, problem: str, damage: Callable[[Path], None]
) -> None:
    damage(star.parent / "007.mrc")
    result = CliRunner().invoke(check, [str(star), "--json"])
    assert result.exit_code == 2
    (found,) = json.loads(result.stdout)["problems"]
    assert problem in found["problem"]
    assert found["row"] == _line(star, "007.mrc")


def test_all_faults_at_once_are_all_listed(star: Path) -> None:
    damages = [damage for problem, damage in FAULTS.items() if problem not in ("constant", "NaN")]
    for i, damage in enumerate(damages):
        damage(star.parent / f"{i:03d}.mrc")
    with star.open("a") as file:
        file.write("020.mrc TS_1 1 10 20 30 1\n")
    report = check_particles(star)
    rows = [problem.row for problem in report.problems]
    assert rows == [_line(star, f"{i:03d}.mrc") for i in range(len(damages))] + [len(star.read_text().splitlines())]
    assert report.layout == "RELION 3.1"
    assert report.box_size == BOX


def test_weights_of_a_wrong_shape_are_named_with_their_row(star: Path) -> None:
    good, bad = star.parent / "good.mrcw", star.parent / "bad.mrcw"
    mrcfile.write(good, wedge_from_tilt_range(BOX, -60, 60).numpy())
    mrcfile.write(bad, np.ones((BOX, BOX, BOX - 1), np.float32))
    text = star.read_text().replace("_rlnRandomSubset #7", "_rlnRandomSubset #7\n_rlnCtfImage #8")
    lines = [
        f"{line} {'bad' if line.startswith('005') else 'good'}.mrcw" if ".mrc TS" in line else line
        for line in text.splitlines()
    ]
    star.write_text("\n".join(lines) + "\n")
    (problem,) = check_particles(star).problems
    assert problem.row == _line(star, "005.mrc")
    assert "shape" in problem.error.problem
    star.write_text(star.read_text().replace("bad.mrcw", "good.mrcw"))
    report = check_particles(star, CheckSettings(options=InputOptions((-60, 60))))
    assert report.problems == ()
    assert report.weight_layout is not None
    assert any("--tilt-range is not used" in note for note in report.notes)


def test_a_file_that_is_no_particle_star_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text("data_\nloop_\n_rlnMicrographName\na.mrc\n")
    result = CliRunner().invoke(check, [str(path)])
    assert result.exit_code == 2
    assert "holds no particles" in result.stdout
    assert "remedy:" in result.stdout
    assert "1 problem." in result.stdout


def test_a_tilt_range_that_is_none_is_refused_at_once(star: Path) -> None:
    result = CliRunner().invoke(check, [str(star), "--tilt-range", "60", "-60"])
    assert result.exit_code == 2
    assert "expected MIN below MAX" in result.output


def test_the_table_says_what_training_needs(star: Path) -> None:
    result = CliRunner().invoke(check, [str(star)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "training needs --tilt-range MIN MAX" in result.stdout
    assert "No problem found." in result.stdout
    with_range = CliRunner().invoke(check, [str(star), "--tilt-range", "-60", "60"], env={"COLUMNS": "200"})
    assert "of Fourier space measured" in with_range.stdout
