"""Conformations within a class: missing data are ignored, not taken as zero; the data say how many states there are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.learn.states import states as states_command
from sklearn.metrics import adjusted_rand_score

from cryodc.alignment import balanced_halves
from cryodc.averaging import average_run
from cryodc.errors import InputError
from cryodc.fourier import apply_weight, ball_spectra, fourier_ball, wedge_from_tilt_range
from cryodc.geometry import random_rotations, resample
from cryodc.io import read_volume, write_volume
from cryodc.runs import RunFolder, load_run_dataset, load_run_particles
from cryodc.simulation import phantom
from cryodc.star import particle_block, read_star
from cryodc.states import Conformations, find_conformations, find_states, measure
from cryodc.states.files import STATE_LABEL
from cryodc.states.measurements import Measurements
from cryodc.states.missing_data import AxisModel, StateModel, states_of
from cryodc.volumes import Volume
from tests.made_runs import CLAMP_BOX as BOX
from tests.made_runs import CLAMP_SPACING as SPACING
from tests.made_runs import make_clamps

SHELLS = 6


def rendered(states: torch.Tensor, rotations: torch.Tensor, origins: torch.Tensor, snr: float, seed: int):
    """Clamps in these states and poses (origins in voxels), with white noise; then a wedge of ±60°."""
    clean = phantom("clamp").render(rotations, origins * SPACING, states, BOX, SPACING)
    clean /= clean.std()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)) / snr**0.5
    weight = wedge_from_tilt_range(BOX, -60, 60)
    return apply_weight(clean + noise, weight), weight


def analysed(volumes, weights, rotations, origins, n_states=None) -> Conformations:
    mask = phantom("clamp").mean_map(BOX, SPACING)
    mask = (torch.nn.functional.max_pool3d((mask > 0.1 * mask.max()).float()[None], 5, 1, 2))[0]
    particles, _ = measure(
        lambda: [(volumes, weights.expand(len(volumes), -1, -1, -1), rotations, origins)], mask, SHELLS
    )
    return find_conformations(particles, balanced_halves(len(volumes), 0), n_states, n_starts=2)


def randomly_posed(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return random_rotations(n, generator), torch.randn(n, 3, generator=generator)


def small_measurements(n: int = 5) -> tuple[Measurements, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ball = fourier_ball(8, 3.0)
    power = torch.rand(n, len(ball), generator=generator)
    power[:, ::3] = 0
    data = torch.complex(torch.randn(n, len(ball), generator=generator), torch.randn(n, len(ball), generator=generator))
    maps = torch.complex(*(0.3 * torch.randn(2, 2, len(ball), generator=generator)))
    return Measurements(data * power.sqrt(), power, ball, torch.ones(8, 8, 8)), maps


def test_a_states_likelihood_is_the_squared_misfit_where_a_particle_measured() -> None:
    particles, maps = small_measurements()
    found = particles.log_likelihoods(maps)
    for i in range(len(particles)):
        for j in range(2):
            total = 0.0
            for k in range(len(particles.ball)):
                transfer = float(particles.power[i, k]) ** 0.5
                if transfer == 0:
                    continue
                observed = complex(particles.data[i, k]) / transfer
                model = transfer * complex(maps[j, k])
                total += abs(observed) ** 2 - abs(observed - model) ** 2
            assert float(found[i, j]) == pytest.approx(total, abs=1e-4)


def test_an_axis_marginal_is_the_integral_over_its_coordinate() -> None:
    particles, maps = small_measurements()
    _, _, marginal = AxisModel(maps[:1]).posterior(particles)
    steps = torch.linspace(-8, 8, 4001)
    for i in range(len(particles)):
        one = particles.select(torch.tensor([i]))
        likelihood = one.log_likelihoods(steps[:, None] * maps[:1])[0].double()
        density = (likelihood - 0.5 * steps**2).exp() / (2 * torch.pi) ** 0.5
        assert float(marginal[i]) == pytest.approx(float(torch.trapezoid(density, steps.double()).log()), abs=1e-3)


def test_a_states_map_is_the_mean_over_those_who_measured_and_lies_in_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    ball = fourier_ball(16, 7.0)
    mask = torch.zeros(16, 16, 16)
    mask[5:11, 5:11, 5:11] = 1
    truth = ball_spectra((torch.randn(16, 16, 16, generator=generator) * mask)[None], ball)[0]
    power = (torch.rand(40, len(ball), generator=generator) > 0.4).float()
    noise = torch.complex(*torch.randn(2, 40, len(ball), generator=generator))
    particles = Measurements(power * (truth + noise), power, ball, mask)
    model: StateModel = states_of(particles, torch.ones(40, 1))
    error = float((model.maps[0] - particles.masked(truth[None])[0]).norm() / truth.norm())
    # 40 particles, 60 % measured, a twentieth of the box in the mask.
    assert error < 0.1
    empty = states_of(Measurements(power * noise, power, ball, mask), torch.ones(40, 1))
    assert float(empty.maps[0].norm() / truth.norm()) < 0.02


def test_a_particle_lies_on_the_line_between_two_maps_where_it_was_made() -> None:
    particles, maps = small_measurements()
    shares = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.4])
    truth = maps[0] + shares[:, None] * (maps[1] - maps[0])
    made = Measurements(particles.power * truth, particles.power, particles.ball, particles.mask)
    torch.testing.assert_close(made.along(maps[0], maps[1]), shares, atol=1e-5, rtol=0)


def test_six_states_are_found_where_two_differ_more_than_all_the_others() -> None:
    """The largest axes part the two; the others are no less apart for that."""
    generator = torch.Generator().manual_seed(5)
    ball = fourier_ball(12, 5.0)
    truth = torch.arange(240) % 6
    sizes = torch.tensor([4.0, 4.0, 1.0, 1.0, 1.0, 1.0])
    maps = torch.complex(*(0.35 * torch.randn(2, 6, len(ball), generator=generator))) * sizes[:, None]
    noise = torch.complex(*(torch.randn(2, 240, len(ball), generator=generator) / 2**0.5))
    power = (torch.rand(240, len(ball), generator=generator) > 0.3).float()
    data = power * (maps[truth] - maps.mean(dim=0) + noise)
    particles = Measurements(data, power, ball, torch.ones(12, 12, 12))
    found = find_conformations(particles, balanced_halves(240, 0))
    assert found.n_states == 6
    assert adjusted_rand_score(truth.numpy(), found.labels) == 1


def test_two_states_are_found_and_said_to_be_supported() -> None:
    rotations, origins = randomly_posed(60, 1)
    truth = torch.arange(60) % 2
    volumes, weight = rendered(0.1 + 0.8 * truth, rotations, origins, 0.1, 1)
    found = analysed(volumes, weight, rotations, origins)
    assert found.n_states == 2
    assert adjusted_rand_score(truth.numpy(), found.labels) == 1
    assert found.axes_supported >= 1
    axis = found.coordinates[:, 0]
    assert abs(np.corrcoef(axis, truth.numpy())[0, 1]) > 0.95


def test_one_state_is_said_to_be_one() -> None:
    rotations, origins = randomly_posed(60, 2)
    volumes, weight = rendered(torch.full((60,), 0.5), rotations, origins, 0.1, 2)
    found = analysed(volumes, weight, rotations, origins)
    assert found.n_states == 1
    assert found.axes_supported == 0
    assert found.verdict.startswith("1 state")


def test_a_continuous_motion_is_an_axis_and_not_a_number_of_states() -> None:
    rotations, origins = randomly_posed(80, 3)
    states = torch.linspace(0, 1, 80)
    volumes, weight = rendered(states, rotations, origins, 0.2, 3)
    found = analysed(volumes, weight, rotations, origins)
    assert found.n_states == 1
    assert found.axes_supported >= 1
    assert "continuous" in found.verdict
    assert abs(np.corrcoef(found.coordinates[:, 0], states.numpy())[0, 1]) > 0.95


def test_wedges_that_differ_make_two_states_only_where_the_unmeasured_counts_as_zero() -> None:
    """One map; half of the particles lie as they are, half are turned by 90° about y, wedge and all."""
    group = torch.arange(60) % 2
    quarter = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    rotations = torch.where(group[:, None, None] == 1, quarter, torch.eye(3))
    origins = torch.randn(60, 3, generator=torch.Generator().manual_seed(4))
    volumes, weight = rendered(torch.full((60,), 0.5), rotations, origins, 0.2, 4)
    found = analysed(volumes, weight, rotations, origins)
    assert found.n_states == 1
    as_zero = analysed(volumes, torch.ones_like(weight), rotations, origins)
    assert as_zero.n_states >= 2
    assert adjusted_rand_score(group.numpy(), as_zero.labels) > 0.9


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two classes, of 21 clamps and 3, in their true poses."""
    return make_clamps(tmp_path_factory.mktemp("states"), [0] * 21 + [1] * 3)


