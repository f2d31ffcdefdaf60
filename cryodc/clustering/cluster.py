"""Cluster content codes: which proteins are there.

Codes of DualContrast are compared by direction, as training contrasts them: first scaled to unit length, then reduced
by PCA. A Gaussian mixture with one covariance for all components then finds the clusters.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from cryodc.clustering.mixture import (
    SEPARATED,
    STABLE,
    Trial,
    choose_mixture,
    content_features,
    fit_mixture,
    subsample_stability,
)
from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.io import write_json
from cryodc.particles import with_classes
from cryodc.runs import RunFolder, load_codes, require
from cryodc.star import find_particle_block, read_star, write_star


@dataclass(frozen=True)
class Clusters:
    """A cluster for every particle.

    Parameters
    ----------
    names
        Particle names, in input order.
    labels
        ``(n,)`` 0-based; cluster 0 is the largest. ``rlnClassNumber = label + 1``. After classification -1 is none.
    confidence
        ``(n,)`` posterior probability of the label.
    stability
        Mean ARI between these labels and those found on 80 % of the particles; 1 for one cluster.
    trials
        What spoke for each number of clusters that was tried; empty where the user gave K.
    verdict
        One sentence for the user: what was chosen and why.
    """

    names: tuple[str, ...]
    labels: Int[NDArray[np.int64], " n"]
    confidence: Float[NDArray[np.float64], " n"]
    stability: float
    trials: tuple[Trial, ...]
    verdict: str

    @property
    def n_clusters(self) -> int:
        """How many clusters there are."""
        return int(self.labels.max()) + 1

    @property
    def n_unassigned(self) -> int:
        """Particles of no class."""
        return int((self.labels < 0).sum())

    @property
    def sizes(self) -> list[int]:
        """Particles in each cluster."""
        return [int(size) for size in np.bincount(self.labels[self.labels >= 0], minlength=self.n_clusters)]


def cluster_codes(codes: Codes, n_clusters: int | None = None, *, seed: int = 0) -> Clusters:
    """Cluster the content codes.

    Parameters
    ----------
    codes
        Of every particle.
    n_clusters
        K, or None to choose it: the largest number whose clusters all stand apart (the density of the codes falls
        to 0.7 or less between any two, of codes made of templates to less where noise cannot fill it,
        :func:`cryodc.clustering.valley_threshold`; mean silhouette ≥ 0.25), are found again in 80 % of the particles
        (mean ARI ≥ 0.85) and beat fewer clusters in BIC. One cluster if there is none.
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
    features = content_features(codes.content_points)
    if n_clusters is not None:
        mixture = fit_mixture(features, n_clusters, seed)
        stability = subsample_stability(features, mixture, seed)
        verdict = f"{_classes(n_clusters)}, as asked; stability {stability:.2f}"
        if stability < STABLE:
            verdict += f", below {STABLE}: these clusters depend on which particles are there"
        return _clusters(codes.names, features, mixture, stability, (), verdict)
    mixture, chosen, trials = choose_mixture(features, seed, in_units=codes.template_content is not None)
    return _clusters(codes.names, features, mixture, chosen.stability, tuple(trials), _verdict(chosen, trials))


def cluster_run(run: RunFolder, n_clusters: int | None = None, *, seed: int = 0) -> Clusters:
    """Cluster a run's codes and write clusters/: clusters.star, one STAR per class, summary.json.

    Raises
    ------
    InputError
        If the run has no codes yet, or its codes and its STAR do not name the same particles.
    """
    clusters = cluster_codes(load_codes(run), n_clusters, seed=seed)
    document = read_star(require(run.particles, "cryodc train"))
    block = find_particle_block(document)
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
            classes.with_rows(find_particle_block(classes).name, rows),
            run.clusters / f"class{label + 1:03d}.star",
        )
    summary = {
        "n_clusters": clusters.n_clusters,
        "requested": "auto" if n_clusters is None else n_clusters,
        "sizes": clusters.sizes,
        "stability": round(clusters.stability, 4),
        "verdict": clusters.verdict,
        "trials": [asdict(trial) for trial in clusters.trials],
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
        trials=tuple(Trial(**trial) for trial in summary["trials"]),
        verdict=summary["verdict"],
    )


def are_averages_of(run: RunFolder, clusters: Clusters) -> bool:
    """Whether a run's averages are of these clusters: clustering again leaves the old maps in place.

    Every particle's class in averages/particles.star is compared; False where there is no such file.
    """
    path = run.averages / "particles.star"
    if not path.exists():
        return False
    block = find_particle_block(read_star(path))
    averaged = block.column("rlnClassNumber") if "rlnClassNumber" in block else []
    return averaged == [str(label + 1) for label in clusters.labels.tolist()]


def _clusters(
    names: Sequence[str],
    features: NDArray[np.float64],
    mixture: GaussianMixture,
    stability: float,
    trials: tuple[Trial, ...],
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
        trials,
        verdict,
    )


def _classes(n_clusters: int) -> str:
    return "1 class" if n_clusters == 1 else f"{n_clusters} classes"


def _verdict(chosen: Trial, trials: list[Trial]) -> str:
    if chosen.n_clusters > 1:
        return (
            f"{chosen.n_clusters} classes: stability {chosen.stability:.2f}, silhouette {chosen.silhouette:.2f}, "
            f"density between the closest two falls to {chosen.valley:.2f} of its peaks or less"
        )
    if len(trials) == 1:
        return "1 class: too few particles to tell more apart"
    best = min(trials[1:], key=lambda trial: trial.valley / trial.threshold)
    if best.valley > best.threshold:
        reason = (
            f"density between two may stay at {best.valley:.2f} of its peaks, {best.threshold:.2g} or less is asked"
        )
    elif best.silhouette < SEPARATED:
        reason = f"silhouette {best.silhouette:.2f}, below {SEPARATED}"
    elif best.stability < STABLE:
        reason = f"{best.n_clusters} would stand apart, but with stability {best.stability:.2f}"
    else:
        reason = f"{best.n_clusters} would stand apart, but fit no better than fewer"
    return f"1 class: the codes do not fall into clusters ({reason})"
