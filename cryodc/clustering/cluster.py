"""Cluster content codes: which proteins are there.

Codes of DualContrast are compared by direction, as training contrasts them: first scaled to unit length, then reduced
by PCA. A Gaussian mixture with one covariance for all components then finds the clusters.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from cryodc.clustering.mixture import (
    MAX_CLUSTERS,
    SEPARATED,
    STABLE,
    choose_mixture,
    content_features,
    fit_mixture,
    subsample_stability,
)
from cryodc.codes import Codes
from cryodc.dry_run import Forecast, declare
from cryodc.errors import InputError
from cryodc.io import replace_folder
from cryodc.particles import with_classes
from cryodc.runs import (
    Clusters,
    Requested,
    RunFolder,
    Trial,
    fingerprint_of_codes,
    load_codes,
    require,
    write_clusters,
    writing,
)
from cryodc.star import StarDocument, find_particle_block, read_star, write_star


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
    verdict = _verdict(chosen, trials)
    return _clusters(codes.names, features, mixture, chosen.stability, tuple(trials), verdict)


def cluster_run(run: RunFolder, n_clusters: int | None = None, *, seed: int = 0) -> Clusters:
    """Cluster a run's codes and write clusters/: clusters.star, one STAR per class, summary.json.

    What an earlier call wrote is replaced as a whole, in one step.

    Raises
    ------
    InputError
        If the run has no codes yet, its codes and its STAR do not name the same particles, or another process writes
        into it.
    """
    with writing(run, "cluster"):
        made_of, codes = fingerprint_of_codes(run), load_codes(run)
        n, trials = len(codes), 1 if n_clusters is not None else MAX_CLUSTERS
        # Codes are not boxes: the unit of this work is the transform of a box of 32.
        declare(Forecast(run.clusters, f"codes of {n} particles", box=(32,) * 3, work={"clustering": n * trials}))
        clusters = cluster_codes(codes, n_clusters, seed=seed)
        write_classes(run, clusters, made_of, requested=n_clusters or "auto", seed=seed)
    return clusters


def write_classes(run: RunFolder, clusters: Clusters, made_of: str, *, requested: int | Requested, seed: int) -> None:
    """Write clusters/ of a run, replaced as a whole, in one step.

    Parameters
    ----------
    run
        A run whose STAR lists the particles in the order of the clusters.
    clusters
        Of its particles.
    made_of, requested, seed
        As :func:`cryodc.runs.write_clusters` takes them.

    Raises
    ------
    InputError
        If the run's STAR and the clusters differ in length.
    """
    document = read_star(require(run.particles, "cryodc train"))
    block = find_particle_block(document)
    if block.n_rows != len(clusters.names):
        raise InputError(
            "the run's STAR and its codes differ in length",
            file=run.particles,
            expected=f"{len(clusters.names)} particles",
            found=str(block.n_rows),
        )
    with replace_folder(run.clusters) as folder:
        write_class_stars(folder, document, clusters.labels, clusters.n_clusters)
        write_clusters(folder, clusters, made_of, requested=requested, seed=seed)


def write_class_stars(
    folder: Path, document: StarDocument, labels: Int[NDArray[np.int64], " n"], n_clusters: int
) -> None:
    """Write clusters.star, a STAR with the cluster of each row as its class, and one STAR per class.

    Parameters
    ----------
    folder
        Where.
    document
        Of the particles.
    labels, n_clusters
        0-based cluster of each, and how many there are.
    """
    classes = with_classes(document, labels + 1)
    write_star(classes, folder / "clusters.star")
    for label in range(n_clusters):
        mine = classes.with_rows(find_particle_block(classes).name, np.flatnonzero(labels == label))
        write_star(mine, folder / f"class{label + 1:03d}.star")


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
