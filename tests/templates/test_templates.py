"""Content codes made of templates: scores, their spread, and what is learned from particles without labels or poses."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score

from cryodc.alignment import PoseSet, empty_poses
from cryodc.clustering import cluster_codes, cluster_run
from cryodc.codes import Codes
from cryodc.dataset import SubtomogramDataset
from cryodc.errors import InputError
from cryodc.evaluation import LinearProbe, disentangle_labels, wedge_in_reference
from cryodc.fourier import (
    NoiseModel,
    apply_weight,
    ball_spectra,
    ball_weights,
    fourier_ball,
    fourier_crop,
    fourier_shift,
    missing_moments,
    standardise,
    wedge_from_tilt_range,
)
from cryodc.geometry import geodesic_degrees, random_rotations, rotation_grid, symmetry_rotations
from cryodc.io import read_volume
from cryodc.models import TemplateConfig, preset_config
from cryodc.runs import RunFolder, load_codes, save_codes
from cryodc.simulation import SimulatedParticles, SimulationConfig, demo_phantoms, phantom, simulate_particles
from cryodc.templates import (
    BOX,
    add_template_code,
    codes_of_templates,
    conformation_axes,
    learn,
    load_template_decoder,
    match,
    shapes,
    spectra_of,
)
from cryodc.templates.decoder import TemplateDecoder
from cryodc.templates.group_poses import register_group
from cryodc.templates.groups import N_PLACE, TemplateGroups, place_code
from cryodc.templates.learn import learn_templates
from cryodc.templates.match import RADIUS, Search, match_map, particle_spectra, shift_star, sphere
from cryodc.templates.matcher import TemplateCode
from cryodc.templates.spread import simulate_particles as simulate_maps
from cryodc.templates.spread import spread_within, whitening_axes
from cryodc.templates.wedge import ball_moments, fit_correction, wedge_on_best
from cryodc.volumes import Volume
from tests.simulated import as_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def two_phantoms() -> tuple[SubtomogramDataset, np.ndarray]:
    config = SimulationConfig(n_per_map=50, box_size=20, spacing_angstrom=16.0, snr=0.3, max_shift_voxels=0.5, seed=1)
    phantoms = demo_phantoms()
    chosen = {name: phantoms[name] for name in ("wheel", "barrel")}
    particles = simulate_particles(chosen, config)
    order = torch.randperm(len(particles.volumes), generator=torch.Generator().manual_seed(0))
    weight_index = torch.as_tensor(particles.weight_index)[order]
    return as_dataset(particles.volumes[order], particles.weights, weight_index), particles.labels[order.numpy()]


@pytest.fixture
def small_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shapes, "N_SHAPES", 24)
    patch.setattr(shapes, "_N_SIMULATED", 30)
    patch.setattr(shapes, "_N_CALIBRATING", 60)
    patch.setattr(shapes, "_STEP_DEGREES", 30.0)
    patch.setattr(match, "STEP_DEGREES", 30.0)
    patch.setattr(learn, "_N_SIMULATED", 60)


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


@pytest.fixture(scope="module")
def learned(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, Codes]:
    """A run folder with templates, a stale one removed, and codes made of them."""
    dataset, _ = two_phantoms
    run = RunFolder(tmp_path_factory.mktemp("templates") / "run")
    stale = run.templates / "template099.mrc"
    stale.parent.mkdir(parents=True)
    stale.touch()
    config = TemplateConfig(n_templates=3, particles_per_template=30)
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        return run, add_template_code(run, dataset, codes_of(dataset.names, None), config, 2, CPU)


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


def test_templates_tell_two_phantoms_apart_without_poses(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], learned: tuple[RunFolder, Codes]
) -> None:
    labels, points = two_phantoms[1], learned[1].content_points
    assert len(points) == len(labels)
    clusters = cluster_codes(learned[1], 2, seed=0)
    assert adjusted_rand_score(labels, clusters.labels) > 0.9
    # Particles of one phantom lie about 1 from one another on each axis, as was simulated.
    spread = np.sqrt(np.diag(spread_within(points.astype(np.float64), labels)))
    assert np.all((spread > 0.5) & (spread < 2.0))


def test_a_run_keeps_its_templates_and_clusters_by_them(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], learned: tuple[RunFolder, Codes]
) -> None:
    (dataset, labels), (run, codes) = two_phantoms, learned
    files = sorted(run.templates.glob("*.mrc"))
    assert [file.name for file in files] == [f"template{k + 1:03d}.mrc" for k in range(len(files))]
    template = read_volume(files[0])
    assert template.box_size == BOX
    # The box is as wide as the particles' own.
    assert template.spacing_angstrom * BOX == pytest.approx(dataset.box_size * 20.0)
    save_codes(run, codes)
    loaded = load_codes(run)
    assert loaded.template_content is not None
    decoder = load_template_decoder(run, CPU)
    assert decoder is not None
    own = codes_of_templates(loaded)
    decoded = decoder.decode(torch.from_numpy(own.content), torch.from_numpy(own.transformation))
    assert decoded.shape == (len(labels), BOX, BOX, BOX)
    (run.templates / "groups.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="damaged"):
        load_template_decoder(run, CPU)
    np.testing.assert_array_equal(loaded.template_content, codes.content_points)
    np.testing.assert_array_equal(loaded.transformation_told, codes.transformation_told)
    rows = "".join(f"{name} 1\n" for name in dataset.names)
    run.particles.write_text(f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n{rows}")
    assert adjusted_rand_score(labels, cluster_run(run, 2).labels) > 0.9
    chosen = codes.select(codes.names[::-1])
    np.testing.assert_array_equal(chosen.content_points, codes.content_points[::-1])
    np.testing.assert_array_equal(chosen.transformation_points, codes.transformation_points[::-1])


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
    config = SimulationConfig(n_per_map=120, box_size=20, spacing_angstrom=16.0, snr=0.5, max_shift_voxels=1.0, seed=5)
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
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (120, 1, 1)), atol=1e-4)
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
        "protein", moving.placed, moving.placed, moving.truth.labels, np.zeros(240, dtype=np.int64)
    )
    assert found.transformation is not None
    assert found.transformation.corrected < 0.25


def test_content_codes_do_not_tell_the_wedge_on_the_particle(moving: Moving) -> None:
    """Within each protein, seen from true poses, by a probe that is judged on particles it was not fitted to."""
    truth = moving.truth
    moments = missing_moments(truth.weights[0]).numpy()
    seen = np.zeros((240, 9))
    for label, group in ((0, "C1"), (1, "C2")):
        own = truth.labels == label
        seen[own] = wedge_in_reference(truth.poses.rotations[own], np.tile(moments, (120, 1, 1)), group)
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


def test_without_axes_particles_of_a_group_in_one_pose_are_decoded_alike(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], small_bank: None
) -> None:
    dataset, labels = two_phantoms
    found = learn_templates(dataset, TemplateConfig(n_templates=2, particles_per_template=20, n_axes=0), seed=0)
    assert found is not None
    assert conformation_axes(found.placed, 2)[0].shape == (0, N_PLACE)
    content, first_pose = torch.from_numpy(found.points), torch.from_numpy(found.placed[:1]).expand(len(labels), -1)
    decoded = TemplateDecoder(found.groups).decode(content, first_pose).flatten(1)
    alike = np.corrcoef(decoded.numpy()) > 0.9999
    # No more volumes than groups, and the groups are the phantoms.
    assert len(np.unique(alike, axis=0)) == 2
    assert (alike == (labels[:, None] == labels)).mean() > 0.95


def test_the_same_seed_gives_the_same_points(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], small_bank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "_STEP_DEGREES", 60.0)
    monkeypatch.setattr(shapes, "_N_CALIBRATING", 20)
    particles = particle_spectra(two_phantoms[0], CPU)
    first, second, other = (shapes.shape_points(particles, 4, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_noise_has_no_templates(small_bank: None) -> None:
    weight = wedge_from_tilt_range(16, -60, 60)[None]
    noise = torch.randn(40, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    dataset = as_dataset(apply_weight(noise, weight.expand(40, -1, -1, -1)), weight, torch.zeros(40, dtype=torch.long))
    said: list[str] = []
    config = TemplateConfig(n_templates=2, particles_per_template=20)
    assert learn_templates(dataset, config, progress=said.append) is None
    assert sum("not aligned" in line for line in said) >= 1


def test_codes_without_templates_are_those_of_the_network(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    codes = codes_of(("a", "b"), None)
    save_codes(run, codes)
    loaded = load_codes(run)
    assert loaded.template_content is None
    np.testing.assert_array_equal(loaded.content_points, codes.content_points)
    assert loaded.template_pose is None
    np.testing.assert_array_equal(loaded.transformation_told, codes.transformation)
    with pytest.raises(ValueError, match="template_content: expected 2 rows of finite values"):
        codes_of(("a", "b"), np.full((2, 1), np.nan, dtype=np.float32))


def test_too_few_particles_have_no_templates(two_phantoms: tuple[SubtomogramDataset, np.ndarray]) -> None:
    dataset, _ = two_phantoms
    assert learn_templates(dataset, TemplateConfig()) is None
    assert learn_templates(dataset, TemplateConfig(n_templates=1, particles_per_template=10)) is None


def test_only_our_own_preset_has_templates() -> None:
    assert preset_config("default", 32).templates.n_templates > 0
    assert preset_config("paper", 32).templates.n_templates == 0
    assert preset_config("digits", 28).templates.n_templates == 0
    assert preset_config("default", 32, {"model": {"name": "vae"}}).templates.n_templates == 0


def codes_of(names: tuple[str, ...], matched: np.ndarray | None) -> Codes:
    content = random_codes(len(names))
    return Codes(names, content, content, content, content, True, matched)


def random_codes(n: int) -> np.ndarray:
    return random_rotations(n, torch.Generator().manual_seed(0)).reshape(n, 9)[:, :4].numpy().astype(np.float32)
