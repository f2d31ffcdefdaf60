"""A sample of the particles against what their STAR says: poses, wedges, weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.check import check

from benchmarks.files import preflight as bench
from cryodc.check import CheckSettings, check_particles
from cryodc.check.conventions import Convention, candidate_conventions, score_conventions, standard_errors
from cryodc.check.sample import draw_sample
from cryodc.check.wedge_fit import fit_wedge, mean_power, rate_wedge
from cryodc.dataset import InputOptions
from cryodc.fourier import ParticleStack, apply_weight, wedge_from_tilt_range
from cryodc.geometry import euler_from_matrices, matrices_from_euler, random_rotations
from cryodc.io import read_array, read_volume, write_array, write_volume
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
from cryodc.star import particle_block, read_star
from cryodc.volumes import Volume


def _star_without(folder: Path, *labels: str) -> Path:
    """The set's STAR without some columns."""
    document = read_star(folder / "particles.star")
    block = particle_block(document)
    kept = [label for label in block.labels if label not in labels]
    cells = block.columns(kept)
    header = "\n".join(f"_{label}" for label in kept)
    rows = "\n".join("\t".join(row) for row in zip(*cells.values(), strict=True))
    optics = (folder / "particles.star").read_text().split("data_particles")[0]
    path = folder / "fewer.star"
    path.write_text(f"{optics}data_particles\n\nloop_\n{header}\n{rows}\n")
    return path


