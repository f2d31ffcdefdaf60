import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from cryodc.alignment import (
    ClassSpectra,
    NoiseNull,
    References,
    balanced_halves,
    cluster_log_prior,
    make_null,
    score_noise,
)
from cryodc.alignment.evidence import mixture_gain
from cryodc.alignment.null import noise_like
from cryodc.averaging.classification import UNASSIGNED, Classification
from cryodc.averaging.classify import classify_particles, score_particles
from cryodc.averaging.loop import ClassLoop
from cryodc.evaluation import composition_scores
from cryodc.fourier import ParticleStack, apply_weight, standardise
from cryodc.geometry import random_rotations
from cryodc.simulation import SimulatedParticles, SimulationConfig, phantom, simulate_particles

N = 16
N_NOISE = 30


def simulate(*names: str) -> SimulatedParticles:
    config = SimulationConfig(n_per_map=N, snr=0.5, seed=5, box_size=24, spacing_angstrom=13.0)
    return simulate_particles({name: phantom(name) for name in names}, config)


def classify(
    volumes: torch.Tensor, weights: torch.Tensor, clusters: np.ndarray, n_splits: int = 1, junk: bool = False
) -> Classification:
    n = len(volumes)
    found = classify_particles(
        ParticleStack(volumes, weights, torch.zeros(n, dtype=torch.long)),
        torch.from_numpy(clusters),
        torch.ones(n),
        torch.from_numpy(balanced_halves(n, 1)),
        seed=1,
        n_starts=1,
        n_splits=n_splits,
        junk=junk,
    )
    assert found is not None
    return found


@pytest.fixture(scope="module")
def sorted_anew() -> tuple[SimulatedParticles, Classification]:
    """Two proteins, one particle in four in the wrong cluster, and a few particles of nothing."""
    made = simulate("wheel", "clamp")
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(N_NOISE, *made.volumes.shape[1:], generator=generator)
    volumes = torch.cat([standardise(made.volumes), standardise(apply_weight(noise, made.weights[0]))])
    clusters = np.concatenate([made.labels, np.arange(N_NOISE) % 2])
    clusters[::4] = 1 - clusters[::4]
    return made, classify(volumes, made.weights, clusters, 0, junk=True)


def test_particles_in_wrong_clusters_are_put_right(sorted_anew: tuple[SimulatedParticles, Classification]) -> None:
    made, found = sorted_anew
    assert found.scores.shape[1] == 2
    assert composition_scores(found.labels[: 2 * N].numpy(), made.labels).ari == 1.0


def test_particles_of_nothing_belong_to_no_class(sorted_anew: tuple[SimulatedParticles, Classification]) -> None:
    _, found = sorted_anew
    # 1 % are said to pass: of 30, 3 or more would by chance in three runs of a thousand.
    assert int((found.labels[2 * N :] != UNASSIGNED).sum()) < 3
    assert (found.labels[: 2 * N] != UNASSIGNED).all()


def test_probabilities_add_up_and_agree_with_labels(sorted_anew: tuple[SimulatedParticles, Classification]) -> None:
    _, found = sorted_anew
    torch.testing.assert_close(found.posterior.sum(dim=1), torch.ones(len(found.labels)))
    assigned = found.labels != UNASSIGNED
    assert (found.posterior.argmax(dim=1)[assigned] == found.labels[assigned]).all()


def test_particles_that_made_no_reference_are_told_apart(
    sorted_anew: tuple[SimulatedParticles, Classification],
) -> None:
    made, found = sorted_anew
    config = SimulationConfig(n_per_map=6, snr=0.5, seed=9, box_size=24, spacing_angstrom=13.0)
    others = simulate_particles({name: phantom(name) for name in ("wheel", "clamp")}, config)
    labels, _, _ = score_particles(
        found, ParticleStack(standardise(others.volumes), others.weights, others.weight_index)
    )
    true = np.concatenate([made.labels, others.labels])
    assert composition_scores(np.concatenate([found.labels[: 2 * N].numpy(), labels.numpy()]), true).ari == 1.0


