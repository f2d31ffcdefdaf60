"""Scores on templates: the best pose, the spread within a map, what the missing wedge does."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from sklearn.linear_model import LinearRegression

from cryodc.alignment import empty_poses
from cryodc.fourier import (
    NoiseModel,
    apply_weight,
    ball_spectra,
    ball_weights,
    fourier_ball,
    fourier_shift,
    wedge_from_tilt_range,
)
from cryodc.geometry import random_rotations, rotation_grid
from cryodc.templates import BOX, match, shapes, spectra_of
from cryodc.templates.match import RADIUS, Search, match_map, shift_star, sphere
from cryodc.templates.spread import simulate_particles as simulate_maps
from cryodc.templates.spread import spread_within, whitening_axes
from cryodc.templates.wedge import ball_moments, fit_correction, wedge_on_best
from tests.templates.small import CPU


def test_a_score_is_the_highest_correlation_over_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a loop over poses of the volume itself, turned by splines of scipy, and the pose that wins there."""
    monkeypatch.setattr(match, "_N_SHIFTED", 10**6)
    generator = torch.Generator().manual_seed(4)
    shape = shapes.random_shapes(1, generator)[0] * sphere()
    volume = torch.randn(1, 16, 16, 16, generator=generator)
    weight = wedge_from_tilt_range(16, -60, 60)[None]
    particles = spectra_of([(volume, weight)], len(volume), CPU)
    ball, noise = fourier_ball(BOX, RADIUS), NoiseModel(torch.linspace(1.0, 3.0, 9))
    seen, measured = ball_spectra(volume * sphere(), ball)[0], ball_weights(weight, ball)[0]
    power = noise.variance(ball)
    search = Search(rotation_grid(90.0).float(), shift_star(0.6, 1))
    found = []
    for rotation in search.rotations:
        for offset in search.shifts:
            # particle(x) = shape(Aᵀ (x + o)): the shape turned, then moved by −o.
            turn, middle = rotation.double().numpy().T, np.full(3, BOX // 2)
            turned = affine_transform(shape.double().numpy(), turn, middle - turn @ middle, order=5)
            placed = fourier_shift(torch.from_numpy(turned).float()[None], -offset[None])
            other = ball_spectra(placed, ball)[0] * measured
            length = (other.abs().square() / power).sum().sqrt()
            found.append((float(((seen.conj() * other).real / power).sum() / length), rotation, offset))
    best = max(found, key=lambda entry: entry[0])
    pose = match_map(particles, shape, search, noise)
    assert float(pose.scores[0]) == pytest.approx(best[0], rel=0.01)
    torch.testing.assert_close(pose.rotations[0], best[1])
    torch.testing.assert_close(pose.shifts[0], best[2])


def test_reading_particles_keeps_their_spectra_and_each_weight_once() -> None:
    """What grows with the number of particles: 594 complex numbers each."""
    n, batch, live = 4096, 256, []
    weight = torch.rand(2, 16, 16, 9, generator=torch.Generator().manual_seed(0))

    def held() -> int:
        tensors = [kept for kept in gc.get_objects() if type(kept) is torch.Tensor]
        return sum({kept.data_ptr(): kept.untyped_storage().nbytes() for kept in tensors}.values())

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(n // batch):
            live.append(held())
            yield torch.zeros(batch, 16, 16, 16), weight[torch.arange(batch) % 2]

    particles = spectra_of(batches(), n, CPU)
    assert len(particles.weights) == 2
    assert (particles.weight_index[2:] == particles.weight_index[:-2]).all()
    assert sorted(particles.weight_index[:2].tolist()) == [0, 1]
    # The place for all spectra is made at the first batch; the rest is of the one batch that is being read.
    assert max(live) - live[1] < 0.1 * particles.spectra.nbytes


def test_simulated_particles_are_recorded_as_the_particles_were() -> None:
    weight = wedge_from_tilt_range(16, -60, 60)
    white = 3.0 * torch.randn(200, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    recorded = apply_weight(white, weight.expand(200, -1, -1, -1))
    particles = spectra_of([(recorded, weight.expand(200, -1, -1, -1))], 200, CPU)
    generator = torch.Generator().manual_seed(1)
    noise = shapes.white_noise(particles)
    maps, lengths = shapes.random_shapes(2, generator), torch.tensor([0.0, 20.0])
    simulated, which = simulate_maps(particles, maps, lengths, 200, noise, generator)
    assert torch.bincount(which).tolist() == [200, 200]
    assert float(simulated.spectra[:, particles.weights[0] == 0].abs().max()) == 0
    measured = particles.measured[0]
    energy = (simulated.spectra.abs().square() / noise.variance(simulated.ball))[:, measured].sum(dim=1)
    n_measured = int(measured.sum())
    # A signal of length 20 adds 20² to the noise, which is 1 in every measured voxel.
    assert float(energy[which == 0].mean()) == pytest.approx(n_measured, rel=0.02)
    assert float(energy[which == 1].median()) == pytest.approx(n_measured + 400, rel=0.1)
    # The mask lets a little of the noise into what was not measured.
    assert float(noise.power[0] * n_measured) == pytest.approx(
        float(particles.spectra[:, measured].abs().square().sum(dim=1).mean()), rel=0.15
    )


def test_axes_are_in_units_of_the_spread_within_a_map() -> None:
    rng = np.random.default_rng(0)
    mixing, label = rng.normal(size=(4, 4)), np.repeat(np.arange(50), 20)
    within = rng.normal(size=(1000, 4)) @ mixing
    covariance = spread_within(within + 5 * rng.normal(size=(50, 4))[label], label)
    np.testing.assert_allclose(covariance, mixing.T @ mixing, atol=0.15 * np.abs(mixing.T @ mixing).max())
    scores = rng.normal(size=(1000, 4)) @ mixing
    np.testing.assert_allclose(np.cov((scores @ whitening_axes(scores, mixing.T @ mixing)).T), np.eye(4), atol=0.15)


def test_a_correction_takes_away_what_the_wedge_does_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    best, seen = rng.integers(0, 2, 400), rng.normal(0.1, 0.02, size=(400, 6))
    slopes, squares = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 3))
    protein = rng.normal(size=(400, 3))
    moved = (seen - 0.1) / 0.02
    effect = np.einsum("nf,nfk->nk", moved, slopes[best]) + moved[:, :1] ** 2 * squares[best]
    linear, quadratic = (
        fit_correction(protein + effect, best, seen, degree).apply(protein + effect, best, seen) for degree in (1, 2)
    )
    assert np.abs(linear - protein).max() > 1.0
    # The mean over a template's particles stays, and with it that of the squares.
    rest = quadratic - protein
    for template in (0, 1):
        rows = best == template
        assert float((rest[rows] - rest[rows].mean(axis=0)).std()) < 0.4
        np.testing.assert_allclose(quadratic[rows].mean(axis=0), (protein + effect)[rows].mean(axis=0), atol=1e-9)
    few = fit_correction(protein[:30] + effect[:30], best[:30], seen[:30], 1)
    np.testing.assert_array_equal(few.apply(protein, best, seen), protein)


def test_the_wedge_is_seen_in_the_frame_of_the_template() -> None:
    """Against moments of the weight turned by the pose: what is missing along z of the box, a particle turned by A has
    along Aᵀ z."""
    weight = wedge_from_tilt_range(16, -60, 60)[None]
    particles = spectra_of([(torch.zeros(5, 16, 16, 16), weight.expand(5, -1, -1, -1))], 5, CPU)
    moments = ball_moments(particles)[0]
    assert moments.diagonal().argmax() == 0
    turns = random_rotations(5, torch.Generator().manual_seed(2))
    poses = empty_poses(5, 2, CPU)
    poses.rotations[:, 1], poses.scores[:, 1] = turns, 1.0
    rows, columns = np.triu_indices(3)
    for turn, seen in zip(turns, wedge_on_best(particles, poses), strict=True):
        found = np.zeros((3, 3))
        found[rows, columns] = found[columns, rows] = seen
        main = np.linalg.eigh(found)[1][:, -1]
        assert abs(float(turn[0].double().numpy() @ main)) == pytest.approx(1.0, abs=1e-3)


def test_scores_of_an_elongated_map_no_longer_tell_the_wedge() -> None:
    """Learned from some particles, taken away from others."""
    generator = torch.Generator().manual_seed(6)
    axis = torch.arange(16) - 8
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    rod = torch.exp(-((z / 4.0) ** 2) - (y / 1.5) ** 2 - (x / 1.5) ** 2)
    weight = wedge_from_tilt_range(16, -50, 50)[None]
    recorded = apply_weight(torch.randn(20, 16, 16, 16, generator=generator), weight.expand(20, -1, -1, -1))
    particles = spectra_of([(recorded, weight.expand(20, -1, -1, -1))], 20, CPU).within(5.0)
    noise = shapes.white_noise(particles)
    maps, search = rod[None] * sphere(), Search(rotation_grid(20.0), shift_star(0.6, 2))
    told = []
    for _ in range(2):
        simulated, _ = simulate_maps(particles, maps, torch.tensor([30.0]), 300, noise, generator)
        poses = empty_poses(300, 1, CPU)
        poses.put(torch.arange(300), 0, match_map(simulated, maps[0], search, noise))
        told.append((poses.scores.double().numpy(), wedge_on_best(simulated, poses)))
    (scores, seen), (others, seen_by_others) = told
    nothing = np.zeros(300, dtype=np.int64)
    corrected = fit_correction(scores, nothing, seen, 2).apply(others, nothing, seen_by_others)
    before, after = (LinearRegression().fit(seen_by_others, s).score(seen_by_others, s) for s in (others, corrected))
    assert before > 0.3
    assert after < 0.1
