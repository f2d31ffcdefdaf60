"""The current codes, clusters, averages and states of a run. Results made from earlier ones do not count."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.runs.classes import Clusters
from cryodc.runs.folder import RunFolder, require
from cryodc.runs.summaries import (
    SUMMARY,
    AverageSummary,
    ClusterSummary,
    GivenSummary,
    IdentifySummary,
    Requested,
    StatesSummary,
    damaged,
    fingerprint,
    read_summary,
    write_summary,
)

NAME_LABEL = "cdcName"
"""The column of a STAR that names the structure each class is."""
NO_NAME = "none"
"""Name of a class that is nothing in the library, or cannot be compared."""


def fingerprint_of_codes(run: RunFolder) -> str:
    """Fingerprint of the codes that clusters are made from."""
    return fingerprint([require(run.codes, "cryodc train")])


def fingerprint_of_clusters(run: RunFolder) -> str:
    """Fingerprint of the clusters that averages are made from."""
    return fingerprint([require(run.clusters / SUMMARY, "cryodc cluster")])


def fingerprint_of_averages(run: RunFolder) -> str:
    """Fingerprint of the averages that states are made from."""
    return fingerprint([require(run.averages / name, "cryodc average") for name in (SUMMARY, "particles.star")])


def fingerprint_of_decoded(codes: Codes, labels: Int[NDArray[np.int64], " n"] | None) -> str:
    """What decoded volumes are made of: SHA-256 over the codes, and over the classes where there are some."""
    digest = hashlib.sha256("\n".join(codes.names).encode())
    for values in (codes.content, codes.transformation, codes.template_content, codes.template_pose, labels):
        # So that what one lacks and another has is told apart.
        digest.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def fingerprint_of_shown(run: RunFolder) -> str:
    """Fingerprint of all that a report shows: settings, losses, codes, and the summary of each result there is."""
    results = [folder / SUMMARY for folder in (run.clusters, run.averages, run.identified)]
    results += [path for folder in (run.states, run.generated) for path in sorted(folder.glob(f"[!.]*/{SUMMARY}"))]
    shown = (run.config, run.log, run.codes, run.averages / "particles.star", *results)
    return fingerprint([path for path in shown if path.exists()])


def given_summary(run: RunFolder, verb: Literal["export", "map-back"], **settings: Any) -> GivenSummary:
    """What is said in a folder for other programs: which averages of which run it is made of, and how.

    Parameters
    ----------
    run
        An averaged run.
    verb
        Which writes the folder.
    settings
        As the user gave them.
    """
    made_of = fingerprint_of_averages(run)
    return GivenSummary(made_of=made_of, verb=verb, run=str(run.path.resolve()), settings=settings)


def write_clusters(folder: Path, clusters: Clusters, made_of: str, *, requested: int | Requested, seed: int) -> None:
    """Write summary.json of clusters.

    Parameters
    ----------
    folder
        The folder to write into.
    clusters
        A cluster for every particle.
    made_of
        :func:`fingerprint_of_codes` of the codes that were clustered.
    requested
        The number that the user gave, ``auto``, or ``by hand`` for classes that the user chose the particles of.
    seed
        The seed of the clustering.
    """
    summary = ClusterSummary(
        made_of=made_of,
        n_clusters=clusters.n_clusters,
        requested=requested,
        sizes=clusters.sizes,
        stability=round(clusters.stability, 4),
        verdict=clusters.verdict,
        trials=list(clusters.trials),
        seed=seed,
        names=list(clusters.names),
        labels=clusters.labels.tolist(),
        confidence=[round(float(value), 4) for value in clusters.confidence],
    )
    write_summary(folder, summary)


def made_by_hand(run: RunFolder) -> bool:
    """Whether the user chose the particles of each cluster."""
    return read_summary(run.clusters, ClusterSummary, "cryodc cluster").requested == "by hand"


def load_clusters(run: RunFolder) -> Clusters:
    """The clusters of a run's codes, as `cryodc cluster` found them.

    Use :func:`current_classes` unless you need the clusters before classification.

    Raises
    ------
    InputError
        If the run has not been clustered, or since then its codes have changed.
    """
    summary = read_summary(run.clusters, ClusterSummary, "cryodc cluster")
    if run.codes.exists() and summary.made_of != fingerprint_of_codes(run):
        raise InputError(
            "these clusters are of earlier codes", file=run.clusters / SUMMARY, remedy="run `cryodc cluster` again"
        )
    return Clusters(
        names=tuple(summary.names),
        labels=np.array(summary.labels, dtype=np.int64),
        confidence=np.array(summary.confidence, dtype=np.float64),
        stability=summary.stability,
        trials=tuple(summary.trials),
        verdict=summary.verdict,
    )


def current_classes(run: RunFolder) -> Clusters:
    """The classes a run has now: the final classes of `cryodc average --classify`, else the clusters.

    Final classes of an earlier clustering do not count.

    Raises
    ------
    InputError
        If the run has not been clustered, or since then its codes have changed.
    """
    clusters = load_clusters(run)
    averages = current_averages(run)
    final = None if averages is None else averages.classification
    if final is None or final.labels is None or final.confidence is None:
        return clusters
    if not len(final.labels) == len(final.confidence) == len(clusters.names) or min(final.labels) < -1:
        found = f"{len(final.labels)} labels of {len(clusters.names)} particles"
        raise damaged(run.averages / SUMMARY, "cryodc average", found)
    return Clusters(
        names=clusters.names,
        labels=np.array(final.labels, dtype=np.int64),
        confidence=np.array(final.confidence, dtype=np.float64),
        stability=clusters.stability,
        trials=clusters.trials,
        verdict=final.verdict,
    )


def classes_if_any(run: RunFolder) -> Clusters | None:
    """The result of :func:`current_classes`, or None if the run has not been clustered.

    Raises
    ------
    InputError
        If since the clustering the codes have changed.
    """
    return current_classes(run) if (run.clusters / SUMMARY).exists() else None


def current_averages(run: RunFolder) -> AverageSummary | None:
    """averages/summary.json; None where there is none, or it is of an earlier clustering.

    Raises
    ------
    InputError
        If it is damaged.
    """
    if not ((run.averages / SUMMARY).exists() and (run.clusters / SUMMARY).exists()):
        return None
    averages = read_summary(run.averages, AverageSummary, "cryodc average")
    if averages.made_of != fingerprint_of_clusters(run):
        return None
    load_clusters(run)
    return averages


def require_averages(run: RunFolder) -> AverageSummary:
    """averages/summary.json of the classes that the run has now.

    Raises
    ------
    InputError
        If there is none, it is of an earlier clustering, or it is damaged.
    """
    require(run.averages / SUMMARY, "cryodc average")
    averages = current_averages(run)
    if averages is None:
        raise InputError(
            "these averages are of an earlier clustering",
            file=run.averages,
            remedy="run `cryodc average` again",
        )
    return averages


def current_states(run: RunFolder) -> dict[int, StatesSummary]:
    """summary.json of every class that has states of the averages the run has now.

    Raises
    ------
    InputError
        If one is damaged.
    """
    if current_averages(run) is None:
        return {}
    made_of = fingerprint_of_averages(run)
    found = {}
    for path in sorted(run.states.glob(f"class*/{SUMMARY}")):
        summary = read_summary(path.parent, StatesSummary, "cryodc states")
        if summary.made_of == made_of:
            found[summary.class_number] = summary
    return found


def current_names(run: RunFolder) -> dict[int, str]:
    """Names that `cryodc identify` gave the classes of the averages the run has now; a class that is none is left out.

    Raises
    ------
    InputError
        If the summary is damaged.
    """
    if not (run.identified / SUMMARY).exists() or current_averages(run) is None:
        return {}
    summary = read_summary(run.identified, IdentifySummary, "cryodc identify")
    if summary.made_of != fingerprint_of_averages(run):
        return {}
    try:
        names = {int(entry["class"]): str(entry["name"]) for entry in summary.classes}
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(run.identified / SUMMARY, "cryodc identify", f"classes: {error}") from error
    return {number: name for number, name in names.items() if name != NO_NAME}
