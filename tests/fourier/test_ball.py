import math

import numpy as np
import pytest
import torch

from cryodc.alignment import refine_poses
from cryodc.fourier import (
    ParticleSpectra,
    ball_spectra,
    ball_weights,
    fine_gradient,
    fine_spectrum,
    fourier_ball,
    hermitian_count,
    phase_ramps,
    sample_spectrum,
    score_chosen,
    score_poses,
    shell_radius,
    shift_lattice,
    slices,
    volume_from_ball,
    wedge_from_tilt_range,
)
from cryodc.geometry import geodesic_degrees, random_rotations, rotations_from_vectors
from tests.simulated import centred_blobs

BOX = 24


def blobs(centres: torch.Tensor, box: int = BOX, width: float = 1.6) -> torch.Tensor:
    return centred_blobs(centres, box, width)


CENTRES = torch.tensor([[0.0, 1.0, -4.0], [3.0, -2.0, 1.0], [-2.0, 3.5, 2.0], [1.0, 4.0, -1.0], [-4.0, -1.0, 0.5]])


def posed(rotation: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """particle(x) = reference(Aᵀ (x + o)): a point c of the reference lies at A c − o."""
    return blobs(CENTRES @ rotation.T - origin)


def test_a_ball_holds_each_pair_of_opposite_frequencies_once() -> None:
    ball = fourier_ball(BOX, 7.0)
    seen = {tuple(k) for k in ball.frequencies.int().tolist()}
    assert len(seen) == len(ball)
    assert not any((-z, -y, -x) in seen for z, y, x in seen)
    radius = np.linalg.norm(np.stack(np.meshgrid(*[np.arange(-8, 9)] * 3)).reshape(3, -1), axis=0)
    assert 2 * len(ball) == ((radius > 0) & (radius <= 7)).sum()


def test_a_volume_comes_back_from_its_ball() -> None:
    volume = torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(0))
    ball = fourier_ball(BOX, 9.0)
    kept = (shell_radius(BOX) <= 9.0).float()
    kept[0, 0, 0] = 0
    expected = torch.fft.irfftn(torch.fft.rfftn(volume) * kept, s=(BOX,) * 3)
    torch.testing.assert_close(volume_from_ball(ball_spectra(volume[None], ball)[0], ball), expected, atol=1e-5, rtol=0)
    assert hermitian_count(BOX)[1] == 2


def test_a_slice_is_the_spectrum_of_the_volume_in_that_pose() -> None:
    generator = torch.Generator().manual_seed(1)
    rotation, origin = random_rotations(1, generator)[0], torch.tensor([0.7, -1.2, 0.4])
    ball = fourier_ball(BOX, 8.0)
    expected = ball_spectra(posed(rotation, origin)[None], ball)[0]
    column = slices(fine_spectrum(blobs(CENTRES)[None], 8.0)[0], ball, rotation[None])[0]
    found = torch.complex(column[0], column[1]) * phase_ramps(ball, origin)
    for shell in range(1, 8):
        here = ball.shells == shell
        loss = (found[here] - expected[here]).norm() / expected[here].norm()
        assert loss < 0.02, f"shell {shell} loses {loss:.3f}"


def test_scores_agree_with_correlation_written_out() -> None:
    generator = torch.Generator().manual_seed(2)
    weights = torch.stack([wedge_from_tilt_range(BOX, -60, 60), wedge_from_tilt_range(BOX, -40, 50)])
    index = torch.tensor([0, 1, 1])
    particles = torch.randn(3, BOX, BOX, BOX, generator=generator)
    ball = fourier_ball(BOX, 5.0)
    spectra = ball_spectra(particles, ball)
    rotations, shifts = random_rotations(4, generator), torch.tensor([[0.0, 0, 0], [1.0, -0.5, 2.0]])
    columns = slices(fine_spectrum(blobs(CENTRES)[None], 5.0)[0], ball, rotations)
    found = score_poses(spectra, ball_weights(weights, ball), index, columns, ball, shifts)
    assert found.shape == (3, 2, 4)
    for i in range(3):
        for t in range(2):
            for r in range(4):
                top = bottom = 0.0
                for p, k in enumerate(ball.frequencies.tolist()):
                    h = float(weights[index[i]].flatten()[ball.index[p]])
                    model = h * complex(columns[r, 0, p], columns[r, 1, p])
                    ramp = 2 * math.pi * sum(a * b for a, b in zip(k, shifts[t].tolist(), strict=True)) / BOX
                    moved = model * complex(math.cos(ramp), math.sin(ramp))
                    top += (complex(spectra[i, p]).conjugate() * moved).real
                    bottom += abs(model) ** 2
                assert float(found[i, t, r]) == pytest.approx(top / math.sqrt(bottom), rel=1e-3, abs=1e-3)