def test_states_need_averages(run: RunFolder) -> None:
    with pytest.raises(InputError, match="cryodc average"):
        find_states(run, 1)


@pytest.fixture(scope="module")
def averaged(run: RunFolder) -> RunFolder:
    average_run(run)
    return run


def test_the_files_of_states(averaged: RunFolder) -> None:
    told: list[str] = []
    found = find_states(averaged, 1, 2, n_starts=1)
    folder = averaged.states / "class001"
    before, after = (
        particle_block(read_star(path)) for path in (averaged.averages / "particles.star", folder / "particles.star")
    )
    for label in before.labels:
        assert before.column(label)[:21] == after.column(label)
    assert after.column(STATE_LABEL) == [str(label + 1) for label in found.labels]
    for state, size in enumerate(found.sizes, start=1):
        assert particle_block(read_star(folder / f"state{state:02d}.star")).n_rows == size
    summary = json.loads((folder / "summary.json").read_text())
    assert [entry["n_particles"] for entry in summary["states"]] == found.sizes
    assert summary["requested"] == 2
    average = read_volume(averaged.averages / "class001.mrc")
    for name in ("state01.mrc", "state02.mrc", "axis1_01.mrc", "axis1_09.mrc"):
        volume = read_volume(folder / name)
        assert volume.box_size == BOX
        assert volume.spacing_angstrom == pytest.approx(SPACING)
    # The middle of an axis is the average, seen to the shells that states are told apart in.
    middle = read_volume(folder / "axis1_05.mrc")
    assert np.corrcoef(middle.voxels.ravel(), average.voxels.ravel())[0, 1] > 0.8
    assert middle.voxels.max() == pytest.approx(average.voxels.max(), rel=0.4)
    lines = (folder / "coordinates.csv").read_text().splitlines()
    assert lines[0].startswith("name,state,confidence,axis1")
    assert len(lines) == 22
    again = find_states(averaged, 1, 1, progress=told.append)
    assert again.n_states == 1
    assert not (folder / "state02.mrc").exists()
    assert any("replacing" in line for line in told)


