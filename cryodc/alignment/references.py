"""References of several classes in two halves, and the pose and score of each particle on each of them.

A particle is compared only with references made of the *other* half set. So no reference holds the noise of the
particle it is compared with, a class does not attract its members by what they already gave it, and scores are those
of held-out particles.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cryodc.alignment.search import PoseSet
from cryodc.alignment.spectra import ClassSpectra
from cryodc.fourier import agreeing_shells, mean_noise, shift_lattice

LOWEST_RADIUS = 6.0
"""Shells that scores use at least."""
_NEGLIGIBLE = 0.01
_HOPELESS, _HOPELESS_SHARE = 4.0, 0.25
"""A class whose score is lower than the best by this, and by this share of it, has no chance: poses on it can wait."""
_SEARCH_STEP = 18.0


@dataclass
class ClassPoses:
    """Pose and score of every particle against every class.

    Parameters
    ----------
    rotations, shifts, scores
        ``(n, k, 3, 3)``, ``(n, k, 3)`` zyx in voxels, and ``(n, k)`` in units of the noise. Half the square of a score
        is the log-likelihood gained over pure noise.
    """

    rotations: Float[Tensor, "n k 3 3"]
    shifts: Float[Tensor, "n k 3"]
    scores: Float[Tensor, "n k"]

    def of(self, rows: Tensor, label: int) -> PoseSet:
        """Poses of some particles against one class."""
        return PoseSet(self.rotations[rows, label], self.shifts[rows, label], self.scores[rows, label])

    def put(self, rows: Tensor, label: int, pose: PoseSet) -> None:
        """Store what :meth:`of` gives."""
        self.rotations[rows, label], self.shifts[rows, label] = pose.rotations, pose.shifts
        self.scores[rows, label] = pose.scores

    def select(self, labels: list[int]) -> "ClassPoses":
        """Of some classes only."""
        return ClassPoses(self.rotations[:, labels], self.shifts[:, labels], self.scores[:, labels])

    def rows(self, rows: Tensor) -> "ClassPoses":
        """Of some particles only."""
        return ClassPoses(self.rotations[rows], self.shifts[rows], self.scores[rows])

    def beside(self, others: "ClassPoses") -> "ClassPoses":
        """Of the same particles against these classes, and then against others."""
        pairs = ((getattr(self, name), getattr(others, name)) for name in ("rotations", "shifts", "scores"))
        return ClassPoses(*(torch.cat(pair, dim=1) for pair in pairs))


@dataclass
class References:
    """Two maps of each class, one of each half set.

    Parameters
    ----------
    maps
        ``(k, 2, d, h, w)``, Wiener-filtered by their FSC.
    fsc
        ``(k, shells)`` between the two.
    """

    maps: Float[Tensor, "k 2 d h w"]
    fsc: Float[Tensor, "k shells"]

    def __len__(self) -> int:
        return len(self.maps)

    def radius(self, finest: float) -> float:
        """Shells that scores use: those in which the halves of most classes agree, and one more."""
        good = torch.tensor([float(agreeing_shells(curve, 0.2)) for curve in self.fsc])
        return min(finest, max(LOWEST_RADIUS, float(good.median()) + 1.0))

    def select(self, labels: list[int]) -> "References":
        """Of some classes only."""
        return References(self.maps[labels], self.fsc[labels])


def empty_poses(n_particles: int, n_classes: int, device: torch.device) -> ClassPoses:
    """Poses not yet known: no score."""
    eye = torch.eye(3, device=device).repeat(n_particles, n_classes, 1, 1)
    shape = (n_particles, n_classes)
    return ClassPoses(eye, torch.zeros(*shape, 3, device=device), torch.zeros(shape, device=device))


def make_references(
    particles: ClassSpectra, halves: Int[Tensor, " n"], poses: ClassPoses, shares: Float[Tensor, "n k"], radius: float
) -> References:
    """Average every class in two halves, each particle counting by its share of the class.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each.
    poses
        Of every particle on every class.
    shares
        ``(n, k)`` by which each particle counts in each class.
    radius
        Shells that averages reach to.
    """
    maps, curves = [], []
    for label in range(shares.shape[1]):
        sums = []
        for half in (1, 2):
            rows = torch.nonzero((halves == half) & (shares[:, label] > _NEGLIGIBLE))[:, 0]
            pose = poses.of(rows, label)
            sums.append(particles.sums(rows, pose.rotations, pose.shifts, radius, shares[rows, label]))
        first, second, fsc = particles.reference(sums[0], sums[1])
        maps.append(torch.stack([first, second]))
        curves.append(fsc)
    return References(torch.stack(maps), torch.stack(curves))


def search_classes(
    particles: ClassSpectra,
    halves: Int[Tensor, " n"],
    references: References,
    radius: float,
    poses: ClassPoses,
    labels: list[int],
    generator: torch.Generator,
    only: Bool[Tensor, " n"] | None = None,
) -> None:
    """Search all rotations and shifts of particles (``only`` some) against some classes; poses change in place.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each.
    references
        Of the classes.
    radius
        Shells that are looked at.
    poses
        Of every particle on every class; those that are found replace them.
    labels
        The classes to search.
    generator
        Turns the grid of rotations.
    only
        ``(n,)`` which particles; all by default.
    """
    lattice = shift_lattice(2.6, 1.5, halves.device)
    for label in labels:
        for half in (1, 2):
            rows = torch.nonzero((halves == half) & (True if only is None else only))[:, 0]
            if not len(rows):
                continue
            known = poses.of(rows, label) if bool(poses.scores[rows, label].any()) else None
            reference = references.maps[label, 2 - half]
            pose = particles.search(
                rows, reference, radius, _SEARCH_STEP, lattice, generator, known, n_candidates=3, n_steps=5
            )
            poses.put(rows, label, pose)


def refine_classes(
    particles: ClassSpectra,
    halves: Int[Tensor, " n"],
    references: References,
    radius: float,
    poses: ClassPoses,
    n_steps: int = 3,
    only: Bool[Tensor, " n"] | None = None,
) -> None:
    """Refine poses locally and in place, against every class whose score is near the particle's best.

    A class whose score is far below a particle's best is only scored, in its present pose.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each.
    references
        Of the classes.
    radius
        Shells that are looked at.
    poses
        Of every particle on every class, changed in place.
    n_steps
        Steps uphill.
    only
        ``(n,)`` which particles; all by default.
    """
    likely = worth_refining(poses.scores)
    among = torch.ones_like(halves, dtype=torch.bool) if only is None else only
    for label in range(len(references)):
        for half in (1, 2):
            reference = references.maps[label, 2 - half]
            for wanted, steps in ((True, n_steps), (False, 0)):
                rows = torch.nonzero((halves == half) & among & (likely[:, label] == wanted))[:, 0]
                if len(rows):
                    poses.put(rows, label, particles.refine(rows, reference, radius, poses.of(rows, label), steps))


def worth_refining(scores: Float[Tensor, "n k"]) -> Bool[Tensor, "n k"]:
    """Classes whose score is near a particle's best."""
    best = scores.max(dim=1, keepdim=True).values
    return scores > best - (_HOPELESS_SHARE * best).clamp_min(_HOPELESS)


