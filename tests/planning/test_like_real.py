"""Real particles measured: ribosomes of tilt series, boxes without weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cryodc.dataset import ParticleReader
from cryodc.fourier import ParticleStack, fine_spectrum, fourier_ball, predict, stack_spectra
from cryodc.io import read_volume
from cryodc.particles import ParticleSet, read_particles
from cryodc.planning import LikeRequest, MeasureRequest, measure_particles, write_like
from cryodc.simulation import (
    SimulatedTiltSeries,
    SimulationConfig,
    choose_proteins,
    simulate_particles,
    write_simulation,
)
from cryodc.volumes import Volume
from tests.planning.recorded import BARREL, BOX, SPACING, power_by_kind


def seen_in_poses(
    particles: ParticleSet, reference: torch.Tensor, rotations: torch.Tensor, shifts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Squared amplitude of a map in particles in their poses, and power of the map and of the particles, by shell."""
    reader = ParticleReader(particles)
    volumes, weights = reader.read(0, len(particles))
    ball = fourier_ball(particles.box_size, particles.box_size / 2 - 1)
    stack = ParticleStack(volumes, weights, torch.from_numpy(reader.weight_index))
    spectra = stack_spectra(stack, ball)
    model = predict(fine_spectrum(reference[None])[0], ball, spectra.own_weights, rotations, shifts)
    power = ball.shell_mean(model.abs().square().mean(dim=0))
    along = ball.shell_mean((spectra.spectra * model.conj()).real.mean(dim=0)) / power.clamp_min(1e-12)
    count = torch.bincount(ball.shells, minlength=len(power))
    return along.square(), power * count, ball.shell_mean(spectra.spectra.abs().square().mean(dim=0)) * count


def test_the_strength_of_proteins_in_tilt_series_is_what_their_true_poses_show(tmp_path: Path) -> None:
    config = SimulationConfig(40, BOX, SPACING, 0.1, tilt_series=SimulatedTiltSeries(), seed=4)
    truth = write_simulation(BARREL, config, tmp_path / "sim")
    star = tmp_path / "sim" / "particles.star"
    rotations = torch.from_numpy(truth.poses.rotations).float()
    shifts = torch.from_numpy(truth.poses.origins_angstrom / SPACING).float()
    clean = simulate_particles(BARREL, SimulationConfig(1, BOX, SPACING)).maps[0]
    seen, power, _ = seen_in_poses(read_particles(star), clean, rotations, shifts)
    expected = float((seen * power)[1:].sum() / power[1:].sum())
    recorded = measure_particles(MeasureRequest(star), BARREL)
    assert recorded.squared_amplitudes.mean() == pytest.approx(expected, rel=0.5)


def test_the_snr_of_real_ribosomes_is_what_their_published_average_explains(shared_data: Path) -> None:
    """Noise is stronger in the middle of these boxes than near their faces; that is no protein (SNR 0.19)."""
    star = shared_data / "real" / "ribosome70s" / "particles.star"
    particles = read_particles(star)
    assert particles.poses is not None
    # The published average is mirrored in z.
    published = read_volume(shared_data / "real" / "ribosome70s" / "published_average.mrc").voxels
    reference = torch.from_numpy(np.roll(published[::-1], 1, axis=0).copy())
    rotations = torch.from_numpy(particles.poses.rotations).float()
    seen, power, total = seen_in_poses(particles, reference - reference.mean(), rotations, torch.zeros(40, 3))
    protein = float((seen * power)[1:].sum())
    explained = protein / (float(total[1:].sum()) - protein)
    ribosome = choose_proteins(None, [shared_data / "maps" / "4v4r.mrc.gz"])
    assert explained / 2 < measure_particles(MeasureRequest(star), ribosome).snr < 2 * explained


def test_made_ribosomes_have_the_power_of_real_ones_in_every_shell_at_every_weight(
    shared_data: Path, tmp_path: Path
) -> None:
    star = shared_data / "real" / "ribosome70s" / "particles.star"
    ribosome = choose_proteins(None, [shared_data / "maps" / "4v4r.mrc.gz"])
    recorded = measure_particles(MeasureRequest(star), ribosome)
    assert set(recorded.noise.groups) == {f"Unt_{name}.tomostar" for name in ("050", "076", "083", "088")}
    write_like(recorded, tmp_path / "like")
    real, made = (power_by_kind(read_particles(path)) for path in (star, tmp_path / "like" / "particles.star"))
    populated = [kind for kind, (_, n) in real.items() if n >= 300]
    ratios = np.array([made[kind][0] / real[kind][0] for kind in populated])
    assert np.median(np.abs(np.log(ratios))) < math.log(1.1)
    assert np.abs(np.log(ratios)).max() < math.log(2)
    # Within one shell power falls a hundredfold with the weight, in both.
    for found in (real, made):
        strongest, weakest = (max(found[10, o][0] for o in (-1, -2)), min(found[10, o][0] for o in (-5, -6)))
        assert strongest > 50 * weakest


@pytest.mark.parametrize("name", ["hiv_vlp", "microtubule"])
def test_real_boxes_without_weights_are_measured(shared_data: Path, tmp_path: Path, name: str) -> None:
    star = shared_data / "real" / name / "particles.star"
    given = read_particles(star)
    ball = np.zeros((given.box_size,) * 3, np.float32)
    ball[6:11, 6:11, 6:11] = 1
    recorded = measure_particles(MeasureRequest(star, snr=0.1), {"ball": Volume(ball, given.spacing_angstrom)})
    assert recorded.wedge is not None
    assert "tilt axis y, beam z" in recorded.wedge
    assert recorded.options.tilt_range == pytest.approx((-60, 60), abs=12)
    truth = write_like(recorded, tmp_path / "like", LikeRequest(40))
    assert set(truth.tomograms) == set(given.tomograms)
