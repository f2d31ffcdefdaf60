"""Blind classification: particles are aligned to references that start from the clusters.

1. *References.* The most confident particles of every cluster are aligned from nothing; a cluster of several proteins
   gives the one that most of them are.
2. *Rounds.* Every particle is aligned to every reference of the other half set. Its classes are weighed by likelihood,
   at a temperature that falls to 1, and by what its cluster says, which fades. References are averaged anew.
3. *Evidence.* Members of a class are classified anew from two references; the class is split where these explain
   held-out members better than their common average does. Two classes become one where they do not.
4. *Nothing known.* A particle that scores no better on its class than it does itself on maps of noise is left
   unassigned. Where its cluster gave no reference it stays in a class of that cluster's own: no particle is lost
   because a cluster could not be aligned.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cryodc.alignment import (
    References,
    empty_poses,
    refine_classes,
    score_noise,
    search_classes,
)
from cryodc.averaging.classification import UNASSIGNED, Classification
from cryodc.averaging.loop import SEARCH_SHELLS, ClassLoop, class_spectra
from cryodc.averaging.splits import split_classes
from cryodc.fourier import ParticleStack
from cryodc.unfinished import DoneSteps

_TEMPERATURES = (4.0, 2.0, 1.0)
_PRIOR_WEIGHTS = (1.0, 0.5)


@torch.no_grad()
def classify_particles(
    stack: ParticleStack,
    clusters: Int[Tensor, " n"],
    confidence: Float[Tensor, " n"],
    half_sets: Int[Tensor, " n"],
    *,
    seed: int = 0,
    n_starts: int = 2,
    n_rounds: int = 6,
    n_splits: int = 2,
    junk: bool = True,
    start_shells: float | None = None,
    points: Float[Tensor, "n f"] | None = None,
    done: DoneSteps | None = None,
    progress: Callable[[str], None] | None = None,
) -> Classification | None:
    """Classify particles, starting from clusters.

    Parameters
    ----------
    stack
        The particles, standardised.
    clusters, confidence
        ``(n,)`` 0-based cluster of each particle, and how sure it is: references start from the surest.
    half_sets
        ``(n,)`` 1 or 2.
    seed
        Same seed, same result.
    n_starts
        Random starts of each reference.
    n_rounds
        Most rounds before classes are judged.
    n_splits
        How often every class is tried for a split.
    junk
        Leave particles unassigned that fit no reference better than they fit maps of noise.
    start_shells
        Shells that references start in and poses are searched in; by default as many as alignment starts in, and 7.
    points
        Content codes as they are compared. They divide a cluster that gives no reference.
    done
        Steps of a classification that was stopped, and where they are kept.
    progress
        Called with a line about each step.

    Returns
    -------
    The classification; None if no cluster can be aligned.
    """
    tell = progress or (lambda text: None)
    loop = ClassLoop(stack, clusters, half_sets, seed, tell, start_shells, done)
    if not loop.start(confidence, n_starts, points):
        return None
    loop.run(n_rounds, _TEMPERATURES, _PRIOR_WEIGHTS)
    loop.merge()
    for _ in range(n_splits):
        if not split_classes(loop):
            break
        loop.run(n_rounds, (1.0,), ())
        loop.merge()
    return loop.result(junk)


@torch.no_grad()
def score_particles(
    found: Classification,
    stack: ParticleStack,
    *,
    idle: Bool[Tensor, " b"] | None = None,
    seed: int = 0,
    start_shells: float | None = None,
) -> tuple[Int[Tensor, " b"], Float[Tensor, "b k"], Float[Tensor, "b k"]]:
    """Labels, scores and posteriors of particles that the references of a classification have not seen.

    Parameters
    ----------
    found
        The classification.
    stack
        The particles, in its box.
    idle
        ``(b,)`` which of them are of clusters that gave no reference.
    seed
        Of the search.
    start_shells
        Shells that poses are searched in; 7 by default.
    """
    particles = class_spectra(stack)
    particles.noise = found.noise
    halves = torch.ones(len(stack), dtype=torch.long, device=stack.device)
    maps = found.references[:, None].expand(-1, 2, -1, -1, -1)
    references = References(maps, found.noise.power.expand(len(maps), -1))
    poses = empty_poses(len(stack), len(references), stack.device)
    generator = torch.Generator().manual_seed(seed)
    radius = min(start_shells or SEARCH_SHELLS, found.radius)
    search_classes(particles, halves, references, radius, poses, list(range(len(references))), generator)
    refine_classes(particles, halves, references, found.radius, poses)
    labels = poses.scores.argmax(dim=1)
    if found.null is not None:
        on_noise = score_noise(particles, halves, found.null.references, found.radius, radius, generator)
        own = found.null.excess(poses.scores, on_noise).gather(1, labels[:, None])[:, 0]
        nothing = own < found.threshold[labels]
        if idle is not None:
            nothing |= idle & (own < found.claim[labels])
        labels = labels.masked_fill(nothing, UNASSIGNED)
    return labels, poses.scores, torch.softmax(0.5 * poses.scores.square(), dim=1)
