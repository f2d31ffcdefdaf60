import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from cryodc.clustering import (
    choose_mixture,
    cluster_codes,
    cluster_run,
    content_features,
    fit_mixture,
    valley_between,
)
from cryodc.clustering.valley import valley_limit, valley_threshold
from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.runs import RunFolder, load_clusters, load_codes, save_codes
from cryodc.star import particle_block, read_star


def make_codes(n_per_class: list[int], seed: int = 0, spread: float = 0.15, dims: int = 16) -> tuple[Codes, np.ndarray]:
    """Codes around one random direction per class, of random length."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(n_per_class)), n_per_class)
    centres = np.linalg.qr(generator.standard_normal((dims, dims)))[0][: len(n_per_class)]
    content = centres[labels] + spread * generator.standard_normal((len(labels), dims))
    content *= generator.uniform(1, 20, (len(labels), 1))
    content = content.astype(np.float32)
    z = generator.standard_normal((len(labels), 3)).astype(np.float32)
    names = tuple(f"p{i}" for i in range(len(labels)))
    return Codes(names, content, z, np.zeros_like(content), np.zeros_like(z)), labels


def test_known_clusters_are_found_whatever_the_length_of_their_codes() -> None:
    codes, labels = make_codes([60, 40, 80, 50])
    clusters = cluster_codes(codes, 4)
    assert adjusted_rand_score(labels, clusters.labels) > 0.98
    assert clusters.sizes == sorted(clusters.sizes, reverse=True)
    assert clusters.stability > 0.95
    assert clusters.names == codes.names


@pytest.mark.parametrize("sizes", [[100, 100], [60, 60, 60, 60], [80, 50, 50, 40, 40, 60]])
def test_auto_finds_the_number(sizes: list[int]) -> None:
    codes, labels = make_codes(sizes, seed=len(sizes))
    clusters = cluster_codes(codes)
    assert clusters.n_clusters == len(sizes)
    assert adjusted_rand_score(labels, clusters.labels) > 0.95


def test_auto_tells_sixteen_proteins_of_unequal_size_apart() -> None:
    # k-means puts two of them into one component and cuts another: each cluster is asked once more by itself.
    generator = np.random.default_rng(1)
    centres = 4 * generator.standard_normal((16, 12))
    labels = np.repeat(np.arange(16), [120 if i % 6 == 0 else 20 for i in range(16)])
    features = content_features(centres[labels] + generator.standard_normal((len(labels), 12)))
    mixture, chosen, trials = choose_mixture(features, seed=0, in_units=True)
    assert chosen.n_clusters == 16
    assert adjusted_rand_score(labels, mixture.predict(features)) == 1.0
    assert trials[15] == chosen


@pytest.mark.parametrize("seed", range(3))
def test_auto_answers_one_on_a_null(seed: int) -> None:
    codes, _ = make_codes([300], seed=seed)
    clusters = cluster_codes(codes)
    assert clusters.n_clusters == 1
    assert "1 class" in clusters.verdict


def arc_codes(n_per_arc: int, seed: int) -> tuple[Codes, np.ndarray]:
    """Three classes whose codes lie along arcs of 60°, 120° apart: what InfoNCE makes of noisy views."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n_per_arc)
    angle = np.deg2rad(120 * labels + generator.uniform(-30, 30, len(labels)))
    content = 0.05 * generator.standard_normal((len(labels), 8))
    content[:, 0] += np.cos(angle)
    content[:, 1] += np.sin(angle)
    content = content.astype(np.float32)
    return Codes(tuple(map(str, range(len(labels)))), content, content, content, content), labels


@pytest.mark.parametrize("seed", range(3))
def test_auto_does_not_cut_arcs_in_pieces(seed: int) -> None:
    codes, labels = arc_codes(150, seed)
    clusters = cluster_codes(codes, seed=seed)
    assert clusters.n_clusters == 3
    assert adjusted_rand_score(labels, clusters.labels) > 0.98
    # BIC alone would have gone on.
    assert min(clusters.trials, key=lambda trial: trial.bic).n_clusters > 3


