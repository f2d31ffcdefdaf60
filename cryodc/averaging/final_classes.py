"""Final classes of a run: its clusters, classified by alignment."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import FALSE_POSITIVES, FEWEST
from cryodc.averaging.classification import UNASSIGNED, Classification
from cryodc.averaging.classify import classify_particles, score_particles
from cryodc.dataset import SubtomogramDataset
from cryodc.fourier import ParticleStack, chunks, crop_weights, fourier_crop
from cryodc.io import write_text
from cryodc.runs import Clusters
from cryodc.unfinished import DoneSteps, on_device

ALIGNMENT_BOX = 48
"""Larger boxes are Fourier-cropped to this while poses are searched for; averages keep the full box."""
MOST_PARTICLES = 3000
"""References are made of at most so many particles, drawn at random; the others are only scored against them."""
_BATCH = 500


@dataclass(frozen=True)
class FinalClasses:
    """The classes that classification made of the clusters.

    Parameters
    ----------
    clusters
        Final label of each particle, -1 for none, and its posterior probability.
    starts
        Map ``(d, h, w)`` of each class at the alignment's box; None for a cluster that gave no reference.
    scores, posterior
        ``(n, k)`` of each particle and class that has a map.
    summary
        For summary.json.
    """

    clusters: Clusters
    starts: list[Tensor | None]
    scores: Float[NDArray[np.float64], "n k"]
    posterior: Float[NDArray[np.float64], "n k"]
    summary: dict[str, Any]


def classify_run(
    dataset: SubtomogramDataset,
    clusters: Clusters,
    half_sets: Int[NDArray[np.int64], " n"],
    *,
    seed: int,
    n_starts: int,
    n_rounds: int,
    junk: bool,
    start_shells: float | None,
    device: torch.device,
    points: Float[NDArray[np.float64], "n f"] | None = None,
    done: DoneSteps,
    progress: Callable[[str], None],
) -> FinalClasses | None:
    """Classify the particles of a run, starting from its clusters; None if no cluster can be aligned.

    Parameters
    ----------
    dataset, clusters
        Of the same particles.
    half_sets
        ``(n,)`` 1 or 2.
    seed, n_starts, n_rounds, junk, start_shells, progress
        As :func:`cryodc.averaging.classify.classify_particles` takes them.
    device
        Where to compute.
    points
        Content codes as they are compared, by which a cluster that cannot be aligned is parted.
    done
        Steps of a classification that was stopped, and where they are kept.
    """
    n = len(clusters.names)
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    rows, rest = drawn[:MOST_PARTICLES].sort().values, drawn[MOST_PARTICLES:].sort().values
    halves = torch.from_numpy(half_sets)
    found = classify_particles(
        shrink(dataset.gather(rows).to(device)),
        torch.from_numpy(clusters.labels)[rows].to(device),
        torch.from_numpy(clusters.confidence)[rows].float().to(device),
        halves[rows].to(device),
        seed=seed,
        n_starts=n_starts,
        n_rounds=n_rounds,
        junk=junk,
        start_shells=start_shells,
        points=None if points is None else torch.from_numpy(points)[rows].to(device),
        done=done,
        progress=progress,
    )
    if found is None:
        return None
    labels = torch.empty(n, dtype=torch.long)
    scores, posterior = torch.empty(2, n, found.scores.shape[1])
    labels[rows], scores[rows], posterior[rows] = found.labels.cpu(), found.scores.cpu(), found.posterior.cpu()
    of_cluster = {cluster: len(found.references) + place for place, cluster in enumerate(found.unaligned)}
    sampled = torch.from_numpy(clusters.labels)[rows]
    tried = [cluster for cluster in found.unaligned if int((sampled == cluster).sum()) >= FEWEST]
    batches = done.quietly("particles")
    for part in chunks(len(rest), _BATCH):
        some = rest[part]

        def score(_: DoneSteps, some: Tensor = some) -> dict[str, Any]:
            small = shrink(dataset.gather(some).to(device))
            idle = torch.isin(torch.from_numpy(clusters.labels)[some], torch.tensor(tried)).to(device)
            return {"scored": score_particles(found, small, idle=idle, seed=seed, start_shells=start_shells)}

        labels[some], scores[some], posterior[some] = batches.once(f"from {part.start}", score)["scored"]
        for cluster, label in of_cluster.items():
            left = (labels[some] == UNASSIGNED) & (torch.from_numpy(clusters.labels)[some] == cluster)
            labels[some[left]] = label
    final = replace(
        clusters,
        labels=labels.numpy(),
        confidence=posterior.max(dim=1).values.double().numpy(),
        verdict=_verdict(found, clusters),
    )
    summary = _summary(clusters, final, found)
    starts = [*found.references, *[None] * len(found.unaligned)]
    return FinalClasses(
        final,
        starts,
        scores.double().numpy(),
        posterior.double().numpy(),
        summary,
    )


def final_classes_of(state: dict[str, Any], clusters: Clusters, device: torch.device) -> FinalClasses:
    """Final classes from their plain form, and the clusters that they were made from."""
    known = state["clusters"]
    labels, confidence = known["labels"].numpy(), known["confidence"].numpy()
    return FinalClasses(
        replace(clusters, labels=labels, confidence=confidence, verdict=known["verdict"]),
        on_device(state["starts"], device),
        state["scores"].numpy(),
        state["posterior"].numpy(),
        state["summary"],
    )


def write_assignments(folder: Path, final: FinalClasses, before: Clusters) -> None:
    """Write assignments.csv: cluster, class, and every class's score and probability of each particle."""
    k = final.scores.shape[1]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["particle", "cluster", "class"]
        + [f"score_class{c + 1:03d}" for c in range(k)]
        + [f"probability_class{c + 1:03d}" for c in range(k)]
    )
    for i, name in enumerate(before.names):
        values = [f"{value:.3f}" for value in final.scores[i]] + [f"{value:.4f}" for value in final.posterior[i]]
        writer.writerow([name, int(before.labels[i]) + 1, int(final.clusters.labels[i]) + 1, *values])
    write_text(folder / "assignments.csv", text.getvalue())


