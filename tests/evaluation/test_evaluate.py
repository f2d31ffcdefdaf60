"""Metrics against independent formulas and constructed cases."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.take_away.evaluate import evaluate
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.evaluation import compare_maps, composition_scores, evaluate_run, match_names, pose_errors
from cryodc.evaluation.agreement import map_mask
from cryodc.geometry import geodesic_degrees, matrices_from_euler, symmetry_rotations
from cryodc.io import read_volume, write_volume
from cryodc.particles import Poses, read_particles, with_classes, with_poses
from cryodc.runs import RunFolder
from cryodc.simulation import SimulationConfig, phantom, read_truth, write_simulation
from cryodc.star import read_star, write_star
from cryodc.volumes import Volume
from tests.made_runs import make_averages, make_clusters

GLOBAL = matrices_from_euler([[33.0, 71.0, -140.0]])[0]
OFFSET = np.array([6.0, -11.0, 4.0])


def rotations(n: int, seed: int) -> np.ndarray:
    quaternions = np.random.default_rng(seed).normal(size=(n, 4))
    return Rotation.from_quat(quaternions).as_matrix()


def small_rotations(n: int, degrees: float, seed: int) -> np.ndarray:
    axes = np.random.default_rng(seed).normal(size=(n, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return Rotation.from_rotvec(np.radians(degrees) * axes).as_matrix()


def estimate_of(true: Poses, symmetry: str = "C1", seed: int = 0) -> Poses:
    """The same poses against a reference turned by GLOBAL and moved by OFFSET, in any equivalent orientation."""
    group = symmetry_rotations(symmetry)
    mates = group[np.random.default_rng(seed).integers(len(group), size=len(true))]
    estimated = true.rotations @ mates @ GLOBAL.T
    return Poses(estimated, true.origins_angstrom - estimated @ GLOBAL @ OFFSET)


def true_poses(n: int = 80, seed: int = 1) -> Poses:
    return Poses(rotations(n, seed), np.random.default_rng(seed).normal(size=(n, 3)) * 10)


def test_the_geodesic_angle_is_the_angle_of_the_relative_rotation() -> None:
    first, second = rotations(50, 0), rotations(50, 1)
    expected = np.degrees(Rotation.from_matrix(np.swapaxes(first, 1, 2) @ second).magnitude())
    assert geodesic_degrees(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("symmetry", ["C1", "C2", "C6", "D7", "O"])
def test_right_poses_against_a_turned_and_moved_reference_have_no_error(symmetry: str) -> None:
    true = true_poses()
    errors = pose_errors(estimate_of(true, symmetry), true, symmetry)
    assert errors.angles_degrees.max() < 1e-5
    assert errors.shifts_angstrom.max() < 1e-6
    # G is known up to a symmetry of the true map.
    assert geodesic_degrees(errors.rotation, GLOBAL @ symmetry_rotations(symmetry)).min() < 1e-5
    assert errors.share_close == 1


def test_the_moved_reference_describes_the_same_particle() -> None:
    """``V_est(x) = V_true(Gᵀ x + t)``: a bead at r of the true map lies at G (r − t) of the estimate's."""
    true = true_poses(4)
    estimated = estimate_of(true)
    beads = np.random.default_rng(2).normal(size=(7, 3)) * 40
    for i in range(4):
        in_particle = beads @ true.rotations[i].T - true.origins_angstrom[i]
        moved = (beads - OFFSET) @ GLOBAL.T
        assert moved @ estimated.rotations[i].T - estimated.origins_angstrom[i] == pytest.approx(in_particle)
    assert pose_errors(estimated, true).offset_angstrom == pytest.approx(OFFSET)


def test_an_error_put_in_is_the_error_that_comes_out() -> None:
    true = true_poses(300)
    exact = estimate_of(true, "D7")
    noise = np.random.default_rng(0).normal(size=(300, 3))
    noise *= 5 / np.linalg.norm(noise, axis=1, keepdims=True)
    off = Poses(small_rotations(300, 4.0, 5) @ exact.rotations, exact.origins_angstrom + noise)
    errors = pose_errors(off, true, "D7")
    assert errors.median_degrees == pytest.approx(4.0, abs=0.4)
    assert errors.median_shift_angstrom == pytest.approx(5.0, abs=0.7)


def test_wrong_poses_are_counted_and_do_not_spoil_the_right_ones() -> None:
    true = true_poses(200)
    exact = estimate_of(true)
    wrong = np.arange(200) < 120
    mixed = np.where(wrong[:, None, None], rotations(200, 9), small_rotations(200, 3.0, 4) @ exact.rotations)
    errors = pose_errors(Poses(mixed, exact.origins_angstrom), true)
    assert np.median(errors.angles_degrees[~wrong]) == pytest.approx(3.0, abs=0.5)
    assert errors.share_close == pytest.approx(0.4, abs=0.02)


