"""Evidence for splitting a class into two, or for joining two into one.

All of it is held out: particles of one half set against references of the other.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.alignment.align import START_SHELLS, align_class
from cryodc.alignment.references import (
    ClassPoses,
    References,
    empty_poses,
    make_references,
    refine_classes,
)
from cryodc.alignment.register import register_map
from cryodc.alignment.search import PoseSet
from cryodc.alignment.spectra import ClassSpectra
from cryodc.fourier import Particles
from cryodc.volumes import Volume

SIGNIFICANT = 3.0
"""Standard errors by which two references must explain held-out particles better than one."""
FEWEST = 8
"""Particles of which a reference can be made."""
_ALIKE = 0.15


def start_reference(
    particles: ClassSpectra,
    stack: Particles,
    halves: Int[Tensor, " n"],
    rows: Int[Tensor, " m"],
    seed: int,
    n_starts: int,
    start_shells: float = START_SHELLS,
) -> tuple[References, float] | None:
    """Make a reference from a few particles, from nothing, and the evidence for it; None if they cannot be aligned.

    Parameters
    ----------
    particles
        All particles, as spectra.
    stack
        The same particles.
    halves
        ``(n,)`` half set of each particle, 1 or 2.
    rows
        ``(m,)`` the particles that the reference is made of.
    seed, n_starts, start_shells
        As :func:`align_class` takes them.
    """
    own = halves[rows].cpu().numpy()
    if len(rows) < FEWEST or min(int((own == 1).sum()), int((own == 2).sum())) < 2:
        return None
    found = align_class(stack.select(rows), seed=seed, n_starts=n_starts, half_sets=own, start_shells=start_shells)
    if not found.aligned:
        return None
    poses = empty_poses(len(particles), 1, halves.device)
    poses.put(rows, 0, PoseSet(found.rotations, found.origins_voxels, found.scores))
    shares = torch.zeros(len(particles), 1, device=halves.device)
    shares[rows] = 1.0
    finest = particles.finest
    return make_references(particles, halves, poses, shares, finest), found.evidence


def merge_classes(
    particles: ClassSpectra,
    halves: Int[Tensor, " n"],
    references: References,
    poses: ClassPoses,
    labels: Int[Tensor, " n"],
    radius: float,
    tell: Callable[[str], None],
) -> list[int]:
    """Choose the classes to keep. Of two that explain particles no better than their common average, the larger stays.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each.
    references
        Of the classes.
    poses
        Of every particle on every class.
    labels
        ``(n,)`` class of each particle.
    radius
        Shells that scores look at.
    tell
        Called with a line about each merge.
    """
    sizes = torch.bincount(labels, minlength=len(references))
    kept = [int(k) for k in sizes.argsort(descending=True, stable=True) if sizes[k] > 0]
    for second in list(reversed(kept)):
        for first in [k for k in kept if k != second and sizes[k] >= sizes[second]]:
            if _same_class(particles, halves, references, poses, labels, (first, second), radius):
                tell(f"two references of {int(sizes[first])} and {int(sizes[second])} particles are one protein")
                kept.remove(second)
                break
    return sorted(kept)


def _same_class(
    particles: ClassSpectra,
    halves: Tensor,
    references: References,
    poses: ClassPoses,
    labels: Tensor,
    pair: tuple[int, int],
    radius: float,
) -> bool:
    members = (labels == pair[0]) | (labels == pair[1])
    both = poses.scores[members][:, list(pair)]
    if float((both[:, 0] - both[:, 1]).abs().median()) > _ALIKE * float(both.max(dim=1).values.median()):
        return False
    return gain_of_two(particles, halves, references, poses, labels, pair, radius) < SIGNIFICANT


def gain_of_two(
    particles: ClassSpectra,
    halves: Int[Tensor, " n"],
    references: References,
    poses: ClassPoses,
    labels: Int[Tensor, " n"],
    pair: tuple[int, int],
    radius: float,
) -> float:
    """By how many standard errors two references explain their held-out members better than one average of both.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each.
    references
        Of the classes.
    poses
        Of every particle on every class.
    labels
        ``(n,)`` class of each particle.
    pair
        The two classes.
    radius
        Shells that scores look at.
    """
    members = (labels == pair[0]) | (labels == pair[1])
    both = poses.scores[members][:, list(pair)]
    first, second = (Volume(references.maps[k].mean(dim=0).cpu().numpy(), 1.0) for k in pair)
    turn, move, _ = register_map(second, first, radius_shells=radius)
    rotation = torch.from_numpy(turn).float().to(halves.device)
    shift = torch.from_numpy(move).float().to(halves.device)
    joint = poses.select([pair[0]])
    rows = torch.nonzero(labels == pair[1])[:, 0]
    moved = poses.of(rows, pair[1])
    joint.put(rows, 0, PoseSet(moved.rotations @ rotation, moved.shifts - moved.rotations @ shift, moved.scores))
    common = make_references(particles, halves, joint, members.float()[:, None], particles.finest)
    refine_classes(particles, halves, common, radius, joint, n_steps=4, only=members)
    return significance(mixture_gain(both) - 0.5 * joint.scores[members, 0].square())


def mixture_gain(scores: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Log-likelihood of each particle in a mixture of classes, sizes as they are: ``log Σ π exp(s²/2)``."""
    gain = 0.5 * scores.square()
    shares = torch.softmax(gain, dim=1).mean(dim=0).clamp_min(1e-3)
    return torch.logsumexp(gain + shares.log(), dim=1)


def significance(gains: Float[Tensor, " n"]) -> float:
    """Mean gain of the particles, in standard errors of this mean."""
    return float(gains.mean() / (gains.std() / math.sqrt(len(gains))).clamp_min(1e-9))
