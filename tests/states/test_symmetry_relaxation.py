"""A map that nearly has a point group: poses are known up to its mates, and what breaks it tells which is right."""

import numpy as np
import pytest
import torch

from cryodc.alignment import balanced_halves
from cryodc.errors import InputError
from cryodc.fourier import (
    apply_weight,
    ball_spectra,
    fourier_ball,
    low_pass,
    soft_sphere,
    volume_from_ball,
    wedge_from_tilt_range,
)
from cryodc.geometry import random_rotations, resample, symmetry_rotations
from cryodc.states import measure, put_on_axes, relax_symmetry
from cryodc.states.mates import turned_maps
from tests.simulated import centred_blobs

BOX, SHELLS = 24, 8
GROUP = torch.from_numpy(symmetry_rotations("C3")).float()


def blob(z: float, y: float, x: float) -> torch.Tensor:
    return centred_blobs(torch.tensor([[z, y, x]]), BOX, 1.5)


def symmetric_map() -> torch.Tensor:
    """Three arms about z and a stalk that tells up from down."""
    arm = blob(-2, 0, 6) + blob(3, 3, 3)
    return resample(arm[None].expand(3, -1, -1, -1), GROUP).sum(dim=0) + blob(-5, 0, 0) + blob(6, 0, 0)


def test_a_turned_map_is_the_map_at_turned_places() -> None:
    ball = fourier_ball(BOX, float(SHELLS))
    volume = low_pass(symmetric_map() + blob(5, 0, 5), 5.0, 1.0)
    turned = turned_maps(ball_spectra(volume[None], ball), GROUP, ball)[0]
    for spectrum, element in zip(turned, GROUP, strict=True):
        expected = resample(volume[None], element.T[None])[0]
        found = volume_from_ball(spectrum, ball)
        assert np.corrcoef(found.ravel().numpy(), expected.ravel().numpy())[0, 1] > 0.98


def test_an_arm_that_is_up_is_brought_to_one_place_and_the_others_need_not_move() -> None:
    n, generator = 90, torch.Generator().manual_seed(0)
    up = torch.arange(n) % 2 == 1
    true, origins = random_rotations(n, generator), torch.randn(n, 3, generator=generator)
    maps = torch.stack([symmetric_map(), symmetric_map() + 4.0 * blob(-7, 0, 6)])[up.long()]
    back = true.transpose(1, 2)
    clean = resample(maps, back, torch.einsum("nij,nj->ni", back, origins))
    noisy = clean + 2.0 * clean.std() * torch.randn(clean.shape, generator=generator)
    weight = wedge_from_tilt_range(BOX, -60, 60)
    volumes, weights = apply_weight(noisy, weight), weight.expand(n, -1, -1, -1)
    wrong = torch.randint(3, (n,), generator=generator)
    given = true @ GROUP[wrong].transpose(1, 2)
    particles, average = measure(lambda: [(volumes, weights, given, origins)], torch.ones(BOX, BOX, BOX), SHELLS)
    halves = balanced_halves(n, 0)
    relaxed, _, elements = relax_symmetry(particles, average, halves, "C3")
    # What is left is one element of the group, the same for both halves.
    left = (true.transpose(1, 2) @ given @ elements)[up]
    assert float((left - left[0]).flatten(1).norm(dim=1).max()) < 1e-3
    assert len(relaxed) == n
    # A measurement in a mate is the measurement of a particle posed so.
    again, _ = measure(lambda: [(volumes, weights, given @ elements, origins)], torch.ones(BOX, BOX, BOX), SHELLS)
    bump = ball_spectra(0.2 * resample(blob(-7, 0, 6)[None], left[:1]), particles.ball)
    first, second = (values.projections(bump, bump.real)[0][:, 0].numpy() for values in (relaxed, again))
    assert np.corrcoef(first, second)[0, 1] > 0.95


def test_a_map_without_the_axes_is_refused() -> None:
    sphere = soft_sphere(BOX, 9.0, 2.0)
    odd = sphere * torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(0))
    poses = torch.eye(3).expand(4, 3, 3), torch.zeros(4, 3)
    with pytest.raises(InputError, match="no C7 axes"):
        put_on_axes(odd, torch.ones(BOX, BOX, BOX), poses, "C7", 6.0)


def test_axes_are_put_in_place_with_the_poses() -> None:
    """A map that was turned and shifted, and a pose on it, show the same particle once its axes lie along z."""
    generator = torch.Generator().manual_seed(2)
    turn, move = random_rotations(1, generator), torch.tensor([[1.0, -2.0, 0.5]])
    average = resample(symmetric_map()[None], turn, move)
    pose = random_rotations(1, generator), torch.tensor([[0.5, 1.0, -1.0]])
    (rotations, origins), _ = put_on_axes(average[0], torch.ones(BOX, BOX, BOX), pose, "C3", 8.0)
    # particle(x) = average(Aᵀ (x + o)), and average(y) = turned(Rᵀ (y − t)) with the axes of `turned` along z.
    relative = pose[0].transpose(1, 2) @ rotations
    place = torch.einsum("nji,nj->ni", pose[0], pose[1] - origins)
    on_axes = resample(average, relative, place)
    mate = resample(on_axes, GROUP[1:2])
    assert np.corrcoef(on_axes.ravel().numpy(), mate.ravel().numpy())[0, 1] > 0.95