def test_poses_right_up_to_a_symmetry_are_wrong_without_it() -> None:
    true = true_poses(100)
    estimated = estimate_of(true, "C6")
    assert pose_errors(estimated, true, "C6").median_degrees < 1e-5
    assert pose_errors(estimated, true, "C1").median_degrees > 30


def test_random_poses_have_no_small_error() -> None:
    errors = pose_errors(Poses(rotations(200, 3), np.zeros((200, 3))), true_poses(200))
    assert errors.median_degrees > 90
    assert errors.share_close < 0.1


def test_poses_of_different_numbers_of_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="4 and 5"):
        pose_errors(true_poses(4), true_poses(5))


def test_ari_counts_pairs_and_accuracy_matches_classes_one_to_one() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(4, size=60)
    found = np.where(generator.random(60) < 0.7, (true + 2) % 4, generator.integers(5, size=60))
    scores = composition_scores(found, true)
    pairs = list(combinations(range(60), 2))
    together = np.array([[true[i] == true[j], found[i] == found[j]] for i, j in pairs])
    both, in_true, in_found = together.all(axis=1).sum(), together[:, 0].sum(), together[:, 1].sum()
    chance = in_true * in_found / len(pairs)
    assert scores.ari == pytest.approx((both - chance) / ((in_true + in_found) / 2 - chance))
    # Four proteins, five classes: a class left over counts as wrong.
    assert (scores.n_found, scores.n_true) == (5, 4)
    assert scores.accuracy == pytest.approx(np.mean((found + 2) % 4 == np.where(found < 4, true, -1)))
    entropy = lambda labels: -sum(p * np.log(p) for p in np.bincount(labels)[np.unique(labels)] / 60)  # noqa: E731
    joint = entropy(true * 10 + found)
    information = entropy(true) + entropy(found) - joint
    assert scores.homogeneity == pytest.approx(information / entropy(true))
    assert scores.completeness == pytest.approx(information / entropy(found))


def test_perfect_and_meaningless_clusterings_score_one_and_zero() -> None:
    true = np.repeat(np.arange(4), 25)
    perfect = composition_scores(3 - true, true)
    assert (perfect.ari, perfect.ami, perfect.v_measure, perfect.accuracy) == pytest.approx((1, 1, 1, 1))
    one = composition_scores(np.zeros(100, dtype=np.int64), true)
    assert (one.ari, one.homogeneity, one.accuracy) == pytest.approx((0, 0, 0.25))


def turned_copy(name: str, noise: float, seed: int = 0) -> tuple[Volume, Volume]:
    item = phantom(name)
    truth = item.mean_map(32, 10.0)
    matrix = torch.from_numpy(GLOBAL).float()[None]
    copy = item.render(matrix, torch.tensor([[8.0, -12.0, 3.0]]), torch.tensor([0.5]), 32, 10.0)[0]
    rough = torch.randn(copy.shape, generator=torch.Generator().manual_seed(seed)) * copy.std() * noise
    return Volume((copy + rough).numpy(), 10.0), Volume(truth.numpy(), 10.0)


def test_a_turned_and_shifted_copy_of_a_map_agrees_with_it_to_nyquist() -> None:
    agreement = compare_maps(*turned_copy("bilobe", 0.0))
    assert (agreement.fsc[1:10] > 0.95).all()
    assert agreement.fraction_of_nyquist > 0.6


def test_a_noisy_copy_agrees_less_far_and_the_numbers_fit_together() -> None:
    agreement = compare_maps(*turned_copy("bilobe", 1.0))
    assert 0.15 < agreement.fraction_of_nyquist < 0.8
    assert agreement.resolution_angstrom == pytest.approx(20 / agreement.fraction_of_nyquist)
    shell = 320 / agreement.resolution_angstrom
    assert (agreement.fsc[1 : int(shell) + 1] >= 0.5).all()
    assert agreement.fsc[int(shell) + 1] < 0.5


def test_a_mirror_image_does_not_agree() -> None:
    average, truth = turned_copy("clamp", 0.0)
    mirrored = compare_maps(Volume(average.voxels[::-1].copy(), 10.0), truth)
    assert mirrored.fraction_of_nyquist < 0.4


def test_a_true_map_on_another_grid_is_brought_to_the_averages() -> None:
    average, _ = turned_copy("barrel", 0.0)
    fine = phantom("barrel").mean_map(56, 7.3)
    assert compare_maps(average, Volume(fine.numpy(), 7.3)).fraction_of_nyquist > 0.6