def test_two_near_pairs_are_four_clusters() -> None:
    """The silhouette is largest at 2; what counts is that no two clusters run into each other."""
    generator = np.random.default_rng(0)
    centres = np.array([[4.0, 0.9], [4.0, -0.9], [-4.0, 0.9], [-4.0, -0.9]])
    labels = np.repeat(np.arange(4), 100)
    content = np.ones((400, 3), dtype=np.float32)
    content[:, :2] = 0.05 * (centres[labels] + 0.3 * generator.standard_normal((400, 2)))
    codes = Codes(tuple(map(str, range(400))), content, content, content, content)
    clusters = cluster_codes(codes)
    assert clusters.n_clusters == 4
    assert max(clusters.trials, key=lambda trial: trial.silhouette).n_clusters == 2


def test_the_valley_is_that_of_the_density() -> None:
    """Two Gaussians 4σ apart: the density in the middle is 2 exp(-2) of a peak; one Gaussian cut in two has none."""
    generator = np.random.default_rng(1)
    points = generator.standard_normal((20_000, 2))
    x = points[:, 0]
    assert valley_between(x[::2] + 4.0, x[1::2]) == pytest.approx(2 * np.exp(-2), abs=0.05)
    assert valley_between(x[x > 0], x[x <= 0]) > 0.95
    # Of three clusters the two that are least apart count, along the line between them.
    labels = np.arange(20_000) % 3
    centres = np.array([[0.0, 0.0], [0.0, 4.0], [12.0, 0.0]])
    limit, threshold = valley_limit(points + centres[labels], labels, np.eye(2), seed=0)
    assert threshold == 0.7
    assert limit == pytest.approx(2 * np.exp(-2), abs=0.08)


def test_the_limit_of_a_valley_covers_what_is_there() -> None:
    """Of 30 + 30 draws of two Gaussians 3σ apart, the limit lies above the analytic 2 exp(-9/8) nearly always."""
    labels = np.arange(60) % 2
    centres = 3.0 * labels[:, None] * np.array([1.0, 0.0])
    covered = [
        valley_limit(np.random.default_rng(seed).standard_normal((60, 2)) + centres, labels, np.eye(2), seed)[0]
        > 2 * np.exp(-9 / 8)
        for seed in range(40)
    ]
    assert np.mean(covered) >= 0.9


def test_chance_valleys_of_one_small_cluster_are_not_taken_for_two() -> None:
    """Hundreds of points of one Gaussian, cut in two where that looks deepest, hardly ever fall below 0.7."""
    limits = []
    for seed in range(20):
        points = np.random.default_rng(seed).standard_normal((250, 8))
        mixture = fit_mixture(points, 2, seed, n_starts=1)
        labels = mixture.predict(points)
        limits.append(valley_limit(points, labels, mixture.precisions_, seed)[0])
    assert np.mean(np.array(limits) <= 0.7) <= 0.1


def test_what_is_asked_of_a_valley_is_what_noise_leaves_in_it() -> None:
    """Two proteins that spread twice as far as noise alone has them, so many units apart."""
    draws = np.random.default_rng(4).standard_normal((2, 100_000))
    for gap in (5.9, 6.3):
        assert valley_between(2 * draws[0] + gap, 2 * draws[1]) == pytest.approx(valley_threshold(gap), abs=0.03)
    assert [valley_threshold(gap) for gap in (0.0, 5.7, 6.8, 20.0)] == [0.7, 0.7, 0.5, 0.5]


