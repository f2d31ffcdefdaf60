"""What a plan expects is what happens: of scores, of classes, of averages."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.plan import plan as plan_command
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score

from cryodc.dry_run import Forecast, forecasts_to
from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, density_mask, half_map_fsc, resolution_angstrom
from cryodc.geometry import random_rotations
from cryodc.planning import MeasureRequest, Plan, PlanRequest, measure_particles, plan_particles
from cryodc.planning.separation import large_ari, separate
from cryodc.planning.trial import Trial
from cryodc.simulation import SimulationConfig, phantom, simulate_particles, write_simulation
from cryodc.volumes import Volume
from tests.planning.test_like import half_map

BOX, SPACING, SNR = 24, 14.0, 0.05
PAIR = {"barrel": phantom("barrel"), "wheel": phantom("wheel")}


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "sim"
    write_simulation(PAIR, SimulationConfig(30, BOX, SPACING, SNR), folder)
    return folder / "particles.star"


def request(star: Path, snr: float | None = None, numbers: tuple[int, ...] = (30, 300)) -> PlanRequest:
    return PlanRequest(MeasureRequest(star, snr=snr), numbers, n_trial=16)


def test_ari_of_shares_is_that_of_many_labels() -> None:
    confusion = np.array([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]])
    counts = (confusion * 4000).round().astype(int)
    kinds = np.repeat(np.arange(3), counts.sum(axis=1))
    classes = np.concatenate([np.repeat(np.arange(3), row) for row in counts])
    assert float(large_ari(confusion)) == pytest.approx(adjusted_rand_score(kinds, classes), abs=2e-3)


def test_the_share_that_goes_wrong_and_its_interval_are_those_of_normal_scores() -> None:
    generator = np.random.default_rng(3)
    wrong, covered = [], 0
    expected = (1 - 2 * norm.cdf(-1.0)) ** 2
    for seed in range(40):
        first, second = generator.normal(2.0, 2.0, 32), generator.normal(1.5, 1.5, 32)
        found = separate(("a", first), ("b", second), 100, 0.0, seed)
        wrong.append(found.wrong)
        covered += found.ari_interval[0] <= expected <= found.ari_interval[1]
    assert np.mean(wrong) == pytest.approx(norm.cdf(-1.0), abs=0.02)
    assert covered >= 34
    sure, unsure = (separate(("a", first), ("b", second), 100, error, 0) for error in (0.0, 0.5))
    assert np.diff(unsure.ari_interval) > 1.2 * np.diff(sure.ari_interval)


def test_particles_of_a_trial_score_what_their_signal_is_worth(star: Path) -> None:
    """With the map itself, in the right pose, the mean score is ``√(Σ |a H V|² / N)``; a search adds a little noise."""
    trial = Trial(measure_particles(MeasureRequest(star), PAIR), 24, 0)
    ball = trial._particles.ball
    voxels = torch.bincount(ball.shells, minlength=BOX // 2 + 1)
    shells = torch.arange(BOX // 2 + 1) <= 0.8 * BOX / 2
    length = (trial.signal() * voxels * shells)[:, 1:].sum(dim=1).sqrt()
    scores = trial.run(math.inf).scores
    for k in range(2):
        own = scores[trial.labels == k, k].mean()
        assert float(own) == pytest.approx(float(length[k]), rel=0.1)


@pytest.fixture(scope="module")
def foretold() -> list[Forecast]:
    """What was heard of the work before it was done."""
    return []


@pytest.fixture(scope="module")
def planned(star: Path, foretold: list[Forecast]) -> Plan:
    with forecasts_to(foretold.append):
        return plan_particles(request(star), PAIR)


def test_the_work_is_foretold_so_that_the_time_left_can_be_said(planned: Plan, foretold: list[Forecast]) -> None:
    assert len(planned.separations) == 3
    [forecast] = foretold
    assert forecast.seconds(lambda box: 1e-4) > 1


def test_more_signal_and_more_particles_part_better_and_resolve_finer(star: Path, planned: Plan) -> None:
    faint = plan_particles(request(star, snr=0.003), PAIR)
    for weak, strong in zip(faint.separations, planned.separations, strict=True):
        assert weak.distance < strong.distance
    few, many, known = faint.separations
    assert few.distance < many.distance <= 1.2 * known.distance
    assert faint.separations[0].ari < 0.9 < planned.separations[0].ari
    for name in PAIR:
        coarse, fine = (one.resolution_angstrom for one in planned.maps if one.name == name)
        assert fine < coarse


def test_two_copies_of_one_map_never_come_apart(star: Path) -> None:
    """One of them turned and moved: what tells them apart is neither."""
    barrel = simulate_particles({"barrel": PAIR["barrel"]}, SimulationConfig(1, 32, 10.0)).maps[0]
    turned = PAIR["barrel"].render(
        random_rotations(1, torch.Generator().manual_seed(2)),
        torch.tensor([[9.0, -12.0, 5.0]]),
        torch.zeros(1),
        32,
        10.0,
    )[0]
    copies = {"one": Volume(barrel.numpy(), 10.0), "other": Volume(turned.numpy(), 10.0)}
    found = plan_particles(request(star), copies)
    assert all(one.ari < 0.3 for one in found.separations)
    assert [needed.n_particles for needed in found.for_ari] == [None]


def test_the_expected_resolution_is_that_of_particles_averaged_in_their_poses(planned: Plan) -> None:
    config = SimulationConfig(300, BOX, SPACING, SNR, seed=7)
    particles = simulate_particles({"barrel": PAIR["barrel"]}, config)
    halves = []
    for rows in (torch.arange(0, 300, 2), torch.arange(1, 300, 2)):
        stack = ParticleStack(particles.volumes[rows], particles.weights, particles.weight_index[rows])
        rotations = torch.from_numpy(particles.poses.rotations[rows.numpy()]).float()
        shifts = torch.from_numpy(particles.poses.origins_angstrom[rows.numpy()] / SPACING).float()
        halves.append(half_map(stack, rotations, shifts))
    mask = density_mask(particles.maps[0])
    measured = resolution_angstrom(half_map_fsc(torch.stack(halves), mask).corrected, SPACING)
    expected = next(one for one in planned.maps if (one.name, one.n_particles) == ("barrel", 300))
    assert expected.resolution_angstrom == pytest.approx(measured, rel=0.15)


def test_as_many_particles_as_a_resolution_takes_reach_it(star: Path) -> None:
    measure = MeasureRequest(star, snr=0.01)
    asked = PlanRequest(measure, (30, 300), n_trial=16, resolution_angstrom=42.0)
    needed = plan_particles(asked, PAIR).for_resolution
    assert [one.what for one in needed] == [("barrel",), ("wheel",)]
    number = needed[0].n_particles
    assert number is not None
    assert number > 10
    reached = plan_particles(PlanRequest(measure, (round(number),), n_trial=16), PAIR).maps[0]
    assert reached.resolution_angstrom == pytest.approx(42.0, rel=0.15)


def test_what_cannot_be_planned_is_refused(star: Path) -> None:
    with pytest.raises(InputError, match="numbers of particles"):
        request(star, numbers=(300, 30))
    with pytest.raises(InputError, match="this resolution cannot be planned for"):
        plan_particles(PlanRequest(MeasureRequest(star), resolution_angstrom=10.0), PAIR)
    with pytest.raises(InputError, match="this SNR is none"):
        MeasureRequest(star, snr=-1.0)
    huge = Volume(np.ones((64, 64, 64), np.float32), SPACING)
    with pytest.raises(InputError, match="does not fit the box"):
        plan_particles(request(star), {"huge": huge})


def test_the_command_prints_a_table_and_json(star: Path) -> None:
    maps = [word for name in PAIR for word in ("--map", str(star.parent / "maps" / f"{name}.mrc"))]
    words = [str(star), *maps, "--particles", "30", "--trial", "8", "--resolution", "45"]
    told = CliRunner().invoke(plan_command, words, catch_exceptions=False)
    assert told.exit_code == 0
    assert "barrel / wheel" in told.output
    assert "the maps themselves" in told.output
    assert "ARI 0.9 takes" in told.output
    assert "this resolution takes" in told.output
    found = CliRunner().invoke(plan_command, [*words, "--json"], catch_exceptions=False)
    document = json.loads(found.stdout)
    assert document["measured"]["n_particles"] == 60
    assert [one["n_particles"] for one in document["separations"]] == [30, None]
    assert CliRunner().invoke(plan_command, [str(star)]).exit_code == 2