def shrink(stack: ParticleStack) -> ParticleStack:
    """Particles Fourier-cropped to the box that poses are searched in."""
    if stack.box_size <= ALIGNMENT_BOX:
        return stack
    volumes, weights = fourier_crop(stack.volumes, ALIGNMENT_BOX), crop_weights(stack.weights, ALIGNMENT_BOX)
    return ParticleStack(volumes, weights, stack.weight_index)


def shrink_mask(mask: Float[Tensor, "d h w"]) -> Tensor:
    """A mask in the box that poses are searched in."""
    return fourier_crop(mask[None], min(mask.shape[-1], ALIGNMENT_BOX))[0].clamp(0, 1)


def _warnings(unassigned: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[str]:
    """What to look at where many particles are left without a class, cluster by cluster."""
    told = []
    if 3 * unassigned.sum() > sizes.sum():
        told.append(f"{unassigned.sum()} of {sizes.sum()} particles are unassigned, more than a third")
    for cluster, (left, size) in enumerate(zip(unassigned.tolist(), sizes.tolist(), strict=True)):
        if 2 * left > size:
            told.append(f"most of cluster {cluster + 1} is unassigned: {left} of {size} particles")
    return told


def _verdict(found: Classification, clusters: Clusters) -> str:
    """One sentence on what came of the clusters."""
    text = f"{found.scores.shape[1]} classes by alignment, from {clusters.n_clusters} clusters"
    if not found.unaligned:
        return text
    names = ", ".join(str(cluster + 1) for cluster in found.unaligned)
    return f"{text}; clusters {names} could not be aligned and stay classes of their own"


def _summary(before: Clusters, after: Clusters, found: Classification) -> dict[str, Any]:
    flow = np.zeros((before.n_clusters, found.scores.shape[1] + len(found.unaligned) + 1), dtype=int)
    np.add.at(flow, (before.labels, after.labels), 1)
    return {
        "verdict": after.verdict,
        "settled": found.settled,
        "changed": int(flow.sum() - flow[:, :-1].max(axis=1).sum()),
        "unassigned": int(flow[:, -1].sum()),
        "unaligned_clusters": [cluster + 1 for cluster in found.unaligned],
        "false_positive_rate": None if found.null is None else FALSE_POSITIVES,
        "excess_threshold": None if found.null is None else [round(float(value), 3) for value in found.threshold],
        "cluster_to_class": flow[:, :-1].tolist(),
        "cluster_to_unassigned": flow[:, -1].tolist(),
        "warnings": _warnings(flow[:, -1], flow.sum(axis=1)),
    }
