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

from cryodc.averaging.classify import Classification, classify_particles, score_particles
from cryodc.dataset import SubtomogramDataset
from cryodc.fourier import ParticleStack, chunks, crop_weights, fourier_crop
from cryodc.io import write_text
from cryodc.runs import Clusters

ALIGNMENT_BOX = 48
"""Larger boxes are Fourier-cropped to this while poses are searched for; averages keep the full box."""
MOST_PARTICLES = 3000
"""References are made of at most so many particles, drawn at random; the others are only scored against them."""
_BATCH = 500


@dataclass(frozen=True)
class FinalClasses:
    """What classification made of the clusters.

    Parameters
    ----------
    clusters
        Final label of each particle, -1 for none, and its posterior probability.
    starts
        ``(k, d, h, w)`` map of each class at the alignment's box.
    scores, posterior
        ``(n, k)`` of each particle and class.
    summary
        For summary.json.
    """

    clusters: Clusters
    starts: Float[Tensor, "k d h w"]
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
        progress=progress,
    )
    if found is None:
        return None
    labels = torch.empty(n, dtype=torch.long)
    scores, posterior = torch.empty(2, n, found.scores.shape[1])
    labels[rows], scores[rows], posterior[rows] = found.labels.cpu(), found.scores.cpu(), found.posterior.cpu()
    for part in chunks(len(rest), _BATCH):
        some = rest[part]
        scored = score_particles(found, shrink(dataset.gather(some).to(device)), seed=seed, start_shells=start_shells)
        labels[some], scores[some], posterior[some] = (value.cpu() for value in scored)
    final = replace(
        clusters,
        labels=labels.numpy(),
        confidence=posterior.max(dim=1).values.double().numpy(),
        verdict=f"{found.scores.shape[1]} classes by alignment, from {clusters.n_clusters} clusters",
    )
    summary = _summary(clusters, final, found)
    return FinalClasses(final, found.references, scores.double().numpy(), posterior.double().numpy(), summary)


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


def _summary(before: Clusters, after: Clusters, found: Classification) -> dict[str, Any]:
    flow = np.zeros((before.n_clusters, found.scores.shape[1] + 1), dtype=int)
    np.add.at(flow, (before.labels, after.labels), 1)
    return {
        "verdict": after.verdict,
        "settled": found.settled,
        "changed": int(flow.sum() - flow[:, :-1].max(axis=1).sum()),
        "unassigned": int(flow[:, -1].sum()),
        "score_threshold": round(found.threshold, 3),
        "cluster_to_class": flow[:, :-1].tolist(),
        "cluster_to_unassigned": flow[:, -1].tolist(),
    }