def particles_of_many_weights(n: int, n_weights: int) -> tuple[ParticleSpectra, torch.Tensor]:
    generator, ball = torch.Generator().manual_seed(4), fourier_ball(BOX, 5.0)
    weights = ball_weights(torch.rand(n_weights, BOX, BOX, BOX // 2 + 1, generator=generator), ball)
    spectra = ball_spectra(torch.randn(n, BOX, BOX, BOX, generator=generator), ball)
    columns = slices(fine_spectrum(blobs(CENTRES)[None], 5.0)[0], ball, random_rotations(6, generator))
    return ParticleSpectra(ball, spectra, weights, torch.randint(n_weights, (n,), generator=generator)), columns


def test_chosen_columns_score_as_they_do_among_all() -> None:
    particles, columns = particles_of_many_weights(5, 3)
    given = particles.spectra, particles.weights, particles.weight_index, columns
    chosen, shifts = torch.tensor([[0, 5], [3, 3], [1, 2], [4, 0], [2, 1]]), shift_lattice(1.0, 1.0)
    every = score_poses(*given, particles.ball, shifts)
    expected = every.gather(2, chosen[:, None].expand(-1, len(shifts), -1))
    torch.testing.assert_close(
        score_chosen(*given, chosen, particles.ball, shifts), expected, atol=1e-4 * float(every.abs().max()), rtol=0
    )


def test_a_few_of_many_weights_go_along_with_a_few_particles() -> None:
    particles, columns = particles_of_many_weights(8, 8)
    few = particles.select(torch.tensor([6, 1, 6]))
    assert len(few.weights) <= 3
    torch.testing.assert_close(few.own_weights, particles.own_weights[[6, 1, 6]])
    scores, expected = (
        score_poses(part.spectra, part.weights, part.weight_index, columns, part.ball, torch.zeros(1, 3))
        for part in (few, particles)
    )
    torch.testing.assert_close(scores, expected[[6, 1, 6]])


def test_the_true_pose_scores_best_in_spite_of_the_wedge() -> None:
    generator = torch.Generator().manual_seed(3)
    rotations = random_rotations(40, generator)
    shifts = shift_lattice(1.5, 1.5)
    truth, shift = 17, shifts[2]
    weight = wedge_from_tilt_range(BOX, -60, 60)
    ball = fourier_ball(BOX, 6.0)
    spectra = ball_spectra(posed(rotations[truth], shift)[None], ball) * ball_weights(weight[None], ball)
    columns = slices(fine_spectrum(blobs(CENTRES)[None], 6.0)[0], ball, rotations)
    index = torch.zeros(1, dtype=torch.long)
    score = score_poses(spectra, ball_weights(weight[None], ball), index, columns, ball, shifts)
    assert int(score.argmax()) == 2 * 40 + truth
    assert float(score.max()) == pytest.approx(float(spectra.abs().square().sum().sqrt()), rel=0.01)


def test_gradients_of_a_fine_spectrum_are_its_differences() -> None:
    points = torch.tensor([[[1.3, -2.1, 0.7], [0.2, 3.4, -1.0], [4.0, 0.1, 2.6]]])
    fields = sample_spectrum(fine_gradient(blobs(CENTRES))[None], points)[0].reshape(4, 2, -1)
    for axis in range(3):
        step = torch.zeros(3)
        step[axis] = 0.5
        fine = fine_spectrum(blobs(CENTRES)[None])
        difference = sample_spectrum(fine, points + step)[0] - sample_spectrum(fine, points - step)[0]
        torch.testing.assert_close(fields[axis + 1], difference, atol=0.1 * float(fields[axis + 1].abs().max()), rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_refinement_reaches_the_true_pose_from_twelve_degrees_away(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rotation, origin = random_rotations(1, generator)[0], torch.randn(3, generator=generator) * 0.8
    axis = torch.nn.functional.normalize(torch.randn(1, 3, generator=generator))
    start = rotations_from_vectors(axis * math.radians(12))[0] @ rotation
    weight = wedge_from_tilt_range(BOX, -60, 60)[None]
    ball = fourier_ball(BOX, 8.0)
    spectra = ball_spectra(posed(rotation, origin)[None], ball) * ball_weights(weight, ball)
    zero = torch.zeros(1, dtype=torch.long)
    turned, moved, score = refine_poses(
        ParticleSpectra(ball, spectra, ball_weights(weight, ball), zero),
        fine_gradient(blobs(CENTRES), 8.0)[None], zero, start[None], torch.zeros(1, 3), n_steps=15,
    )  # fmt: skip
    assert geodesic_degrees(turned[0].double().numpy(), rotation.double().numpy()) < 0.5
    assert float((moved[0] - origin).norm()) < 0.05
    assert float(score) == pytest.approx(float(spectra.abs().square().sum().sqrt()), rel=0.01)
