"""Phantoms have the symmetry, size and motion they claim, at any box and spacing."""

import numpy as np
import pytest
import torch

from cryodc.errors import InputError
from cryodc.fourier import fourier_shell_correlation, standardise
from cryodc.geometry import matrices_from_euler, random_rotations, symmetry_rotations
from cryodc.simulation import Phantom, phantom
from cryodc.simulation.beads import render_beads
from cryodc.simulation.phantoms import DEMO_PHANTOMS, PHANTOMS

POSE = matrices_from_euler([[20.0, 65.0, -110.0]])[0]


def still(
    item: Phantom, rotation: np.ndarray = POSE, state: float = 0.5, box: int = 32, spacing: float = 10.0
) -> torch.Tensor:
    matrix = torch.from_numpy(np.ascontiguousarray(rotation)).float()[None]
    return item.render(matrix, torch.zeros(1, 3), torch.tensor([state]), box, spacing)[0]


def radius_of_gyration(volume: torch.Tensor, spacing: float) -> float:
    axis = (torch.arange(len(volume)) - len(volume) // 2) * spacing
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return float(((z**2 + y**2 + x**2) * volume).sum() / volume.sum()) ** 0.5


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_symmetry_of_the_phantom_changes_nothing(name: str) -> None:
    item = phantom(name)
    before = still(item)
    for symmetry in symmetry_rotations(item.symmetry):
        assert (still(item, POSE @ symmetry) - before).abs().max() < 1e-4 * before.abs().max()


@pytest.mark.parametrize("name", PHANTOMS)
@pytest.mark.parametrize("axis_zyx", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_no_phantom_has_more_symmetry_than_it_says(name: str, axis_zyx: tuple[int, int, int]) -> None:
    half_turn = 2 * np.outer(axis_zyx, axis_zyx) - np.eye(3)
    item = phantom(name)
    if np.isclose(symmetry_rotations(item.symmetry), half_turn, atol=1e-9).all(axis=(1, 2)).any():
        return
    before, after = standardise(torch.stack([still(item), still(item, POSE @ half_turn)])).flatten(1)
    assert before @ after / before.numel() < 0.95


@pytest.mark.parametrize("name", PHANTOMS)
def test_the_centre_of_mass_is_the_box_centre(name: str) -> None:
    volume = still(phantom(name), box=40)
    index = torch.arange(40, dtype=torch.float32)
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        assert float((volume.sum(others) * index).sum() / volume.sum()) == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("name", DEMO_PHANTOMS)
def test_a_phantom_has_the_same_size_in_angstrom_at_any_box_and_spacing(name: str) -> None:
    fine = radius_of_gyration(still(phantom(name), box=64, spacing=5.0), 5.0)
    coarse = radius_of_gyration(still(phantom(name), box=24, spacing=13.3), 13.3)
    assert coarse == pytest.approx(fine, rel=0.02)


def test_the_same_shape_is_sampled_on_every_grid() -> None:
    fine = torch.nn.functional.avg_pool3d(still(phantom("wheel"), box=64, spacing=5.0)[None, None], 2)[0, 0]
    # Voxels 32 and 33 pool to voxel 16, whose middle lies half a fine voxel from the centre.
    coarse = phantom("wheel").render(
        torch.from_numpy(POSE)[None].float(), torch.full((1, 3), 2.5), torch.tensor([0.5]), 32, 10.0
    )[0]
    assert (fourier_shell_correlation(fine, coarse)[1:10] > 0.99).all()


def test_a_pose_puts_a_bead_where_the_convention_says() -> None:
    """``particle(x) = reference(Aᵀ (x + o))``: a bead at r lies at A r − o."""
    origin = np.array([20.0, -10.0, 5.0])
    item = phantom("clamp")
    expected = torch.from_numpy((POSE @ item.beads([0.3])[0].T).T - origin) / 10.0
    sigma = np.hypot(7.0, 5.0) / 10.0
    masses = torch.from_numpy(np.tile(item.masses, 2)).float()
    by_hand = render_beads(expected.float()[None], masses, sigma, 32)[0]
    rendered = item.render(
        torch.from_numpy(POSE)[None].float(),
        torch.from_numpy(origin)[None].float(),
        torch.tensor([0.3]),
        32,
        10.0,
    )[0]
    assert torch.allclose(rendered, by_hand, atol=1e-5)


def test_beads_integrate_to_their_mass() -> None:
    volume = render_beads(torch.tensor([[[0.3, -2.2, 1.7]]]), torch.tensor([3.0]), 1.5, 24)
    assert float(volume.sum()) == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("name", PHANTOMS)
def test_states_move_one_domain_of_the_phantoms_that_have_a_hinge_and_nothing_else(name: str) -> None:
    item = phantom(name)
    first, last = item.beads([0.0, 1.0])
    moved = np.linalg.norm(last - first, axis=1)
    if not item.moves:
        assert moved.max() == 0
        return
    moving = np.tile(item.moving, len(symmetry_rotations(item.symmetry)))
    assert np.allclose(moved[~moving], 0)
    assert 20 < moved.max() < 60
    # A rigid domain: distances within it stay.
    n = int(item.moving.sum())
    gaps = [np.linalg.norm(beads[moving][:n] - beads[moving][0], axis=1) for beads in (first, last)]
    assert np.allclose(*gaps)


def test_two_of_the_demo_phantoms_move_and_two_have_low_symmetry() -> None:
    items = [phantom(name) for name in DEMO_PHANTOMS]
    assert sum(item.moves for item in items) == 2
    assert sum(item.symmetry in ("C1", "C2") for item in items) == 2


def test_no_two_phantoms_look_alike_in_any_pose() -> None:
    generator = torch.Generator().manual_seed(0)
    rotations = random_rotations(60, generator)
    views = {
        name: standardise(
            phantom(name).render(rotations, torch.zeros(60, 3), torch.full((60,), 0.5), 24, 13.0)
        ).flatten(1)
        for name in PHANTOMS
    }
    for first in PHANTOMS:
        for second in PHANTOMS:
            if first < second:
                assert float((views[first] @ views[second].T).max()) / 24**3 < 0.93, (first, second)


def test_every_phantom_leaves_room_for_shifts_in_the_default_box() -> None:
    for name in PHANTOMS:
        assert phantom(name).radius_angstrom() < 110


def test_an_unknown_phantom_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match="bilobe"):
        phantom("ribosome")
