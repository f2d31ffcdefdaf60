import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from benchmarks.maps.symmetry import GROUPS, half_maps, read_clean
from cryodc.alignment import align_class
from cryodc.fourier import (
    ParticleStack,
    apply_weight,
    ball_spectra,
    density_mask,
    fourier_ball,
    low_pass,
    standardise,
    volume_from_ball,
    wedge_from_tilt_range,
)
from cryodc.geometry import (
    FOUND_AXES,
    asymmetric_unit,
    find_axes,
    find_confirmed_axes,
    geodesic_degrees,
    random_rotations,
    resample,
    rotation_grid,
    symmetrise,
    symmetry_rotations,
)
from cryodc.geometry.axes import FEWEST_KEPT, agreement_kept
from cryodc.maps import average_particles
from cryodc.simulation import SimulationConfig, phantom, simulate_particles

BOX = 24


def turned_by_scipy(volume: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """``volume(R x)``, x from the box centre."""
    centre = np.full(3, volume.shape[0] // 2)
    return affine_transform(volume, rotation, offset=centre - rotation @ centre, order=3)


def smooth_map() -> torch.Tensor:
    volume = phantom("bilobe").mean_map(BOX, 14.0)
    ball = fourier_ball(BOX, 7.0)
    return volume_from_ball(ball_spectra(volume[None], ball)[0], ball)


@pytest.mark.parametrize("group", ["C3", "C4", "D2", "T"])
def test_sums_over_a_group_are_sums_of_turned_maps(group: str) -> None:
    volume = smooth_map()
    ball = fourier_ball(BOX, 10.0)
    values = ball_spectra(volume[None], ball)[0]
    numerator, denominator = symmetrise(values, torch.ones(len(ball)), ball, group)
    mates = symmetry_rotations(group)
    expected = sum(turned_by_scipy(volume.numpy(), mate) for mate in mates)
    found = volume_from_ball(numerator, ball).numpy()
    middle = slice(3, -3)
    inside = (middle, middle, middle)
    assert np.corrcoef(found[inside].ravel(), expected[inside].ravel())[0, 1] > 0.995
    inner = ball.mask(7.0)
    np.testing.assert_allclose(denominator[inner].numpy(), len(mates), rtol=0.15)


def test_symmetric_averages_equal_their_turned_selves() -> None:
    made = simulate_particles({"clamp": phantom("clamp")}, SimulationConfig(n_per_map=12, snr=1.0, box_size=BOX))
    moves = torch.from_numpy(made.poses.origins_angstrom / 10.0).float()
    stack = ParticleStack(made.volumes, made.weights, made.weight_index)
    inputs = (stack, torch.from_numpy(made.poses.rotations).float(), moves)
    halves = np.arange(12) % 2 + 1
    plain, symmetric = (average_particles(*inputs, halves, symmetry=group) for group in ("C1", "D2"))
    sphere = np.linalg.norm(np.indices((BOX,) * 3) - BOX // 2, axis=0) < BOX / 2 - 3

    def agreement(volume: torch.Tensor) -> float:
        own = volume.numpy()
        mates = [turned_by_scipy(own, mate) for mate in symmetry_rotations("D2")]
        return min(float(np.corrcoef(own[sphere], mate[sphere])[0, 1]) for mate in mates)

    for volume in (symmetric.average, *symmetric.halves):
        assert agreement(volume) > 0.99
    assert agreement(plain.average) < 0.9


@pytest.mark.parametrize("group", ["C5", "D3"])
def test_axes_are_found_wherever_they_lie(group: str) -> None:
    volume = smooth_map()
    mates = [torch.from_numpy(turned_by_scipy(volume.numpy(), mate)) for mate in symmetry_rotations(group)]
    symmetric = torch.stack(mates).float().sum(dim=0)
    turn = random_rotations(1, torch.Generator().manual_seed(3))
    moved = resample(symmetric[None], turn, torch.tensor([[0.7, -0.5, 0.4]]))[0]
    rotation, shift, agreement = find_axes(moved, group, 7.0)
    assert agreement > 0.95
    put_back = resample(moved[None], rotation[None], shift[None])[0].numpy()
    for mate in symmetry_rotations(group):
        assert np.corrcoef(turned_by_scipy(put_back, mate).ravel(), put_back.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("group", ["C2", "C7", "D2", "D7", "T", "O", "I"])
def test_views_of_a_symmetric_map_are_searched_once_and_none_is_missed(group: str) -> None:
    step = 18.0
    grid = rotation_grid(step) @ random_rotations(1, torch.Generator().manual_seed(0))[0]
    unit = asymmetric_unit(grid, group).double().numpy()
    mates = symmetry_rotations(group)
    assert len(unit) == pytest.approx(len(grid) / len(mates), rel=0.1)
    for rotation in random_rotations(100, torch.Generator().manual_seed(1)).double().numpy():
        nearest = min(geodesic_degrees(unit, rotation @ mate).min() for mate in mates)
        assert nearest < step


@pytest.mark.parametrize("from_nothing", [True, False])
def test_particles_are_posed_up_to_a_mate_where_one_of_all_mates_is_searched(from_nothing: bool) -> None:
    single = phantom("bilobe").mean_map(BOX, 14.0)
    mates = symmetry_rotations("D2")
    truth = torch.stack([torch.from_numpy(turned_by_scipy(single.numpy(), mate)) for mate in mates]).sum(dim=0).float()
    turns = random_rotations(48, torch.Generator().manual_seed(4))
    volumes = resample(truth.expand(48, -1, -1, -1).contiguous(), turns.transpose(1, 2))
    weight = wedge_from_tilt_range(BOX, -60, 60)
    noise = torch.randn(volumes.shape, generator=torch.Generator().manual_seed(5))
    volumes = standardise(apply_weight(volumes / volumes.std() + noise, weight))
    stack = ParticleStack(volumes, weight[None], torch.zeros(48, dtype=torch.long))
    found = align_class(stack, start=None if from_nothing else truth, symmetry="D2", n_starts=1)
    assert found.aligned
    assert found.symmetry == "D2", found.symmetry_note
    # The axes are in place, but which of them is which is anybody's choice.
    permuted = [np.eye(3)[list(order)] for order in itertools.permutations(range(3))]
    frames = [matrix * np.linalg.det(matrix) for matrix in permuted]
    errors = [
        [
            min(geodesic_degrees(turn @ frame @ mate, pose) for mate in mates)
            for turn, pose in zip(turns.double().numpy(), found.rotations.double().numpy(), strict=True)
        ]
        for frame in frames
    ]
    assert min(np.median(each) for each in errors) < 6.0


@pytest.mark.parametrize(("file", "group"), [(file, group) for file, groups in GROUPS.items() for group in groups])
def test_half_maps_tell_the_groups_of_real_complexes_from_others(shared_data: Path, file: str, group: str) -> None:
    halves = half_maps(read_clean(shared_data / file), noise=1.0, seed=0)
    mask = density_mask(halves.mean(dim=0))
    axes = find_confirmed_axes(low_pass(halves.mean(dim=0), 9.0, 1.0) * mask, halves, mask, group, 9.0)
    assert axes.found == GROUPS[file][group], axes.evidence


@pytest.mark.parametrize(("third_arm", "there"), [(1.0, True), (0.2, False)])
def test_an_axis_is_there_where_one_half_map_confirms_it_on_the_other(third_arm: float, there: bool) -> None:
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    clean = np.zeros((BOX,) * 3)
    for angle, height in zip(np.radians([0, 120, 240]), (1, 1, third_arm), strict=True):
        clean += height * np.exp(-(z**2 + (y - 6 * np.sin(angle)) ** 2 + (x - 6 * np.cos(angle)) ** 2) / 5)
    noise = torch.randn(2, BOX, BOX, BOX, generator=torch.Generator().manual_seed(1))
    halves = torch.from_numpy(clean).float() + float(clean.std()) * noise
    everywhere = torch.ones(BOX, BOX, BOX)
    assert (agreement_kept(halves, everywhere, "C3") >= FEWEST_KEPT) == there
    assert agreement_kept(noise, everywhere, "C3") == 0.0


def test_axes_that_are_not_there_are_not_found() -> None:
    assert find_axes(smooth_map(), "D7", 7.0)[2] < FOUND_AXES


def test_no_symmetry_changes_nothing() -> None:
    ball = fourier_ball(16, 5.0)
    values = torch.ones(len(ball), dtype=torch.complex64)
    numerator, denominator = symmetrise(values, torch.ones(len(ball)), ball, "C1")
    torch.testing.assert_close(numerator, values)
    torch.testing.assert_close(denominator, torch.ones(len(ball)))
