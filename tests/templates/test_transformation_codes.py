"""How a particle lies and what it does, told by templates; volumes decoded from it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from cryodc.alignment import PoseSet, References
from cryodc.codes import Codes
from cryodc.evaluation import LinearProbe, disentangle_labels, wedge_in_reference
from cryodc.fourier import (
    NoiseModel,
    ParticleSpectra,
    ball_weights,
    fine_spectrum,
    fourier_ball,
    fourier_crop,
    missing_moments,
    predict,
    standardise,
    wedge_from_tilt_range,
)
from cryodc.geometry import geodesic_degrees, random_rotations, symmetry_rotations
from cryodc.models import TemplateConfig
from cryodc.simulation import SimulatedParticles, SimulationConfig, phantom, simulate_particles
from cryodc.templates import BOX, codes_of_templates, conformation_axes, learn, shapes
from cryodc.templates.decoder import TemplateDecoder
from cryodc.templates.group_poses import poses_on_average, register_group
from cryodc.templates.groups import N_PLACE, TemplateGroups, place_code
from cryodc.templates.learn import learn_templates
from cryodc.templates.match import sphere
from cryodc.templates.matcher import TemplateCode
from cryodc.volumes import Volume
from tests.simulated import as_dataset
from tests.templates.small import random_codes

N_MOVING = 120


def test_a_particle_is_found_on_an_average_wherever_it_was_thought_to_lie() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = shapes.random_shapes(1, generator, fine=True)[0] * sphere()
    ball, n = fourier_ball(BOX, 6.0), 60
    rotations, shifts = random_rotations(n, generator), 0.4 * torch.randn(n, 3, generator=generator)
    weights = ball_weights(wedge_from_tilt_range(BOX, -60, 60)[None], ball)
    index = torch.zeros(n, dtype=torch.long)
    seen = predict(fine_spectrum(volume[None])[0], ball, weights[index], rotations, shifts)
    power = seen.abs().square().mean()
    noisy = seen + power.sqrt() * torch.randn(seen.shape, dtype=seen.dtype, generator=generator) * weights
    particles = ParticleSpectra(ball, noisy, weights, index)
    nowhere = PoseSet(random_rotations(n, generator), torch.zeros(n, 3), torch.zeros(n))
    average = References(torch.stack([volume, volume])[None], torch.zeros(1, BOX // 2 + 1))
    noise, halves = NoiseModel(power.expand(BOX // 2 + 1)), torch.arange(n) % 2 + 1
    found = poses_on_average(particles, halves, average, noise, nowhere, generator)
    away = geodesic_degrees(found.rotations.double().numpy(), rotations.double().numpy())
    assert np.mean(away < 15) > 0.9
    assert float((found.shifts - shifts).norm(dim=1).median()) < 0.3


@dataclass(frozen=True)
class Moving:
    """Two phantoms that move: the truth, and transformation codes learned from the particles alone."""

    truth: SimulatedParticles
    found: TemplateCode
    volumes: torch.Tensor

    @property
    def placed(self) -> np.ndarray:
        return self.found.placed


@pytest.fixture(scope="module")
def moving() -> Moving:
    config = SimulationConfig(
        n_per_map=N_MOVING, box_size=20, spacing_angstrom=16.0, snr=0.5, max_shift_voxels=1.0, seed=5
    )
    truth = simulate_particles({name: phantom(name) for name in ("bilobe", "clamp")}, config)
    dataset = as_dataset(truth.volumes, truth.weights, torch.as_tensor(truth.weight_index))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "N_SHAPES", 48)
        patch.setattr(shapes, "_N_SIMULATED", 60)
        patch.setattr(shapes, "_N_CALIBRATING", 100)
        patch.setattr(learn, "_N_SIMULATED", 60)
        found = learn_templates(dataset, TemplateConfig(n_templates=2, particles_per_template=60), seed=0)
    assert found is not None
    return Moving(truth, found, fourier_crop(standardise(truth.volumes), BOX))


@pytest.mark.parametrize(("label", "group"), [(0, "C1"), (1, "C2")])
def test_transformation_codes_tell_how_a_particle_lies(moving: Moving, label: int, group: str) -> None:
    """Rotations and shifts are those of the truth, up to one frame and one middle for all particles of a protein."""
    own = moving.truth.labels == label
    rotations = moving.placed[own, :9].reshape(-1, 3, 3).astype(np.float64) / np.sqrt(3)
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (N_MOVING, 1, 1)), atol=1e-4
    )
    true, mates = moving.truth.poses.rotations[own], symmetry_rotations(group)
    between = true.transpose(0, 2, 1) @ rotations
    # The frame in which most agree: that of one particle is as good as any.
    errors = [np.min([geodesic_degrees(mate @ frame, between) for mate in mates], axis=0) for frame in between[:20]]
    least = min(errors, key=lambda error: float(np.median(error)))
    assert np.median(least) < 6.0
    assert (least < 15.0).mean() > 0.8
    # Origins, in voxels of 20 Å, are off by A m, with m the same for all, where the average lies off the middle.
    rest = moving.placed[own, 9:12] - moving.truth.poses.origins_angstrom[own] / 20.0
    middle = np.linalg.lstsq(rotations.reshape(-1, 3), rest.reshape(-1), rcond=None)[0]
    assert np.sqrt(np.square(rest - rotations @ middle).mean()) < 0.25


def test_transformation_codes_tell_what_a_particle_does(moving: Moving) -> None:
    """The hinge of the clamp lies along an axis of its own group."""
    clamp = moving.truth.labels == 1
    axes, states = moving.placed[clamp, N_PLACE:], moving.truth.truth.states[clamp]
    told = [abs(float(np.corrcoef(axis, states)[0, 1])) for axis in axes.T if axis.std() > 0.1]
    assert max(told) > 0.9


def test_transformation_codes_do_not_tell_what_a_particle_is(moving: Moving) -> None:
    found = disentangle_labels(
        "protein", moving.placed, moving.placed, moving.truth.labels, np.zeros(2 * N_MOVING, dtype=np.int64)
    )
    assert found.transformation is not None
    assert found.transformation.corrected < 0.25


def test_content_codes_do_not_tell_the_wedge_on_the_particle(moving: Moving) -> None:
    """Within each protein, seen from true poses, by a probe that is judged on particles it was not fitted to."""
    truth = moving.truth
    moments = missing_moments(truth.weights[0]).numpy()
    seen = np.zeros((2 * N_MOVING, 9))
    for label, group in ((0, "C1"), (1, "C2")):
        own = truth.labels == label
        seen[own] = wedge_in_reference(truth.poses.rotations[own], np.tile(moments, (N_MOVING, 1, 1)), group)
    found = LinearProbe(moving.found.points, truth.labels).values(seen)
    assert found.corrected < 0.01


def test_particles_of_a_turned_template_have_the_same_transformation_code() -> None:
    """One map learned twice, the second time turned and off the middle: it is registered on the first."""
    first = phantom("bilobe").mean_map(BOX, 20.0).numpy()
    turn = random_rotations(1, torch.Generator().manual_seed(1))[0].double().numpy()
    middle, off = np.full(3, BOX // 2), np.array([0.8, -0.5, 0.3])
    second = affine_transform(first, turn, middle - turn @ middle + off, order=3)
    found, move = register_group(Volume(second, 1.0), Volume(first, 1.0), 6.0)
    rotations = random_rotations(3, torch.Generator().manual_seed(2))
    shifts = torch.randn(3, 3, generator=torch.Generator().manual_seed(3))
    on_first = place_code(PoseSet(rotations, shifts, torch.ones(3)), torch.eye(3), torch.zeros(3))
    # second(x) = first(turn x + off). The particle first(Aᵀ (x + o)) is second(Bᵀ (x + p)) with B = A turn and
    # turn Bᵀ p + off = Aᵀ o, so p = o − A off.
    there = PoseSet(rotations @ torch.from_numpy(turn).float(), shifts - rotations @ torch.from_numpy(off).float(),
                    torch.ones(3))  # fmt: skip
    on_second = place_code(there, torch.from_numpy(found).float(), torch.from_numpy(move).float())
    torch.testing.assert_close(on_second, on_first, atol=0.15, rtol=0)


def test_unlike_averages_lie_middle_on_middle() -> None:
    """A small ball fits best into the wall of a large shell, but that is not where it belongs."""
    z, y, x = np.indices((BOX, BOX, BOX)) - BOX // 2
    shell = np.exp(-np.square(np.sqrt(z**2 + y**2 + x**2) - 5.0)).astype(np.float32)
    ball = np.exp(-(np.square(z - 1) + y**2 + x**2) / 2.0).astype(np.float32)
    turn, move = register_group(Volume(ball, 1.0), Volume(shell, 1.0), 6.0)
    # The middle of the shell, moved, is the middle of the ball.
    np.testing.assert_allclose(turn @ np.zeros(3) + move, [1.0, 0.0, 0.0], atol=0.1)


def test_a_decoded_group_is_turned_and_shifted_as_a_particle_is() -> None:
    """Against splines of scipy: the average seen at A in the frame of the first group, a standard deviation along."""
    generator = torch.Generator().manual_seed(5)
    maps = torch.stack([phantom(name).mean_map(BOX, 20.0) for name in ("bilobe", "clamp")])
    axes = torch.zeros(2, 1, BOX, BOX, BOX)
    axes[1, 0] = 0.3 * phantom("bar").mean_map(BOX, 20.0)
    turns, moves = random_rotations(2, generator), torch.tensor([[0.0, 0.0, 0.0], [0.5, -1.0, 0.2]])
    turns[0] = torch.eye(3)
    groups = TemplateGroups(np.eye(2, dtype=np.float32), *(part.numpy() for part in (maps, axes, turns, moves)))
    rotations, origins = random_rotations(2, generator), torch.tensor([[1.0, 0.0, -0.5], [0.0, 0.8, 0.0]])
    code = torch.cat([3**0.5 * rotations.flatten(1), origins, torch.tensor([[0.0], [2.0]])], dim=1)
    decoded = TemplateDecoder(groups).decode(torch.tensor([[0.9, 0.2], [0.3, 0.6]]), code).numpy()
    for group, volume in enumerate((maps[0], maps[1] + 2.0 * axes[1, 0])):
        # x_group = turn x_first + move and x_particle = A x_first − o, so x_group = turn Aᵀ (x + o) + move.
        turn = (turns[group] @ rotations[group].T).double().numpy()
        middle = np.full(3, BOX // 2)
        offset = turn @ (origins[group].numpy() - middle) + moves[group].numpy() + middle
        expected = affine_transform(volume.double().numpy(), turn, offset, order=3)
        assert np.corrcoef(decoded[group].ravel(), expected.ravel())[0, 1] > 0.98


def test_a_particle_is_decoded_from_its_own_codes_and_not_from_those_of_others(moving: Moving) -> None:
    n = len(moving.placed)
    codes = Codes(tuple(map(str, range(n))), *4 * (random_codes(n),), True, moving.found.points, moving.placed)
    mine = codes_of_templates(codes)
    decoder = TemplateDecoder(moving.found.groups)
    seen = (moving.volumes * sphere()).flatten(1)

    def likeness(content: np.ndarray, transformation: np.ndarray) -> torch.Tensor:
        decoded = decoder.decode(torch.from_numpy(content), torch.from_numpy(transformation)).flatten(1)
        return torch.nn.functional.cosine_similarity(decoded, seen)

    own = likeness(mine.content, mine.transformation)
    labels = moving.truth.labels
    of_the_other = mine.content[np.where(labels == 0, np.flatnonzero(labels == 1)[0], np.flatnonzero(labels == 0)[0])]
    assert float((own > likeness(of_the_other, mine.transformation)).float().mean()) > 0.95
    assert float((own > likeness(mine.content, np.roll(mine.transformation, 7, axis=0))).float().mean()) > 0.95
    # Along axes of conformation the average lies as it is.
    vectors, shares, upright = conformation_axes(mine.transformation, 2)
    assert np.all(vectors[:, :N_PLACE] == 0)
    assert np.all((shares > 0) & (shares <= 1))
    np.testing.assert_allclose(upright[:N_PLACE], [*np.sqrt(3) * np.eye(3).ravel(), 0, 0, 0])