def test_gold_sets_nobody_elses_bar() -> None:
    """Beads correlate strongly with any map. Were they the measure of nothing, every protein would be nothing."""
    made = simulate("wheel", "clamp")
    grid = torch.stack(torch.meshgrid(*[torch.arange(24.0) - 12] * 3, indexing="ij"), dim=-1)
    generator = torch.Generator().manual_seed(3)
    moved = 2 * torch.rand(10, 3, generator=generator) - 1
    beads = ((grid[None] - moved[:, None, None, None]).norm(dim=-1) < 3).float()
    noise = torch.randn(beads.shape, generator=generator)
    gold = apply_weight(20 * beads + noise, made.weights[0])
    volumes = torch.cat([standardise(made.volumes), gold / standardise(noise).std()])
    clusters = np.concatenate([made.labels, np.full(len(gold), 2)])
    found = classify(volumes, made.weights, clusters, 0, junk=True)
    proteins = found.labels[: 2 * N].numpy()
    assert (proteins != UNASSIGNED).all()
    assert composition_scores(proteins, made.labels).ari == 1.0


def test_a_cluster_that_gives_no_reference_keeps_its_members() -> None:
    made = simulate("wheel")
    noise = torch.randn(N, *made.volumes.shape[1:], generator=torch.Generator().manual_seed(4))
    volumes = torch.cat([standardise(made.volumes), standardise(apply_weight(noise, made.weights[0]))])
    found = classify(volumes, made.weights, np.repeat([0, 1], N), 0, junk=True)
    assert found.unaligned == (1,)
    assert found.scores.shape[1] == len(found.references) == 1
    assert (found.labels[:N] == 0).all()
    # They are no class 0 of the STAR, where particles of many kinds would be lost together.
    assert (found.labels[N:] == 1).float().mean() > 0.9
    assert (found.labels != UNASSIGNED).all()


def test_a_class_takes_from_an_unaligned_cluster_only_what_it_explains_as_its_own() -> None:
    """A protein that gave no reference fits another's better than noise does, and is none of it all the same."""
    made = simulate("wheel", "clamp")
    halves = torch.from_numpy(balanced_halves(2 * N, 1))
    stack = ParticleStack(standardise(made.volumes), made.weights, made.weight_index)
    labels = torch.from_numpy(made.labels)
    loop = ClassLoop(stack, labels, halves, 1, lambda text: None, None)
    assert loop.start(torch.ones(2 * N), 1)
    # As if the second had not been aligned.
    loop._keep([0])
    loop.unaligned, loop.idle = [1], labels == 1
    loop.run(3, (1.0,), ())
    found = loop.result(True)
    assert found.unaligned == (1,)
    assert (found.labels[labels == 0] == 0).all()
    assert (found.labels[labels == 1] == 1).float().mean() > 0.9


def test_particles_of_nothing_pass_as_rarely_as_is_said() -> None:
    """However bright: noise of 1 and 10 times the strength, against two references that it has not made."""
    made = simulate("wheel", "clamp")
    generator = torch.Generator().manual_seed(5)
    strength = torch.tensor([1.0, 10.0]).repeat(60)
    noise = torch.randn(120, *made.volumes.shape[1:], generator=generator) * strength[:, None, None, None]
    stack = ParticleStack(apply_weight(noise, made.weights[0]), made.weights, torch.zeros(120, dtype=torch.long))
    particles = ClassSpectra(stack, 7.0)
    halves = torch.from_numpy(balanced_halves(120, 0))
    maps = made.maps[:, None].expand(-1, 2, -1, -1, -1) * particles.mask
    references = References(maps, torch.ones(2, 13))
    null, on_noise = make_null(particles, halves, references, 7.0, 7.0, generator)
    scores = score_noise(particles, halves, references, 7.0, 7.0, generator)
    excess = null.excess(scores, on_noise).amax(dim=1)
    # 1 % are said to pass: of 120, 7 or more would by chance in three runs of ten thousand.
    assert int((excess >= null.critical).sum()) < 7
    # And strength does not matter.
    faint, bright = (float(excess[strength == value].median()) for value in (1.0, 10.0))
    assert abs(faint - bright) < 0.5


def test_a_faint_protein_keeps_its_lower_tail_and_strangers_stay_out() -> None:
    """Excess as it was measured: of noise 1.4 ± 0.7; of a faint protein just above the threshold; of a clear one."""
    nothing = References(torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 3))
    null = NoiseNull(nothing, 1, torch.ones(1), 0.1, critical=3.55, standing=2.8)
    generator = torch.Generator().manual_seed(0)
    noise = 1.4 + 0.7 * torch.randn(100, generator=generator)
    faint, clear = (
        middle + spread * torch.randn(300, generator=generator) for middle, spread in ((3.7, 0.35), (12.0, 1.0))
    )
    assert int((faint < null.critical).sum()) > 80
    assert int((faint < null.threshold(faint)).sum()) <= 3
    assert null.threshold(noise) == null.critical
    assert null.threshold(clear) == null.critical
    assert null.threshold(torch.cat([clear, noise])) == null.critical
    # Strangers beside a faint protein are let in no further than its own tail reaches.
    mixed = null.threshold(torch.cat([faint, noise]))
    assert int((faint < mixed).sum()) <= 20
    assert int((noise >= mixed).sum()) <= 5