@pytest.mark.parametrize("seed", range(4))
def test_a_protein_that_moves_is_one_cluster(seed: int) -> None:
    """Codes flatten towards the ends of its motion, so that more particles are found there; another protein is by."""
    generator = np.random.default_rng(seed)
    noise, swing = generator.standard_normal((500, 3)), 5.0 * np.tanh(2.0 * generator.uniform(-1, 1, size=250))
    noise[:250, 0] += swing
    noise[250:, 1] += 15.0
    features = content_features(noise.astype(np.float32))
    assert choose_mixture(features, seed, in_units=True)[1].n_clusters == 2
    # Where nobody is in between, the ends are two proteins.
    noise[:250, 0] += np.where(swing > 0, 4.0, -4.0) - swing
    features = content_features(noise.astype(np.float32))
    assert choose_mixture(features, seed, in_units=True)[1].n_clusters == 3


def test_a_number_that_the_codes_do_not_support_is_called_unstable() -> None:
    codes, _ = make_codes([200])
    clusters = cluster_codes(codes, 5)
    assert clusters.stability < 0.85
    assert "depend on which particles are there" in clusters.verdict


def test_identical_codes_are_one_cluster() -> None:
    same = np.ones((30, 4), dtype=np.float32)
    codes = Codes(tuple(map(str, range(30))), same, same, same, same)
    assert cluster_codes(codes).n_clusters == 1
    assert content_features(same).shape == (30, 1)


@pytest.mark.parametrize("k", [0, 31, -1])
def test_an_impossible_number_is_refused(k: int) -> None:
    codes, _ = make_codes([30])
    with pytest.raises(InputError, match="1 to 30"):
        cluster_codes(codes, k)


def test_same_seed_same_clusters() -> None:
    codes, _ = make_codes([40, 40], spread=0.6)
    first, second = cluster_codes(codes, 3, seed=5), cluster_codes(codes, 3, seed=5)
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    codes, _ = make_codes([30, 50])
    rows = [f"img/{name}.mrc  \t 7.0" for name in codes.names]
    folder.particles.write_text("# kept\n\ndata_\n\nloop_\n_rlnImageName #1\n_rlnMagic #2\n" + "\n".join(rows) + "\n")
    save_codes(folder, codes)
    return folder


def test_a_clustered_run_holds_stars_that_agree_with_the_summary(run: RunFolder) -> None:
    clusters = cluster_run(run, 2)
    summary = json.loads((run.clusters / "summary.json").read_text())
    assert summary["sizes"] == [50, 30]
    assert summary["requested"] == 2
    block = particle_block(read_star(run.clusters / "clusters.star"))
    assert block.column("rlnClassNumber") == [str(label + 1) for label in clusters.labels]
    assert block.column("rlnMagic") == ["7.0"] * 80
    assert (run.clusters / "clusters.star").read_text().startswith("# kept\n")
    for label in range(2):
        rows = particle_block(read_star(run.clusters / f"class{label + 1:03d}.star"))
        expected = [f"img/{n}.mrc" for n, found in zip(clusters.names, clusters.labels, strict=True) if found == label]
        assert rows.column("rlnImageName") == expected
    again = load_clusters(run)
    np.testing.assert_array_equal(again.labels, clusters.labels)


def test_clustering_again_leaves_no_class_of_before(run: RunFolder) -> None:
    cluster_run(run, 3)
    cluster_run(run, 2)
    assert sorted(path.name for path in run.clusters.glob("class*.star")) == ["class001.star", "class002.star"]


def test_codes_come_back_as_they_were(run: RunFolder) -> None:
    codes, _ = make_codes([30, 50])
    loaded = load_codes(run)
    assert loaded.names == codes.names
    np.testing.assert_array_equal(loaded.content, codes.content)
    picked = loaded.select(["p5", "p2"])
    np.testing.assert_array_equal(picked.content, codes.content[[5, 2]])


def test_commands_out_of_order_name_the_one_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cryodc train"):
        cluster_run(RunFolder(tmp_path))
    with pytest.raises(InputError, match="cryodc cluster"):
        load_clusters(RunFolder(tmp_path))


def test_codes_of_other_particles_are_refused(run: RunFolder) -> None:
    codes, _ = make_codes([10])
    save_codes(run, codes)
    with pytest.raises(InputError, match="differ in length"):
        cluster_run(run, 2)
