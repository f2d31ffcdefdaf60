"""Leakage and disentanglement on codes whose content is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from cryodc_cli.take_away.evaluate import evaluate
from scipy.spatial.transform import Rotation
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cryodc.errors import InputError
from cryodc.evaluation import (
    LinearProbe,
    RunSources,
    disentangle_labels,
    evaluate_run,
    measure_leakage,
    run_leakage,
    wedge_in_reference,
)
from cryodc.evaluation import leakage as leakage_table
from cryodc.evaluation.factors import run_factors
from cryodc.evaluation.moments import orientation_moments
from cryodc.evaluation.probes import areas
from cryodc.fourier import missing_moments, wedge_from_tilt_range
from cryodc.geometry import symmetry_rotations
from cryodc.report import write_report
from cryodc.runs import RunFolder, load_clusters, load_codes, save_codes
from tests.made_runs import make_clusters


def rotations(n: int, seed: int = 0) -> np.ndarray:
    return Rotation.from_quat(np.random.default_rng(seed).normal(size=(n, 4))).as_matrix()


def noise(n: int, dims: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dims))


def one_group(n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.int64)


def encoded(quantity: np.ndarray, dims: int = 16, seed: int = 2, level: float = 0.05) -> np.ndarray:
    """Codes that hold a quantity linearly, with a little noise."""
    mixed = quantity @ noise(quantity.shape[1], dims, seed)
    return mixed + level * mixed.std() * noise(len(quantity), dims, seed + 1)


def test_codes_that_hold_the_tomogram_tell_it_without_error() -> None:
    tomograms = np.arange(300) % 5
    probe = LinearProbe(encoded(np.eye(5)[tomograms]), one_group(300)).labels(tomograms)
    assert probe.value == pytest.approx(1, abs=1e-3)
    assert probe.corrected > 0.99
    assert probe.p_value < 0.01
    assert probe.shuffled_mean == pytest.approx(0.5, abs=0.03)


def test_codes_that_hold_the_rotation_tell_it() -> None:
    matrices = rotations(400)
    probe = LinearProbe(encoded(matrices.reshape(-1, 9)), one_group(400)).values(orientation_moments(matrices))
    assert probe.value > 0.97
    assert probe.low <= probe.value <= probe.high


def test_codes_that_hold_nothing_stay_within_what_shuffling_gives() -> None:
    inside_values, inside_labels = 0, 0
    for seed in range(20):
        probe = LinearProbe(noise(120, 6, seed), one_group(120), seed)
        values = probe.values(orientation_moments(rotations(120, 100 + seed)))
        labels = probe.labels(np.random.default_rng(200 + seed).integers(3, size=120))
        inside_values += values.value <= values.shuffled_95
        inside_labels += labels.value <= labels.shuffled_95
    assert inside_values >= 18
    assert inside_labels >= 18


def test_predictions_are_those_of_scikit_learn() -> None:
    codes, values = noise(60, 5), noise(60, 2, 7)
    values[:, 0] += codes[:, 1]
    centred = values - values.mean(axis=0)
    predicted = np.zeros_like(values)
    for repeat in range(3):
        for train, test in KFold(5, shuffle=True, random_state=4 + repeat).split(codes):
            model = make_pipeline(StandardScaler(), Ridge(alpha=5.0)).fit(
                codes[train], values[train] - values.mean(axis=0)
            )
            scaled = model[:-1].transform(codes[test])
            predicted[test] += scaled @ model[-1].coef_.T / 3
    expected = (
        1 - np.square(values - values.mean(axis=0) - predicted).sum() / np.square(values - values.mean(axis=0)).sum()
    )
    assert LinearProbe(codes, one_group(60), 4).values(values).value == pytest.approx(expected)
    assert r2_score(centred[:, 0], predicted[:, 0]) > 0.2


def test_a_code_that_stands_still_but_for_one_particle_predicts_nothing() -> None:
    """Scaled by the spread of those that stand still, the one would be predicted to lie beyond all bounds."""
    generator = np.random.default_rng(3)
    codes = 1e-18 * generator.normal(size=(60, 1))
    codes[7] = 1.0
    found = LinearProbe(codes, np.zeros(60, dtype=np.int64)).values(generator.normal(size=(60, 2)))
    assert -0.5 < found.value < 0.1


def test_the_area_under_the_curve_counts_pairs_and_ties_half() -> None:
    scores = np.round(noise(80, 3), 1)
    labels = (noise(80, 3, 3) > 0).astype(np.float64)
    expected = [roc_auc_score(labels[:, column], scores[:, column]) for column in range(3)]
    assert areas(scores, labels) == pytest.approx(expected)
    above = scores[labels[:, 0] == 1, 0][:, None] - scores[labels[:, 0] == 0, 0]
    assert expected[0] == pytest.approx(np.mean((above > 0) + 0.5 * (above == 0)))


def test_what_differs_between_proteins_only_is_no_leak() -> None:
    """Codes tell the protein, and each protein has poses of its own: within a protein nothing is told."""
    proteins = np.repeat([0, 1], 100)
    codes = encoded(np.eye(2)[proteins])
    shifts = noise(200, 3, 8) + 5.0 * proteins[:, None]
    assert LinearProbe(codes, one_group(200)).values(shifts).p_value < 0.01
    within = LinearProbe(codes, proteins).values(shifts)
    assert within.value <= within.shuffled_95


@pytest.mark.parametrize("symmetry", ["C1", "C2", "C6", "D2", "D7", "T", "O", "I"])
def test_a_symmetric_particle_looks_the_same_in_every_equivalent_pose(symmetry: str) -> None:
    matrices = rotations(50)
    group = symmetry_rotations(symmetry)
    mates = group[np.random.default_rng(1).integers(len(group), size=50)]
    moments = orientation_moments(matrices, symmetry)
    assert orientation_moments(matrices @ mates, symmetry) == pytest.approx(moments, abs=1e-6)
    assert moments.std(axis=0).max() > 0.1
    wedge = missing_moments(wedge_from_tilt_range(16, -60, 60)).numpy()[None].repeat(50, axis=0)
    seen = wedge_in_reference(matrices, wedge, symmetry)
    assert wedge_in_reference(matrices @ mates, wedge, symmetry) == pytest.approx(seen)


def test_a_leak_of_a_symmetric_pose_is_seen_only_modulo_its_symmetry() -> None:
    """Codes hold the seven-fold axis of a D7 particle, whose poses are given in any of 14 equivalent ways."""
    matrices = rotations(600)
    axis = matrices[:, :, 0]
    codes = encoded(np.einsum("ni,nj->nij", axis, axis).reshape(-1, 9))
    mates = symmetry_rotations("D7")[np.random.default_rng(3).integers(14, size=600)]
    given = matrices @ mates
    probe = LinearProbe(codes, one_group(600))
    assert probe.values(orientation_moments(given, "D7")).value > 0.95
    assert probe.values(orientation_moments(given, "C1")).value < 0.1


def test_the_wedge_seen_by_a_particle_turns_against_its_pose() -> None:
    wedge = missing_moments(wedge_from_tilt_range(32, -60, 60)).numpy()
    assert np.trace(wedge) == pytest.approx(60 / 180, abs=0.02)
    quarter = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    seen = wedge_in_reference(quarter[None], wedge[None]).reshape(3, 3)
    assert np.diag(seen) == pytest.approx(np.diag(wedge)[::-1], abs=1e-6)


def test_what_cannot_be_computed_says_why() -> None:
    probe = LinearProbe(noise(60, 4), one_group(60))
    assert "same for every particle" in probe.values(np.full((60, 3), 0.1)).reason
    assert "fewer than two groups" in probe.labels(one_group(60)).reason
    assert "fewer than two groups" in probe.labels(np.arange(60)).reason
    assert "fewer than 20" in LinearProbe(noise(19, 4), one_group(19)).values(noise(19, 1)).reason
    assert "code is the same" in LinearProbe(np.ones((60, 4)), one_group(60)).values(noise(60, 1)).reason
    few = disentangle_labels("protein", noise(9, 3).astype("f"), noise(9, 3).astype("f"), np.arange(9), one_group(9))
    assert few.content is None
    assert "fewer than two labels" in few.reason


def test_always_naming_the_larger_protein_is_no_skill() -> None:
    labels = (np.arange(200) < 20).astype(np.int64)
    nothing, both = noise(200, 4).astype("f"), encoded(np.eye(2)[labels]).astype("f")
    result = disentangle_labels("protein", both, nothing, labels, one_group(200))
    assert result.content is not None
    assert result.transformation is not None
    assert result.transformation.value == pytest.approx(0.9, abs=0.02)
    assert result.transformation.corrected == pytest.approx(0, abs=0.2)
    assert (result.content.value, result.content.corrected) == (1, 1)
    assert result.sap == pytest.approx(result.content.value - result.transformation.value)
    assert result.sap_low <= result.sap <= result.sap_high
    assert len(result.content.seeds) == 3


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(small_run, tmp_path / "run"))


def holding(run: RunFolder, quantity: np.ndarray) -> None:
    """Give the run content codes that hold this."""
    codes, clusters = load_codes(run), load_clusters(run)
    content = encoded(quantity, codes.content.shape[1]).astype(np.float32)
    save_codes(
        run,
        type(codes)(codes.names, content, codes.transformation, content, codes.transformation_log_variance),
    )
    make_clusters(run, clusters.names, clusters.labels.tolist())


def test_a_run_that_learned_its_tomograms_is_told_so(run: RunFolder) -> None:
    tomograms = RunSources(run, load_codes(run).names).tomograms
    number = np.unique(tomograms, return_inverse=True)[1]
    holding(run, np.eye(3)[number] - 1 / 3)
    leakage = run_leakage(run)
    row = {row.name: row for row in leakage.rows}["tomogram"]
    assert row.content.value > 0.95
    assert row.content_verdict == "strong leak"
    assert "tomogram" in leakage.summary
    page = write_report(run).read_text()
    assert '<h2 id="leakage">Leakage</h2>' in page
    assert leakage.summary in page
    assert '<td class="leak">strong leak</td>' in page
    assert "the STAR has no rlnDefocusU" in page


def test_the_table_is_measured_once_and_again_when_the_run_has_changed(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_leakage(run)
    with monkeypatch.context() as patch:
        patch.setattr(leakage_table, "measure_leakage", lambda *_, **__: pytest.fail("measured twice"))
        again = run_leakage(run)
    assert again.to_json() == first.to_json()
    holding(run, noise(24, 4))
    changed = run_leakage(run)
    assert changed.to_json() != first.to_json()
    # A damaged table is measured anew and written whole.
    whole = run.leakage.read_text()
    run.leakage.write_text("{")
    assert run_leakage(run).to_json() == changed.to_json()
    assert run.leakage.read_text() == whole


def test_a_star_with_numbers_missing_is_judged_on_the_rest(run: RunFolder) -> None:
    lines = run.particles.read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("_"))
    lines[last + 1 : last + 1] = (
        [f"_rlnDefocusU #{int(lines[last].split('#')[1]) + 1}"] if "#" in lines[last] else ["_rlnDefocusU"]
    )
    n = 0
    for i in range(last + 2, len(lines)):
        if lines[i].strip():
            lines[i] += " nan" if n < 2 else f" {20000 + 100 * n}"
            n += 1
    run.particles.write_text("\n".join(lines) + "\n")
    defocus = {row.name: row for row in run_leakage(run).rows}["defocus"]
    assert defocus.content.n_particles == n - 2
    assert defocus.note == "2 particles without a number are left out"


def test_more_particles_than_needed_are_drawn(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage_table, "MAX_PARTICLES", 21)
    codes = load_codes(run)
    table = measure_leakage(codes, run_factors(RunSources(run, codes.names)))
    assert (table.n_particles, table.n_measured) == (24, 21)
    assert {row.content.n_particles for row in table.rows if not row.content.reason} == {21}


def test_a_symmetry_is_given_by_class_and_must_exist(run: RunFolder) -> None:
    assert run_leakage(run, {1: "C2"}).rows
    with pytest.raises(InputError, match="class that is not there"):
        run_leakage(run, {7: "C2"})
    with pytest.raises(InputError, match="unknown symmetry"):
        run_leakage(run, {1: "Q2"})


def test_evaluate_without_truth_prints_the_table_alone(run: RunFolder) -> None:
    printed = CliRunner().invoke(evaluate, [str(run.path)], env={"COLUMNS": "120"})
    assert printed.exit_code == 0, printed.output
    assert "Which tomogram" in printed.output
    assert "accuracy" not in printed.output
    found = json.loads(CliRunner().invoke(evaluate, [str(run.path), "--json"]).stdout)
    assert {row["name"] for row in found["leakage_without_truth"]["rows"]} >= {"orientation", "tomogram", "identity"}
    assert json.loads(run.leakage.read_text())["rows"] == found["leakage_without_truth"]["rows"]
    assert CliRunner().invoke(evaluate, [str(run.path), "--symmetry", "wheel:D7"]).exit_code == 2
    assert CliRunner().invoke(evaluate, [str(run.path), "--map", "wheel:a.mrc"]).exit_code == 2


def test_evaluate_with_truth_judges_codes_by_protein(run: RunFolder, small_run: Path) -> None:
    result = evaluate_run(run, small_run.parent / "sim" / "truth.csv").to_json()
    assert [row["factor"] for row in result["disentanglement"]] == ["protein", "pose", "state"]
    protein = result["disentanglement"][0]
    assert protein["content"]["chance"] == 0.5
    assert protein["n_labels"] == 2
    rows = {row["name"]: row for row in result["leakage"]["rows"]}
    assert rows["orientation"]["source"] == "true poses, within each protein"
    assert rows["identity"]["content"]["value"] is not None


def test_what_is_no_better_than_chance_is_not_held_however_rarely_shufflings_reach_it() -> None:
    below = leakage_table.Probe("R2", -0.03, -0.05, -0.01, -0.2, -0.1, 0.001, 0.142, 400)
    assert leakage_table.verdict(below, wanted=True) == "not held"
    assert leakage_table.verdict(below, wanted=False) == "no leak"
    above = leakage_table.Probe("R2", 0.03, 0.01, 0.05, -0.2, -0.1, 0.001, 0.192, 400)
    assert leakage_table.verdict(above, wanted=True) == "trace held"