def test_the_mask_holds_the_map_and_not_the_corners() -> None:
    volume = Volume(phantom("barrel").mean_map(32, 10.0).numpy(), 10.0)
    mask = map_mask(volume).numpy()
    assert (volume.voxels * mask).sum() > 0.999 * volume.voxels.sum()
    assert mask[0, 0, 0] == 0
    assert mask[mask < 1].max() > 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Path]:
    """A run that found everything but for two particles of 20, its references turned and moved."""
    folder = tmp_path_factory.mktemp("evaluate")
    proteins = {name: phantom(name) for name in ("wheel", "clamp")}
    write_simulation(proteins, SimulationConfig(n_per_map=10), folder / "sim")
    truth = read_truth(folder / "sim/truth.csv")
    run = RunFolder(folder / "run")
    wheel = truth.proteins.index("wheel")
    labels = np.where(truth.labels == wheel, 0, 1)
    labels[:2] = 1 - labels[:2]
    make_clusters(run, truth.names, labels.tolist())
    star = folder / "sim/particles.star"
    document = with_poses(read_star(star), estimate_of(truth.poses), read_particles(star))
    write_star(
        with_classes(document, [1 if label == wheel else 2 for label in truth.labels]), run.averages / "particles.star"
    )
    for number, name in ((1, "wheel"), (2, "clamp")):
        average, _ = turned_copy(name, 0.1)
        write_volume(run.averages / f"class{number:03d}.mrc", average)
    make_averages(run, {1: 41.0, 2: None})
    return run, folder / "sim/truth.csv"


def test_a_run_is_judged_by_particle_name(finished: tuple[RunFolder, Path]) -> None:
    result = evaluate_run(*finished)
    assert result.clusters.accuracy == pytest.approx(0.9)
    assert result.final_classes is not None
    assert result.final_classes.ari == 1
    first, second = result.classes
    assert (first.protein, first.symmetry, first.n_particles, first.purity) == ("wheel", "C6", 10, 1.0)
    assert (second.protein, second.symmetry) == ("clamp", "C2")
    assert first.poses is not None
    assert first.poses.median_degrees < 0.01
    assert first.poses.median_shift_angstrom < 0.01
    assert first.agreement is not None
    assert first.agreement.fraction_of_nyquist > 0.4
    assert (first.half_map_resolution_angstrom, first.aligned, second.aligned) == (41.0, True, False)


def test_symmetry_and_map_can_be_given(finished: tuple[RunFolder, Path]) -> None:
    run, truth = finished
    maps = {"wheel": truth.parent / "maps/clamp.mrc"}
    result = evaluate_run(run, truth, symmetries={"wheel": "C1"}, maps=maps)
    assert result.classes[0].symmetry == "C1"
    assert result.classes[0].agreement is not None
    assert result.classes[0].agreement.fraction_of_nyquist < 0.4
    for wrong in ({"ribosome": "C1"}, {"wheel": "Q7"}):
        with pytest.raises(InputError):
            evaluate_run(run, truth, symmetries=wrong)


def test_names_that_differ_are_an_error_that_names_one(finished: tuple[RunFolder, Path], tmp_path: Path) -> None:
    run, truth_file = finished
    truth = read_truth(truth_file)
    with pytest.raises(InputError, match="does not know every particle"):
        match_names((*truth.names, "subtomograms/other.mrc"), truth, truth_file)
    with pytest.raises(InputError, match="particle000001"):
        match_names(truth.names[1:], truth, truth_file)
    shortened = tmp_path / "truth.csv"
    shortened.write_text("\n".join(truth_file.read_text().splitlines()[:-1]))
    with pytest.raises(InputError, match="does not know every particle"):
        evaluate_run(run, shortened)


def test_names_are_matched_in_any_order(finished: tuple[RunFolder, Path]) -> None:
    truth = read_truth(finished[1])
    order = match_names(truth.names[::-1], truth, finished[1])
    assert order.tolist() == list(range(len(truth)))[::-1]


def test_the_command_prints_tables_or_json(finished: tuple[RunFolder, Path]) -> None:
    run, truth = finished
    (run.path / "config.yaml").write_text("seed: 0\n")
    table = CliRunner().invoke(evaluate, [str(run.path), "--truth", str(truth)], env={"COLUMNS": "200"})
    assert table.exit_code == 0, table.output
    assert "wheel" in table.output
    result = CliRunner().invoke(evaluate, [str(run.path), "--truth", str(truth), "--json"])
    content = json.loads(result.stdout)
    assert content["clusters"]["accuracy"] == 0.9
    assert content["classes"][0]["protein"] == "wheel"
    assert content["classes"][1]["half_map_resolution_angstrom"] is None
    wrong = CliRunner().invoke(evaluate, [str(run.path), "--truth", str(truth), "--symmetry", "wheel"])
    assert wrong.exit_code == 2


def test_true_maps_are_written_as_averages_over_states(finished: tuple[RunFolder, Path]) -> None:
    clamp = read_volume(finished[1].parent / "maps/clamp.mrc").voxels
    mean = phantom("clamp").mean_map(32, 10.0)
    assert clamp == pytest.approx((mean / mean.std(correction=0)).numpy(), abs=1e-5)