def test_poses_of_a_relaxed_class_show_the_states_maps(averaged: RunFolder) -> None:
    """A particle turned back by the pose that is written correlates with its state's map."""
    find_states(averaged, 1, 1, relax="C2", n_starts=1)
    folder = averaged.states / "class001"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["relaxed_symmetry"] == "C2"
    poses = load_run_particles(averaged, folder / "particles.star").poses
    assert poses is not None
    dataset = load_run_dataset(averaged, load_run_particles(averaged))
    volumes = dataset.batch(torch.arange(21))[0]
    rotations, origins = (torch.from_numpy(v).float() for v in (poses.rotations, poses.origins_angstrom / SPACING))
    turned_back = resample(volumes, rotations, -origins).mean(dim=0)
    state = read_volume(folder / "state01.mrc").voxels
    assert np.corrcoef(turned_back.numpy().ravel(), state.ravel())[0, 1] > 0.6


def test_a_class_too_small_to_judge_says_so(averaged: RunFolder) -> None:
    with pytest.raises(InputError, match="too few particles to judge: 3, at least 8"):
        find_states(averaged, 2)


def test_what_cannot_be_used_is_refused(averaged: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such class"):
        find_states(averaged, 7)
    with pytest.raises(InputError, match="too few particles"):
        find_states(averaged, 2, 4)
    small = tmp_path / "small.mrc"
    write_volume(small, Volume(np.ones((16, 16, 16), np.float32), SPACING))
    with pytest.raises(InputError, match="does not fit"):
        find_states(averaged, 1, mask=small)
    with pytest.raises(InputError, match="--relax-symmetry X9"):
        find_states(averaged, 1, relax="X9")
    with pytest.raises(InputError, match="no C5 axes"):
        find_states(averaged, 1, relax="C5")
    average = averaged.averages / "class001.mrc"
    with pytest.raises(InputError, match="no mask"):
        find_states(averaged, 1, mask=average)
    done = CliRunner().invoke(states_command, [str(averaged.path), "--class", "1", "-n", "many"])
    assert done.exit_code == 2
    assert "auto or a number" in done.output


def test_the_command_prints_states_and_verdict(averaged: RunFolder) -> None:
    done = CliRunner().invoke(states_command, [str(averaged.path), "--class", "1", "-n", "1", "--device", "cpu"])
    assert done.exit_code == 0
    assert "1 state, as asked" in done.output
