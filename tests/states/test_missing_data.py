"""Axes of variation of particles whose orientations leave parts of Fourier space unmeasured."""

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryodc.fourier import (
    apply_weight,
    fine_spectrum,
    fourier_ball,
    phase_ramps,
    slices,
    soft_sphere,
    standardise,
    volume_from_ball,
    wedge_from_tilt_range,
)
from cryodc.geometry import random_rotations
from cryodc.simulation import phantom
from cryodc.states import average_of, fit_axes, measure
from cryodc.states.measurements import Measurements
from cryodc.states.missing_data import AxisModel

_BOX, _N = 16, 120


def about_the_beam(most_degrees: float) -> Tensor:
    """Rotations about z only, up to an angle in both directions."""
    degrees = most_degrees * (2 * torch.rand(_N, 1, generator=torch.Generator().manual_seed(1)).numpy() - 1)
    xyz = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    return torch.from_numpy(xyz[:, ::-1, ::-1].copy()).float()


def measured(rotations: Tensor, believed: Tensor, snr: float, tilt: float = 40.0) -> tuple[Measurements, Tensor]:
    """What copies of one map in these poses say beyond their average, and the average, in the poses believed."""
    generator = torch.Generator().manual_seed(2)
    ball = fourier_ball(_BOX, _BOX / 2 - 1.0)
    volume = phantom("wheel").mean_map(_BOX, 20.0)
    parts = slices(fine_spectrum(volume[None])[0], ball, rotations)
    spectra = torch.complex(parts[:, 0], parts[:, 1]) * phase_ramps(ball, torch.zeros(len(rotations), 3))
    clean = torch.stack([volume_from_ball(values, ball) for values in spectra])
    noisy = clean + clean.std() / snr**0.5 * torch.randn(clean.shape, generator=generator)
    weights = wedge_from_tilt_range(_BOX, -tilt, tilt).expand(len(rotations), -1, -1, -1)
    volumes = standardise(apply_weight(noisy, weights))
    origins = torch.zeros(len(rotations), 3)
    found, average = measure(lambda: [(volumes, weights, believed, origins)], soft_sphere(_BOX, 6.0, 2.0), 6)
    return found.relative_to(average_of(found)), average


def read(particles: Measurements) -> tuple[Tensor, Tensor]:
    """Data and power of all."""
    parts = list(particles.parts())
    return torch.cat([data for _, data, _ in parts]), torch.cat([power for _, _, power in parts])


def axes_of(particles: Measurements) -> AxisModel:
    return fit_axes(particles, 5, torch.Generator().manual_seed(0))[0]


@pytest.mark.parametrize("snr", [0.1, 1.0, 5.0])
def test_copies_in_one_single_orientation_have_no_axes(snr: float) -> None:
    """All miss the same wedge, in which no particle says anything."""
    rotations = about_the_beam(0.0)
    particles, average = measured(rotations, rotations, snr)
    model = axes_of(particles)
    assert float(model.maps.abs().max()) < 1e-3 * float(average.abs().max())
    assert float(model.posterior(particles)[0].std(dim=0).max()) < 0.05


@pytest.mark.parametrize("most_degrees", [180.0, 20.0])
@pytest.mark.parametrize("snr", [1.0, 5.0])
def test_axes_of_particles_seen_along_the_beam_stay_within_the_map(most_degrees: float, snr: float) -> None:
    """Poses that are found may be those of another particle; no difference is then larger than the map itself."""
    rotations = about_the_beam(most_degrees)
    other = torch.randperm(_N, generator=torch.Generator().manual_seed(5))
    particles, average = measured(rotations, rotations[other], snr)
    model = axes_of(particles)
    assert float(model.maps.abs().max()) < 1.5 * float(average.abs().max())
    assert bool(torch.isfinite(model.posterior(particles)[0]).all())


def test_a_voxel_that_no_particle_measures_says_nothing() -> None:
    rotations = about_the_beam(0.0)
    particles, _ = measured(rotations, rotations, 1.0)
    data, power = read(particles)
    unmeasured = power.sum(dim=0) == 0
    assert int(unmeasured.sum()) > 50
    assert float(data[:, unmeasured].abs().max()) == 0


def test_data_of_voxels_that_all_views_measure_are_kept_to_the_bit() -> None:
    rotations = random_rotations(_N, torch.Generator().manual_seed(3))
    particles, average = measured(rotations, rotations, 1.0, tilt=60.0)
    other = particles.relative_to(average)
    data, power = read(particles)
    assert torch.equal(read(other)[0], data - power * average)
