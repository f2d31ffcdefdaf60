"""The result of a classification: the class of every particle, with scores and probabilities."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from cryodc.alignment import NoiseNull
from cryodc.fourier import NoiseModel

UNASSIGNED = -1
"""Label of a particle that belongs to no class."""


@dataclass(frozen=True)
class Classification:
    """Classes of particles.

    Parameters
    ----------
    labels
        ``(n,)`` 0-based; class 0 is the largest. :data:`UNASSIGNED` belongs to none. Labels from ``k`` up are of
        clusters that gave no reference.
    posterior
        ``(n, k)`` probability of each class that has a reference.
    scores
        ``(n, k)`` held-out score against each class's reference, in units of the noise.
    excess
        ``(n, k)`` score minus the particle's scores on maps of noise, in standard deviations.
    references
        ``(k, d, h, w)`` map of each class.
    noise
        By which scores are weighted.
    radius
        Shells that scores look at.
    null
        The null that leaves particles unassigned; None if no particle can be.
    threshold
        ``(k,)`` excess from which a particle belongs to each class.
    claim
        ``(k,)`` excess from which a class takes a particle of a cluster that gave no reference.
    unaligned
        Clusters that gave no reference, in the order of their labels.
    settled
        Whether assignments came to rest.
    """

    labels: Int[Tensor, " n"]
    posterior: Float[Tensor, "n k"]
    scores: Float[Tensor, "n k"]
    excess: Float[Tensor, "n k"]
    references: Float[Tensor, "k d h w"]
    noise: NoiseModel
    radius: float
    null: NoiseNull | None
    threshold: Float[Tensor, " k"]
    claim: Float[Tensor, " k"]
    unaligned: tuple[int, ...]
    settled: bool
