import numpy as np
import pytest
import torch

from cryodc.alignment import Alignment, align_class, register_map
from cryodc.fourier import (
    ParticleStack,
    apply_weight,
    fourier_shell_correlation,
    soft_sphere,
    standardise,
    wedge_from_tilt_range,
)
from cryodc.geometry import geodesic_degrees, resample, rotations_from_vectors
from cryodc.maps import average_particles
from cryodc.simulation import SimulationConfig, phantom, simulate_particles
from cryodc.volumes import Volume

N_PARTICLES = 40


@pytest.mark.parametrize("seed", range(3))
def test_a_map_is_turned_back_onto_itself(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    fixed = phantom("bilobe").mean_map(32, 10.0)
    turn = rotations_from_vectors(torch.randn(1, 3, generator=generator) * 1.5)
    move = torch.randn(1, 3, generator=generator)
    moving = resample(fixed[None], turn, move)[0]
    rotation, shift, moved = register_map(Volume(moving.numpy(), 10.0), Volume(fixed.numpy(), 10.0))
    # moving(x) = fixed(T x + s), so fixed(x) = moving(T⁻¹ (x − s)).
    assert geodesic_degrees(rotation, turn[0].double().numpy().T) < 1.0
    np.testing.assert_allclose(shift, -(turn[0].T @ move[0]).numpy(), atol=0.1)
    assert fourier_shell_correlation(torch.from_numpy(moved.voxels), fixed)[1:8].min() > 0.97


def test_maps_on_different_grids_are_refused() -> None:
    voxels = np.zeros((16, 16, 16), np.float32)
    with pytest.raises(ValueError, match="spacings"):
        register_map(Volume(voxels, 10.0), Volume(voxels, 5.0))


@pytest.fixture(scope="module")
def found() -> tuple[Alignment, float]:
    """A class aligned from nothing, and the median pose error in degrees after one rotation for all."""
    config = SimulationConfig(n_per_map=N_PARTICLES, snr=0.3, seed=4)
    made = simulate_particles({"bilobe": phantom("bilobe")}, config)
    volumes = standardise(made.volumes)
    alignment = align_class(ParticleStack(volumes, made.weights, made.weight_index), seed=1, n_starts=2)
    relative = made.poses.rotations.swapaxes(1, 2) @ alignment.rotations.double().numpy()
    errors = np.array([np.median(geodesic_degrees(relative, r[None])) for r in relative])
    halves = alignment.half_sets
    maps = average_particles(
        ParticleStack(volumes, made.weights, made.weight_index), alignment.rotations, alignment.origins_voxels, halves
    )
    truth = made.maps[0]
    *_, moved = register_map(Volume(maps.average.numpy(), 10.0), Volume(truth.numpy(), 10.0))
    mask = soft_sphere(32, 12, 3)
    fsc = fourier_shell_correlation(torch.from_numpy(moved.voxels) * mask, truth * mask)
    below = np.flatnonzero(fsc[1:] < 0.5)
    assert below.size == 0 or (below[0] + 1) / 16 >= 0.4, f"FSC with the truth: {fsc.round(2)}"
    return alignment, float(errors.min())


def test_phantoms_are_aligned_from_nothing(found: tuple[Alignment, float]) -> None:
    alignment, error = found
    assert alignment.aligned
    assert error < 15
    rotations = alignment.rotations
    torch.testing.assert_close(
        rotations @ rotations.transpose(1, 2), torch.eye(3).expand(N_PARTICLES, 3, 3), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("seed", range(2))
def test_noise_behind_a_wedge_is_not_aligned(seed: int) -> None:
    """Every particle lacks the same wedge: a reference that only learns it must not pass for a protein."""
    weight = wedge_from_tilt_range(32, -60, 60)
    noise = torch.randn(24, 32, 32, 32, generator=torch.Generator().manual_seed(100 + seed))
    volumes = standardise(apply_weight(noise, weight))
    alignment = align_class(
        ParticleStack(volumes, weight[None], torch.zeros(24, dtype=torch.long)), seed=seed, n_starts=1
    )
    assert not alignment.aligned
    assert alignment.evidence < 0.2


def test_noise_agrees_only_as_far_as_the_start_it_was_given() -> None:
    """Einstein from noise: halves of nothing share the shells of their start, and no other."""
    weight = wedge_from_tilt_range(24, -60, 60)
    noise = torch.randn(24, 24, 24, 24, generator=torch.Generator().manual_seed(1))
    volumes = standardise(apply_weight(noise, weight))
    stack = ParticleStack(volumes, weight[None], torch.zeros(24, dtype=torch.long))
    start = phantom("clamp").mean_map(24, 10.0)
    coarse, fine = (align_class(stack, seed=1, start=start, start_shells=s) for s in (3.0, 6.0))
    assert fine.fsc[4:6].mean() > coarse.fsc[4:6].mean() + 0.2
    assert not fine.aligned
    assert not coarse.aligned
    with pytest.raises(ValueError, match="no shells are left"):
        align_class(stack, seed=1, start=start, start_shells=8.0)


def test_the_seed_decides_everything() -> None:
    weight = wedge_from_tilt_range(16, -60, 60)
    noise = torch.randn(8, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    volumes = standardise(apply_weight(noise, weight))
    index = torch.zeros(8, dtype=torch.long)
    first, second = (align_class(ParticleStack(volumes, weight[None], index), seed=2, n_starts=1) for _ in range(2))
    torch.testing.assert_close(first.rotations, second.rotations)
    assert first.evidence == second.evidence


def test_three_particles_are_too_few() -> None:
    weight = wedge_from_tilt_range(16, -60, 60)
    with pytest.raises(ValueError, match="at least 4"):
        align_class(ParticleStack(torch.zeros(3, 16, 16, 16), weight[None], torch.zeros(3, dtype=torch.long)))
