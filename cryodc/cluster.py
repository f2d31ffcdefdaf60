"""Cluster content codes: which proteins are there.

Codes are compared by direction, as training contrasts them, so they are first scaled to unit length and reduced
by PCA. A Gaussian mixture with one covariance for all components then finds the clusters.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture

from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.io.run import RunFolder, load_codes, require, write_json
from cryodc.io.star import particle_block, read_star, with_classes, write_star

STABLE = 0.85
SEPARATED = 0.25
MAX_CLUSTERS = 15
_MAX_COMPONENTS = 12
_VARIANCE_KEPT = 0.95
_N_STARTS = 5
_N_SUBSAMPLES = 10


@dataclass(frozen=True)
class Clusters:
    """A cluster for every particle.

    Parameters
    ----------
    names
        Particle names, in input order.
    labels
        ``(n,)`` 0-based; cluster 0 is the largest. ``rlnClassNumber = label + 1``.
    confidence
        ``(n,)`` posterior probability of the label.
    stability
        Mean ARI between these labels and those found on 80 % of the particles; 1 for one cluster.
    bic
        Bayesian information criterion of each number of clusters tried; empty where the user gave K.
    verdict
        One sentence for the user: what was chosen and why.
    """

    names: tuple[str, ...]
    labels: Int[NDArray[np.int64], " n"]
    confidence: Float[NDArray[np.float64], " n"]
    stability: float
    bic: dict[int, float]
    verdict: str

    @property
    def n_clusters(self) -> int:
        """How many clusters there are."""
        return int(self.labels.max()) + 1

    @property
    def sizes(self) -> list[int]:
        """Particles in each cluster."""
        return [int(size) for size in np.bincount(self.labels, minlength=self.n_clusters)]


def cluster_codes(codes: Codes, n_clusters: int | None = None, *, seed: int = 0) -> Clusters:
    """Cluster the content codes.

    Parameters
    ----------
    codes
        Of every particle.
    n_clusters
        K, or None to choose it: of the numbers whose labels are stable (mean ARI ≥ 0.85) when only 80 % of the
        particles are clustered, whose clusters stand apart (mean silhouette ≥ 0.25) and whose BIC beats that of
        one cluster, the one with the largest silhouette. One cluster if there is none.
    seed
        Starts and subsamples.

    Raises
    ------
    InputError
        If there are fewer particles than clusters.
    """
    if n_clusters is not None and not 1 <= n_clusters <= len(codes):
        raise InputError(
            "cannot make this many clusters",
            expected=f"1 to {len(codes)}, the number of particles",
            found=str(n_clusters),
        )
    features = content_features(codes.content)
    if n_clusters is not None:
        mixture = _fit(features, n_clusters, seed)
        stability = subsample_stability(features, mixture, seed)
        verdict = f"{_classes(n_clusters)}, as asked; stability {stability:.2f}"
        if stability < STABLE:
            verdict += f", below {STABLE}: these clusters depend on which particles are there"
        return _clusters(codes.names, features, mixture, stability, {}, verdict)
    largest = max(1, min(MAX_CLUSTERS, len(codes) // 10))
    mixtures = {k: _fit(features, k, seed) for k in range(1, largest + 1)}
    trials = [_trial(features, mixtures[k], seed) for k in mixtures]
    chosen = _choose(trials)
    bic = {trial.n_clusters: trial.bic for trial in trials}
    return _clusters(
        codes.names, features, mixtures[chosen.n_clusters], chosen.stability, bic, _verdict(chosen, trials)
    )


def content_features(content: Float[NDArray[np.float32], "n c"]) -> Float[NDArray[np.float64], "n p"]:
    """Content codes at unit length, centred and rotated onto the PCA axes that hold 95 % of their variance."""
    unit = content.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    n_components = min(_MAX_COMPONENTS, unit.shape[1], len(unit) - 1)
    if n_components < 1 or np.ptp(unit, axis=0).max() == 0:
        return np.zeros((len(unit), 1))
    pca = PCA(n_components=n_components, svd_solver="full")
    scores = pca.fit_transform(unit)
    kept = int(np.searchsorted(np.cumsum(pca.explained_variance_ratio_), _VARIANCE_KEPT)) + 1
    return np.asarray(scores[:, : max(1, min(kept, n_components))])


def subsample_stability(features: Float[NDArray[np.float64], "n p"], mixture: Any, seed: int) -> float:
    """Mean ARI between a mixture's labels and those of mixtures fitted to 80 % of the particles."""
    n_clusters = mixture.n_components
    if n_clusters == 1:
        return 1.0
    generator = np.random.default_rng(seed)
    labels = mixture.predict(features)
    size = max(n_clusters, round(0.8 * len(features)))
    scores = []
    for repeat in range(_N_SUBSAMPLES):
        keep = generator.choice(len(features), size, replace=False)
        refitted = _fit(features[keep], n_clusters, seed + 1 + repeat, n_starts=2)
        scores.append(adjusted_rand_score(labels, refitted.predict(features)))
    return float(np.mean(scores))


@dataclass(frozen=True)
class _Trial:
    n_clusters: int
    bic: float
    stability: float
    silhouette: float


