"""The forward model and its adjoint, against sums written out in loops and against each other."""

import math

import numpy as np
import pytest
import torch

from cryodc.fourier import (
    backproject_particles,
    ball_spectra,
    fine_gradient,
    fine_spectrum,
    fourier_ball,
    low_pass,
    phase_ramps,
    predict,
    predict_with_jacobian,
    sample_spectrum,
    slices,
    soft_sphere,
    spread_samples,
    sums_in_ball,
    turn_back,
    unfold_spectrum,
    volume_from_ball,
    wedge_from_tilt_range,
    weighted_spectra,
)
from cryodc.fourier.ball import ball_weights
from cryodc.geometry import random_rotations, rotations_from_vectors

BOX = 16


def draw(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotations, shifts and a blurred random map, float64."""
    generator = torch.Generator().manual_seed(seed)
    rotations = random_rotations(n, generator).double()
    shifts = 3 * torch.rand(n, 3, generator=generator).double() - 1.5
    volume = low_pass(torch.randn(BOX, BOX, BOX, generator=generator), 4.0, 2.0) * soft_sphere(BOX, 5.0, 2.0)
    volume = volume.double()
    return rotations, shifts, volume


def summed(
    volume: torch.Tensor,
    frequencies: torch.Tensor,
    weights: torch.Tensor,
    rotations: torch.Tensor,
    shifts: torch.Tensor,
) -> np.ndarray:
    """F(k) = H(k) Σ_x v(x) exp(−2πi k·(A x − o)/N): a map's voxel at x lies at A x − o of the particle."""
    axis = np.arange(BOX) - BOX // 2
    x = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    k, found = frequencies.numpy().astype(np.float64), []
    for own, turn, move in zip(weights.numpy(), rotations.numpy(), shifts.numpy(), strict=True):
        place = x @ turn.T - move
        found.append(own * (np.exp(-2j * np.pi * k @ place.T / BOX) @ volume.numpy().reshape(-1)))
    return np.stack(found)


def test_a_prediction_is_the_sum_over_the_voxels_of_the_posed_map() -> None:
    rotations, shifts, volume = draw(3)
    ball = fourier_ball(BOX, 5.0)
    weights = torch.rand(3, len(ball), generator=torch.Generator().manual_seed(1)).double()
    expected = summed(volume, ball.frequencies, weights, rotations, shifts)
    fine = fine_spectrum(volume[None])[0].float()
    found = predict(fine, ball, weights.float(), rotations.float(), shifts.float()).numpy()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    # What linear interpolation on a grid twice as fine leaves.
    assert error < 0.03


@pytest.mark.parametrize("radius", [4.0, 7.0])
def test_interpolation_and_its_adjoint_give_the_same_inner_products(radius: float) -> None:
    generator = torch.Generator().manual_seed(2)
    volumes = torch.randn(2, BOX, BOX, BOX, generator=generator).double()
    fine = fine_spectrum(volumes, radius)
    there = torch.randn(fine.shape, generator=generator).double()
    torch.testing.assert_close((fine * there).sum(), (volumes * unfold_spectrum(there, BOX)).sum(), rtol=1e-10, atol=0)
    frequencies = 1.2 * radius * (2 * torch.rand(500, 3, generator=generator).double() - 1)
    values = torch.randn(2, 500, generator=generator).double()
    seen = sample_spectrum(fine[:1], frequencies[None])[0]
    spread = spread_samples(values, frequencies, fine.shape[-1] // 2)
    torch.testing.assert_close((seen * values).sum(), (fine[0] * spread).sum(), rtol=1e-10, atol=0)


def test_backprojection_is_the_adjoint_of_prediction() -> None:
    """⟨predict(v), y⟩ = ⟨v, backproject(y)⟩ for any map v and any particles y, in float64 and in float32."""
    rotations, shifts, volume = draw(4)
    ball = fourier_ball(BOX, 7.0)
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(4, len(ball), generator=generator).double()
    y = torch.complex(*torch.randn(2, 4, len(ball), generator=generator).double())
    radius = float(ball.frequencies.norm(dim=1).max())
    for kind, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        real = [t.to(kind) for t in (volume, weights, rotations, shifts, ball.frequencies)]
        here = type(ball)(BOX, real[4], ball.index, ball.shells)
        data = y.to(torch.complex128 if kind == torch.float64 else torch.complex64)
        seen = predict(fine_spectrum(real[0][None], radius)[0], here, *real[1:4])
        back = unfold_spectrum(backproject_particles(data, real[1], here, real[2], real[3])[None, :2], BOX)[0]
        first, second = float((seen * data.conj()).real.sum()), float((real[0] * back).sum())
        assert abs(first - second) <= tolerance * float(seen.abs().mul(data.abs()).sum())


def test_the_jacobian_is_the_slope_of_the_prediction() -> None:
    rotations, shifts, volume = draw(2)
    ball = fourier_ball(BOX, 5.0)
    weights = torch.rand(2, len(ball), generator=torch.Generator().manual_seed(4))
    gradient = fine_gradient(volume.float())
    pose = rotations.float(), shifts.float()
    fields = torch.cat([slices(gradient, ball, pose[0][i : i + 1]) for i in range(2)])
    predicted = predict_with_jacobian(fields, ball, weights, pose[0])
    ramp = phase_ramps(ball, pose[1])[:, None]
    shifted = torch.complex(predicted[:, :, 0], predicted[:, :, 1]) * ramp
    model, jacobian = shifted[:, 0], shifted[:, 1:]
    fine = fine_spectrum(volume[None])[0].float()
    torch.testing.assert_close(model, predict(fine, ball, weights, *pose), rtol=1e-4, atol=1e-3)
    step = 1e-4
    for j in range(6):
        turn, move = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
        (turn if j < 3 else move)[:, j % 3] = step
        ahead, behind = (
            summed(
                volume,
                ball.frequencies,
                weights.double(),
                rotations_from_vectors(sign * turn) @ rotations,
                shifts + sign * move,
            )
            for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        assert np.linalg.norm(slope - jacobian[:, j].numpy()) / np.linalg.norm(slope) < 0.05


def posed_particles(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Particles of one map behind a wedge: volumes, their weight, rotations, shifts."""
    rotations, shifts, volume = draw(n, seed=5)
    weight = wedge_from_tilt_range(BOX, -60, 60)
    ball = fourier_ball(BOX, BOX / 2)
    own = ball_weights(weight[None], ball).expand(n, -1)
    spectra = predict(fine_spectrum(volume.float()[None])[0], ball, own, rotations.float(), shifts.float())
    return torch.stack([volume_from_ball(s, ball) for s in spectra]), weight, rotations.float(), shifts.float()


def test_the_average_of_noise_free_particles_is_their_map() -> None:
    _, _, volume = draw(1, seed=5)
    volumes, weight, rotations, shifts = posed_particles(60)
    wanted, wider = fourier_ball(BOX, 6.0), fourier_ball(BOX, 7.0)
    own = ball_weights(weight[None], wider).expand(60, -1)
    grid = backproject_particles(ball_spectra(volumes, wider), own, wider, rotations, shifts)
    top, bottom = sums_in_ball(grid, wanted)
    expected = ball_spectra(draw(60, seed=5)[2].float()[None], wanted)[0]
    found = top / bottom.clamp_min(1e-3)
    assert volume.shape == (BOX,) * 3
    correlation = (found * expected.conj()).real.sum() / (found.norm() * expected.norm())
    assert correlation > 0.99
    assert abs(float((found.norm() / expected.norm()).log())) < math.log(1.05)
    # Every particle measured two thirds of Fourier space.
    assert abs(float(bottom.mean()) / 60 - float(weight.mean())) < 0.03


def test_particles_turned_back_one_by_one_add_up_to_the_backprojection() -> None:
    volumes, weight, rotations, shifts = posed_particles(40)
    wanted, wider = fourier_ball(BOX, 5.0), fourier_ball(BOX, 6.0)
    own = ball_weights(weight[None], wider).expand(40, -1)
    top, bottom = sums_in_ball(
        backproject_particles(ball_spectra(volumes, wider), own, wider, rotations, shifts), wanted
    )
    data, power = turn_back(weighted_spectra(volumes, weight.expand(40, -1, -1, -1)), wanted, rotations, shifts)
    for found, expected in ((data.sum(dim=0), top), (power.sum(dim=0) + 0j, bottom + 0j)):
        assert float((found * expected.conj()).real.sum() / (found.norm() * expected.norm())) > 0.99
        assert abs(float((found.norm() / expected.norm()).log())) < 0.05


def test_shares_and_shifts_enter_as_they_should() -> None:
    """Half a share is half a particle; a particle moved by o needs the ramp of o undone."""
    rotations, shifts, volume = draw(1)
    ball = fourier_ball(BOX, 6.0)
    weights = torch.ones(1, len(ball))
    spectra = ball_spectra(volume.float()[None], ball)
    moved = spectra * phase_ramps(ball, shifts.float())
    pose = rotations.float() * 0 + torch.eye(3), shifts.float()
    whole = backproject_particles(moved, weights, ball, *pose)
    half = backproject_particles(moved, weights, ball, *pose, torch.tensor([0.5]))
    torch.testing.assert_close(half, 0.5 * whole)
    found, expected = sums_in_ball(whole, ball.within(5.0))[0], spectra[0, ball.mask(5.0)]
    assert float((found * expected.conj()).real.sum() / (found.norm() * expected.norm())) > 0.99