def estimate_noise(
    particles: ClassSpectra, halves: Int[Tensor, " n"], references: References, poses: ClassPoses
) -> None:
    """Noise of each shell, from the particles minus the class that fits each of them best.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each; their noise is set.
    references
        Of the classes.
    poses
        Of every particle on every class.
    """
    best = poses.scores.argmax(dim=1)
    parts = []
    for label in range(len(references)):
        for half in (1, 2):
            rows = torch.nonzero((halves == half) & (best == label))[:, 0]
            if len(rows):
                left = particles.unexplained(rows, references.maps[label, 2 - half], poses.of(rows, label))
                parts.append((left, len(rows)))
    particles.noise = mean_noise(parts)


def cluster_log_prior(posterior: Float[Tensor, "n k"], clusters: Int[Tensor, " n"]) -> Float[Tensor, "n k"]:
    """Log share of each class within each particle's cluster. One particle of each class is added to every cluster."""
    member = torch.nn.functional.one_hot(clusters).to(posterior.dtype)
    counts = member.T @ posterior + 1.0
    return (counts / counts.sum(dim=1, keepdim=True)).log()[clusters]


def join_references(parts: list[References]) -> References:
    """Join several sets of references."""
    return References(torch.cat([part.maps for part in parts]), torch.cat([part.fsc for part in parts]))