def test_a_right_set_passes_in_silence(right: Path) -> None:
    result = CliRunner().invoke(check, [str(right / "particles.star"), "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["problems"] == found["warnings"] == []
    assert found["contrast"]["sign"] == "white"
    assert found["poses"]["verdict"] == "RELION"
    assert found["wedge"]["measured"]["tilt_axis"] == "y"
    assert found["wedge"]["measured"]["beam"] == "z"
    # A voxel at the edge of a box of 24 spans 5°.
    assert found["wedge"]["measured"]["tilt_range"] == pytest.approx([-60, 60], abs=3)


@pytest.mark.parametrize("fault", bench.FAULTS)
def test_each_fault_is_named_and_nothing_else_is(copy: Path, fault: str) -> None:
    bench.FAULTS[fault].spoil(copy)
    report = check_particles(copy / "particles.star")
    named, others = bench.judge(report, bench.FAULTS[fault])
    assert named, [str(problem.error) for problem in report.problems]
    assert others == []
    for finding in report.problems:
        assert finding.error.expected
        assert finding.error.found
        assert finding.error.remedy


def test_a_fault_exits_with_2_and_is_printed_with_its_remedy(copy: Path) -> None:
    bench.FAULTS["rotations inverted"].spoil(copy)
    result = CliRunner().invoke(check, [str(copy / "particles.star")], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "rot, tilt, psi become −psi, −tilt, −rot" in result.stdout
    assert "1 problem." in result.stdout


def test_poses_of_no_meaning_raise_no_alarm(copy: Path) -> None:
    bench.shuffle_poses(copy)
    report = check_particles(copy / "particles.star")
    assert report.poses is not None
    assert report.poses.verdict == "undetermined"
    assert report.problems == report.warnings == ()


def test_a_few_particles_raise_no_alarm(copy: Path) -> None:
    bench.FAULTS["origin sign"].spoil(copy)
    report = check_particles(copy / "particles.star", CheckSettings(n_sample=8))
    assert report.poses is None
    assert report.problems == ()


def test_the_real_ribosomes_fit_their_poses_and_weights(shared_data: Path) -> None:
    report = check_particles(shared_data / "real" / "ribosome70s" / "particles.star")
    assert report.problems == report.warnings == ()
    assert report.poses is not None
    assert report.poses.verdict == "RELION"
    assert report.wedge is not None
    assert (report.wedge.measured.tilt_axis, report.wedge.measured.beam) == ("y", "z")


def test_real_ribosomes_with_inverted_rotations_are_named(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "real" / "ribosome70s"
    shutil.copy(real / "particles.star", tmp_path / "particles.star")
    bench.FAULTS["rotations inverted"].spoil(tmp_path)
    report = check_particles(tmp_path / "particles.star", CheckSettings(data_dir=real))
    assert report.poses is not None
    assert report.poses.verdict == "other"
    assert report.poses.found == Convention(inverted=True)


@pytest.mark.parametrize(("low", "high", "axis"), [(-60, 60, "y"), (-51, 60, "x"), (-40, 66, "y"), (-70, 70, "x")])
def test_the_wedge_of_pure_noise_is_measured(low: float, high: float, axis: str) -> None:
    wedge = wedge_from_tilt_range(32, low, high, "x" if axis == "x" else "y")
    noise = torch.randn(4, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    power = mean_power(apply_weight(noise, wedge))
    found = fit_wedge(power)
    assert (found.tilt_axis, found.beam) == (axis, "z")
    assert found.tilt_range == pytest.approx((low, high), abs=2)
    assert rate_wedge(power, found.tilt_axis, found.beam, found.tilt_range).gain == pytest.approx(found.gain)
    assert rate_wedge(power, found.tilt_axis, found.beam, (low, high)).gain > 0.95 * found.gain


@pytest.mark.parametrize(("swapped", "beam"), [((1, 3), "x"), ((1, 2), "y")])
def test_a_wedge_along_another_axis_is_seen_there(swapped: tuple[int, int], beam: str) -> None:
    noise = torch.randn(4, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    recorded = apply_weight(noise, wedge_from_tilt_range(32, -50, 60))
    assert fit_wedge(mean_power(recorded.transpose(*swapped))).beam == beam


def test_noise_without_a_wedge_has_none() -> None:
    noise = torch.randn(20, 24, 24, 24, generator=torch.Generator().manual_seed(2))
    found = fit_wedge(mean_power(noise))
    assert found.depth > 0.9
    assert found.gain < 0.01


def test_the_remedy_for_a_wrong_tilt_axis_is_the_option_that_works(right: Path) -> None:
    star = _star_without(right, "rlnCtfImage")
    (problem,) = check_particles(star, CheckSettings(options=InputOptions((-60, 60), tilt_axis="x"))).problems
    assert "tilt axis x" in str(problem.error.expected)
    words = str(problem.error.remedy).removeprefix("give ").split()
    assert CliRunner().invoke(check, [str(star), *words]).exit_code == 0


def test_without_any_claim_the_wedge_is_measured_and_nothing_is_wrong(right: Path) -> None:
    report = check_particles(_star_without(right, "rlnCtfImage"))
    assert report.problems == ()
    assert report.wedge is not None
    assert report.wedge.share is None
    assert report.poses is not None
    assert report.poses.verdict == "RELION"


def test_one_tomogram_of_another_range_is_named(copy: Path) -> None:
    star = _star_without(copy, "rlnCtfImage")
    claim = {"tomogram01": (-60.0, 60.0), "tomogram02": (-30.0, 30.0)}
    report = check_particles(star, CheckSettings(options=InputOptions(tilt_ranges=claim)))
    (problem,) = report.problems
    assert "tomogram02" in str(problem.error.found)
    assert "tomogram01" not in str(problem.error.found)
    assert "-30° to 30°" in str(problem.error.expected)
    assert "--tilt-ranges" in str(problem.error.remedy)
    assert report.wedge is not None
    assert report.wedge.tomograms["tomogram02"].measured.tilt_range == pytest.approx((-60, 60), abs=3)


def test_a_tomogram_without_a_range_is_a_problem(right: Path) -> None:
    star = _star_without(right, "rlnCtfImage")
    claim = {"tomogram01": (-60.0, 60.0)}
    (problem,) = check_particles(star, CheckSettings(options=InputOptions(tilt_ranges=claim))).problems
    assert "tomogram02" in str(problem.error.found)


def test_volumes_with_the_wedge_filled_in_are_a_warning(copy: Path) -> None:
    generator = np.random.default_rng(0)
    bench.change_volumes(copy, lambda v: v + generator.normal(0, 20 * v.std(), v.shape).astype(np.float32))
    report = check_particles(copy / "particles.star")
    assert [finding.error.problem for finding in report.warnings] == ["the particles show no missing wedge"]
    assert report.problems == ()


def test_weights_of_relion_4_are_understood(copy: Path) -> None:
    """ΣCTF² and multiplicity in one file; where CTF is 1, the data are the same."""
    for path in (copy / "weights").iterdir():
        wedge = read_array(path)
        write_array(path, np.concatenate([wedge, wedge]), 13.0)
    report = check_particles(copy / "particles.star")
    assert report.problems == report.warnings == ()
    assert report.poses is not None
    assert report.poses.verdict == "RELION"


@pytest.mark.parametrize(
    ("convention", "angles", "origin"),
    [
        (Convention(inverted=True), lambda rot, tilt, psi: (-psi, -tilt, -rot), (1, 1, 1)),
        (Convention(frame="z flipped"), lambda rot, tilt, psi: (rot, -tilt, psi), (-1, 1, 1)),
        (Convention(frame="y flipped"), lambda rot, tilt, psi: (-rot, tilt, -psi), (1, -1, 1)),
        (Convention(frame="x flipped"), lambda rot, tilt, psi: (-rot, -tilt, -psi), (1, 1, -1)),
    ],
)
def test_the_angles_a_remedy_gives_are_those_of_the_convention(convention, angles, origin) -> None:  # type: ignore[no-untyped-def]
    turns = random_rotations(20, torch.Generator().manual_seed(0)).double()
    origins = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).double()
    applied, moved = convention.apply(turns, origins)
    remedy = np.stack(angles(*euler_from_matrices(turns.numpy()).T), axis=1)
    np.testing.assert_allclose(applied.numpy(), matrices_from_euler(remedy), atol=1e-6)
    np.testing.assert_allclose(moved.numpy(), origins.numpy() * np.array(origin))


def test_conventions_are_tried_simplest_first_and_each_once() -> None:
    conventions = candidate_conventions()
    assert conventions[0] == Convention()
    assert len(set(conventions)) == len(conventions)
    complexities = [convention.complexity for convention in conventions]
    assert complexities == sorted(complexities)


def test_noise_agrees_with_the_others_no_more_than_by_chance() -> None:
    """Leave-one-out: a particle's noise never meets itself, so every convention's mean agreement is about 0."""
    generator = torch.Generator().manual_seed(0)
    wedge = wedge_from_tilt_range(24, -60, 60)
    noise = apply_weight(torch.randn(60, 24, 24, 24, generator=generator), wedge)
    scores = score_conventions(
        ParticleStack(noise, wedge[None], torch.zeros(60, dtype=torch.long)),
        random_rotations(60, generator),
        torch.randn(60, 3, generator=generator),
        1 + torch.arange(60) % 2,
        candidate_conventions(),
    )
    assert max(abs(standard_errors(one)) for one in scores.agreement) < 4


def test_the_same_agreement_is_no_difference() -> None:
    assert standard_errors(torch.zeros(10)) == 0.0


def test_a_blank_volume_beyond_the_sample_is_told_by_its_header(copy: Path) -> None:
    chosen = draw_sample(60, 4, seed=0)
    paths = sorted((copy / "subtomograms").iterdir())
    blank = next(path for i, path in enumerate(paths) if i not in chosen)
    write_volume(blank, Volume(np.zeros_like(read_volume(blank).voxels), 13.0))
    (problem,) = check_particles(copy / "particles.star", CheckSettings(n_sample=4)).problems
    assert "constant" in problem.error.problem
    assert problem.error.file == blank


def test_a_fault_in_a_header_hides_nothing_else(copy: Path) -> None:
    """Files in order are measured beside files that are not, and every row of the table is there."""
    paths = sorted((copy / "subtomograms").iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:-4])
    bench.change_columns(copy, ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), lambda a: -a[:, ::-1])
    report = check_particles(copy / "particles.star")
    assert len(report.problems) == 2
    assert report.contrast is not None
    assert report.n_sampled == 59
    printed = CliRunner().invoke(check, [str(copy / "particles.star")], env={"COLUMNS": "200"}).stdout
    for row in ("tomograms", "weights", "poses", "half sets", "contrast", "missing wedge"):
        assert f"\n{row} " in printed


def test_a_set_of_which_no_file_can_be_read_is_still_described(copy: Path) -> None:
    shutil.rmtree(copy / "subtomograms")
    result = CliRunner().invoke(check, [str(copy / "particles.star")], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    for row in ("tomograms", "weights", "poses", "half sets", "sample"):
        assert f"\n{row} " in result.stdout


def test_the_sample_is_random_and_follows_from_the_seed() -> None:
    assert draw_sample(1000, 5, 0).tolist() == draw_sample(1000, 5, 0).tolist()
    assert draw_sample(1000, 5, 0).tolist() != draw_sample(1000, 5, 1).tolist()
    assert sorted(draw_sample(7, 300, 0).tolist()) == list(range(7))


def test_weights_that_claim_no_wedge_are_contradicted(copy: Path) -> None:
    for path in (copy / "weights").iterdir():
        write_array(path, np.ones_like(read_array(path)), 13.0)
    (problem,) = check_particles(copy / "particles.star").problems
    assert problem.error.expected == "no missing wedge (rlnCtfImage)"


def test_large_boxes_are_measured_in_smaller_ones(tmp_path: Path) -> None:
    config = SimulationConfig(n_per_map=10, snr=0.2, box_size=64, spacing_angstrom=5.0, tilt_ranges=((-50, 60),))
    write_simulation(choose_proteins(["bilobe", "clamp"], []), config, tmp_path / "sim", with_poses=True)
    report = check_particles(tmp_path / "sim" / "particles.star")
    assert report.problems == report.warnings == ()
    assert report.wedge is not None
    assert report.wedge.measured.tilt_range == pytest.approx((-50, 60), abs=2)
    assert report.poses is not None
    assert report.poses.verdict == "RELION"