def test_one_protein_in_two_clusters_becomes_one_class() -> None:
    made = simulate("clamp")
    clusters = np.random.default_rng(0).integers(0, 2, N)
    assert classify(standardise(made.volumes), made.weights, clusters).scores.shape[1] == 1


def test_two_proteins_in_one_cluster_become_two_classes() -> None:
    made = simulate("wheel", "clamp")
    found = classify(standardise(made.volumes), made.weights, np.zeros(2 * N, dtype=np.int64))
    assert composition_scores(found.labels.numpy(), made.labels).ari == 1.0


def test_noise_is_nothing_to_classify_with() -> None:
    made = simulate("clamp")
    noise = torch.randn(made.volumes.shape, generator=torch.Generator().manual_seed(0))
    found = classify_particles(
        ParticleStack(standardise(apply_weight(noise, made.weights[0])), made.weights, made.weight_index),
        torch.zeros(N, dtype=torch.long),
        torch.ones(N),
        torch.from_numpy(balanced_halves(N, 0)),
        n_starts=1,
    )
    assert found is None


def test_prior_is_what_a_cluster_holds() -> None:
    generator = np.random.default_rng(0)
    posterior = generator.dirichlet(np.ones(3), 10)
    clusters = np.array([0, 1] * 5)
    expected = np.empty((10, 3))
    for i in range(10):
        counts = 1.0 + sum(posterior[j] for j in range(10) if clusters[j] == clusters[i])
        expected[i] = np.log(counts / counts.sum())
    found = cluster_log_prior(torch.from_numpy(posterior), torch.from_numpy(clusters))
    np.testing.assert_allclose(found.numpy(), expected)


def test_mixture_gain_is_the_log_of_a_sum() -> None:
    scores = np.random.default_rng(1).normal(5, 1, (12, 2))
    gain = 0.5 * scores**2
    share = np.exp(gain - logsumexp(gain, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(
        mixture_gain(torch.from_numpy(scores)).numpy(), logsumexp(gain, axis=1, b=share), rtol=1e-6
    )


def test_noise_like_a_map_has_its_power_in_every_shell_and_not_its_phases() -> None:
    volume = phantom("wheel").mean_map(16, 20.0)
    made = [noise_like(volume, torch.Generator().manual_seed(seed)) for seed in range(20)]
    q = np.fft.fftfreq(16) * 16
    shells = np.rint(np.sqrt(q[:, None, None] ** 2 + q[:, None] ** 2 + q**2)).astype(int).ravel()
    power = [np.bincount(shells, np.square(np.abs(np.fft.fftn(v.double().numpy()))).ravel()) for v in (volume, *made)]
    np.testing.assert_allclose(power[1:], np.tile(power[0], (20, 1)), rtol=1e-4)
    # Of independent phases likeness is as often negative as positive.
    alike = [float(np.corrcoef(noise.flatten(), volume.flatten())[0, 1]) for noise in made]
    assert abs(np.mean(alike)) < 0.15
    assert np.max(np.abs(alike)) < 0.6


def test_a_share_of_a_particle_counts_as_that() -> None:
    made = simulate("clamp")
    particles = ClassSpectra(ParticleStack(made.volumes, made.weights, made.weight_index), 6.0)
    rows, turns = torch.arange(3), random_rotations(3, torch.Generator().manual_seed(0))
    shares = torch.tensor([0.2, 1.0, 0.5])
    moves = torch.zeros(3, 3)
    together = particles.sums(rows, turns, moves, 6.0, shares)
    for place in (0, 1):
        alone = [particles.sums(rows[i : i + 1], turns[i : i + 1], moves[i : i + 1], 6.0)[place] for i in range(3)]
        expected = sum(share * part for share, part in zip(shares, alone, strict=True))
        torch.testing.assert_close(together[place], expected, rtol=1e-4, atol=1e-3)
