"""The references that a classification starts from: of each cluster, from its most confident particles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.alignment import FEWEST, START_SHELLS, ClassSpectra, References, start_reference
from cryodc.clustering import fit_mixture
from cryodc.device import by_leader
from cryodc.fourier import Particles
from cryodc.unfinished import DoneSteps, on_device

_CORE, _LARGE_CORE = 80, 240
"""Particles that a reference starts from, and where these cannot be aligned."""


@dataclass(frozen=True)
class ClusterStarter:
    """Makes references of clusters, each from nothing.

    Parameters
    ----------
    particles, stack
        All particles, as spectra and as they are.
    halves, confidence
        ``(n,)`` half set of each, and how sure its cluster is.
    seed, n_starts, start_shells
        As :func:`cryodc.averaging.classify.classify_particles` takes them.
    done
        References that a stopped classification had made, and where they are kept.
    """

    particles: ClassSpectra
    stack: Particles
    halves: Int[Tensor, " n"]
    confidence: Float[Tensor, " n"]
    seed: int
    n_starts: int
    start_shells: float | None
    done: DoneSteps

    def start_all(
        self, clusters: Int[Tensor, " n"], points: Tensor | None, tell: Callable[[str], None]
    ) -> tuple[list[References], list[int]]:
        """The references of all clusters, and the clusters that gave none.

        A cluster that gives none is tried again: with more particles and starts, and in parts, since of several
        proteins together none may align.
        """
        found, unaligned = [], []
        for cluster in range(int(clusters.max()) + 1):
            rows = torch.nonzero(clusters == cluster)[:, 0]

            def make(_: DoneSteps, cluster: int = cluster, rows: Tensor = rows) -> dict[str, Any]:
                return {"references": self._start_cluster(cluster, rows, points, tell)}

            kept = self.done.once(f"reference of cluster {cluster + 1}", make)["references"]
            started = [References(**one) for one in on_device(kept, self.halves.device)]
            if not started:
                unaligned.append(cluster)
            found += started
        return found, unaligned

    def _start_cluster(
        self, cluster: int, rows: Tensor, points: Tensor | None, tell: Callable[[str], None]
    ) -> list[References]:
        def start(rows: Tensor, n_starts: int, name: str, n_most: int = _CORE) -> list[References]:
            core = rows[self.confidence[rows].argsort(descending=True, stable=True)[:n_most]].sort().values
            shells = self.start_shells or START_SHELLS
            started = start_reference(
                self.particles, self.stack, self.halves, core, self.seed + cluster, n_starts, shells
            )
            evidence = "not aligned" if started is None else f"halves agree at {started[1]:.2f}"
            tell(f"reference of cluster {cluster + 1}{name}, {len(core)} of {len(rows)} particles: {evidence}")
            return [] if started is None else [started[0]]

        started = start(rows, self.n_starts, "")
        if not started and len(rows) > _CORE:
            started = start(rows, 2 * self.n_starts, ", once more", _LARGE_CORE)
        if not started and points is not None:
            for number, part in enumerate(_parts(points[rows], self.seed)):
                started += start(rows[part], 2 * self.n_starts, f", part {number + 1} of it")
        return started


def _parts(points: Tensor, seed: int, n_parts: int = 3) -> list[Tensor]:
    """Rows of the parts that a cluster falls into by the codes of its particles; none if it is too small."""
    if len(points) < 2 * n_parts * FEWEST:
        return []
    values = points.double().cpu().numpy()
    labels = by_leader(lambda: fit_mixture(values, n_parts, seed).predict(values))
    parts = [torch.from_numpy(np.flatnonzero(labels == part)).to(points.device) for part in range(n_parts)]
    return [part for part in parts if len(part) >= 2 * FEWEST]
