"""The classes of the particles of a run, from clustering or from classification."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trial:
    """The evidence for one number of clusters.

    Parameters
    ----------
    n_clusters
        K.
    bic
        Bayesian information criterion of the mixture.
    valley
        Density between the two clusters that are least apart, over that of their peaks: low is good; 1 for one cluster.
    silhouette
        Mean silhouette; 0 for one cluster.
    stability
        Mean ARI with clusters of subsamples. It is 1 for one cluster, and 0 if the valley or the silhouette has ruled
        K out.
    threshold
        The largest valley that is allowed.
    """

    n_clusters: int
    bic: float
    valley: float
    silhouette: float
    stability: float
    threshold: float


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
        The evidence for each number of clusters that was tried; empty if the user gave K.
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

    @property
    def forced(self) -> bool:
        """Whether no particle could be elsewhere: one class of all, a class for each, or classes as they were given."""
        given = not self.trials and self.stability == 1 and bool((self.confidence == 1).all())
        return given or (self.n_unassigned == 0 and self.n_clusters in (1, len(self.labels)))

    def mean_confidence(self, label: int) -> float | None:
        """How sure the members of a cluster are; None where that says nothing: there are no others to be in."""
        members = self.labels == label
        return None if self.forced or members.sum() < 2 else float(self.confidence[members].mean())