def _trial(features: NDArray[np.float64], mixture: GaussianMixture, seed: int) -> _Trial:
    k = mixture.n_components
    bic = float(mixture.bic(features))
    labels = mixture.predict(features)
    if len(set(labels.tolist())) < max(k, 2):
        # One cluster, or a component that holds nobody: no silhouette, and never preferred to one cluster.
        return _Trial(k, bic, 1.0 if k == 1 else 0.0, 0.0)
    # A number whose clusters do not stand apart is out already; its stability is not worth ten more fits.
    silhouette = float(silhouette_score(features, labels, sample_size=min(len(features), 5000), random_state=seed))
    stability = subsample_stability(features, mixture, seed) if silhouette >= SEPARATED else 0.0
    return _Trial(k, bic, stability, silhouette)


def _choose(trials: list[_Trial]) -> _Trial:
    one = trials[0]
    fit = [t for t in trials[1:] if t.silhouette >= SEPARATED and t.stability >= STABLE and t.bic < one.bic]
    return max(fit, key=lambda trial: trial.silhouette, default=one)


def _verdict(chosen: _Trial, trials: list[_Trial]) -> str:
    best = max(trials[1:], key=lambda trial: trial.silhouette, default=chosen)
    if chosen.n_clusters > 1:
        text = f"{chosen.n_clusters} classes: stability {chosen.stability:.2f}, silhouette {chosen.silhouette:.2f}"
        if best is not chosen:
            text += f"; {best.n_clusters} stand further apart ({best.silhouette:.2f}) but are not stable"
        return text
    if best is chosen:
        return "1 class: too few particles to tell more apart"
    reason = f"silhouette {best.silhouette:.2f}, below {SEPARATED}"
    if best.silhouette >= SEPARATED:
        reason = f"{best.n_clusters} would stand apart, but with stability {best.stability:.2f}"
    return f"1 class: the codes do not fall into clusters ({reason})"


def cluster_run(run: RunFolder, n_clusters: int | None = None, *, seed: int = 0) -> Clusters:
    """Cluster a run's codes and write clusters/: clusters.star, one STAR per class, summary.json.

    Raises
    ------
    InputError
        If the run has no codes yet, or its codes and its STAR do not name the same particles.
    """
    clusters = cluster_codes(load_codes(run), n_clusters, seed=seed)
    document = read_star(require(run.particles, "cryodc train"))
    block = particle_block(document)
    if block.n_rows != len(clusters.names):
        raise InputError(
            "the run's STAR and its codes differ in length",
            file=run.particles,
            expected=f"{len(clusters.names)} particles",
            found=str(block.n_rows),
        )
    classes = with_classes(document, [int(label) + 1 for label in clusters.labels])
    for stale in run.clusters.glob("class*.star"):
        stale.unlink()
    write_star(classes, run.clusters / "clusters.star")
    for label in range(clusters.n_clusters):
        rows = [int(row) for row in np.flatnonzero(clusters.labels == label)]
        write_star(
            classes.with_rows(particle_block(classes).name, rows),
            run.clusters / f"class{label + 1:03d}.star",
        )
    summary = {
        "n_clusters": clusters.n_clusters,
        "requested": "auto" if n_clusters is None else n_clusters,
        "sizes": clusters.sizes,
        "stability": round(clusters.stability, 4),
        "verdict": clusters.verdict,
        "bic": {str(k): round(value, 2) for k, value in clusters.bic.items()} or None,
        "seed": seed,
        "names": list(clusters.names),
        "labels": [int(label) for label in clusters.labels],
        "confidence": [round(float(value), 4) for value in clusters.confidence],
    }
    write_json(run.clusters / "summary.json", summary)
    return clusters


def load_clusters(run: RunFolder) -> Clusters:
    """The clusters that :func:`cluster_run` wrote.

    Raises
    ------
    InputError
        If the run has not been clustered.
    """
    path: Path = require(run.clusters / "summary.json", "cryodc cluster")
    summary = json.loads(path.read_text(encoding="utf-8"))
    return Clusters(
        names=tuple(summary["names"]),
        labels=np.array(summary["labels"], dtype=np.int64),
        confidence=np.array(summary["confidence"], dtype=np.float64),
        stability=summary["stability"],
        bic={int(k): value for k, value in (summary["bic"] or {}).items()},
        verdict=summary["verdict"],
    )


def _fit(features: NDArray[np.float64], n_clusters: int, seed: int, n_starts: int = _N_STARTS) -> GaussianMixture:
    mixture = GaussianMixture(
        n_clusters,
        covariance_type="tied",
        n_init=n_starts,
        random_state=seed,
        reg_covar=1e-6,
        max_iter=300,
    )
    with warnings.catch_warnings():
        # A number of clusters that the codes do not support may not converge; its BIC then decides against it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(features)


def _clusters(
    names: Sequence[str],
    features: NDArray[np.float64],
    mixture: GaussianMixture,
    stability: float,
    bic: dict[int, float],
    verdict: str,
) -> Clusters:
    posterior = mixture.predict_proba(features)
    raw = posterior.argmax(axis=1)
    sizes = np.bincount(raw, minlength=posterior.shape[1])
    by_size = np.argsort(-sizes, kind="stable")
    rank = np.empty_like(by_size)
    rank[by_size] = np.arange(len(by_size))
    return Clusters(
        tuple(names),
        rank[raw].astype(np.int64),
        posterior.max(axis=1),
        stability,
        bic,
        verdict,
    )


def _classes(n_clusters: int) -> str:
    return "1 class" if n_clusters == 1 else f"{n_clusters} classes"
