"""Whether the poses of a STAR are RELION's, by how well the particles agree under each way of reading them."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cryodc.check.conventions import (
    FIRST_SHELL,
    RELION,
    Convention,
    candidate_conventions,
    score_conventions,
    standard_errors,
)
from cryodc.check.sample import Sample
from cryodc.check.wedge import WedgeCheck
from cryodc.dataset import whiten
from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, crop_weights, fourier_crop, standardise, wedge_from_tilt_range
from cryodc.io import Problem
from cryodc.particles import Poses

Verdict = Literal["RELION", "other", "undetermined"]
LEAST_STANDARD_ERRORS = 4.0
"""What a convention must win by: over RELION's, and over its own rotations shuffled among the particles."""
_EQUAL = 2.0
"""Of conventions that are not worse than the best by more standard errors, the simplest is named."""
_BOX = 20
"""Holds the shells compared; larger boxes are Fourier-cropped to it."""
_FEWEST = 12
_ORIGIN_REMEDIES = {
    "as given": "",
    "negated": "change the sign of rlnOriginX, Y and Z",
    "ignored": "the volumes are centred already: set rlnOriginX, Y and Z to 0",
    "rotated": "the origins are in the frame of the reference: replace each o by A·o",
    "rotated, negated": "the origins are in the frame of the reference, of opposite sign: replace each o by −A·o",
}
_FRAME_REMEDIES = {
    "as given": "",
    "z flipped": "flip the volumes along z, or replace tilt by −tilt and rlnOriginZ by −rlnOriginZ",
    "y flipped": "flip the volumes along y, or replace rot, psi and rlnOriginY by their negatives",
    "x flipped": "flip the volumes along x, or replace rot, tilt, psi and rlnOriginX by their negatives",
    "z and x swapped": "exchange the z and x axes of the volumes",
}


@dataclass(frozen=True)
class ConventionScore:
    """One convention.

    Parameters
    ----------
    convention
        How the poses were read.
    fsc
        Mean FSC of the half maps, shells 2 to 8 of the box they were cropped to.
    over_relion
        How many standard errors the particles agree better than under RELION's.
    """

    convention: Convention
    fsc: float
    over_relion: float


@dataclass(frozen=True)
class PoseCheck:
    """Which convention the poses follow.

    Parameters
    ----------
    verdict
        ``RELION`` where poses read its way agree and no other way is significantly better, ``other`` where one is,
        ``undetermined`` where none says more than shuffled rotations.
    found
        The convention named, simplest of those that are not significantly worse than the best.
    over_shuffled
        How many standard errors the particles agree better under it than with its rotations shuffled.
    scores
        Of all conventions, RELION's first.
    n_particles
        How many were averaged.
    """

    verdict: Verdict
    found: Convention
    over_shuffled: float
    scores: tuple[ConventionScore, ...]
    n_particles: int

    def score(self, convention: Convention) -> ConventionScore:
        """Give the score of one convention."""
        return next(score for score in self.scores if score.convention == convention)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return {
            "verdict": self.verdict,
            "found": describe_convention(self.found),
            "over_shuffled": self.over_shuffled,
            "n_particles": self.n_particles,
            "conventions": [
                {**vars(score.convention), "fsc": score.fsc, "over_relion": score.over_relion} for score in self.scores
            ],
        }


def check_poses(sample: Sample, wedge: WedgeCheck, seed: int) -> tuple[PoseCheck | None, list[Problem]]:
    """Average the sample under every convention; None without poses, or with too few particles."""
    poses = sample.particles.poses
    if poses is None or len(sample) < _FEWEST or not np.ptp(poses.rotations, axis=0).any():
        return None, []
    check = _judge(sample, poses, wedge, seed)
    return check, [Problem(None, _other_convention(check))] if check.verdict == "other" else []


def describe_convention(convention: Convention) -> str:
    """Say how a convention departs from RELION's.

    Examples
    --------
    >>> describe_convention(Convention(inverted=True, origin="negated"))
    'rotations inverted, origins negated'
    """
    parts = [
        "rotations inverted" if convention.inverted else "",
        "" if convention.origin == "as given" else f"origins {convention.origin}",
        "" if convention.frame == "as given" else f"volumes mirrored ({convention.frame})",
    ]
    return ", ".join(part for part in parts if part) or "as RELION"


def _judge(sample: Sample, poses: Poses, wedge: WedgeCheck, seed: int) -> PoseCheck:
    stack = _prepare(sample, wedge)
    spacing = sample.spacing_angstrom * sample.volumes.shape[-1] / stack.box_size
    rotations = torch.from_numpy(poses.rotations).float()
    origins = torch.from_numpy(poses.origins_angstrom / spacing).float()
    halves = _half_sets(sample, seed)
    conventions = candidate_conventions()
    scores = score_conventions(stack, rotations, origins, halves, conventions)
    agreement = scores.agreement
    best = agreement[int(agreement.mean(dim=1).argmax())]
    found = next(i for i, one in enumerate(agreement) if standard_errors(best - one) < _EQUAL)
    # The sample is in random order, so its neighbour's rotation is any other's.
    order = torch.arange(len(sample)).roll(1)
    tried = [RELION] if found == 0 else [RELION, conventions[found]]
    shuffled = score_conventions(stack, rotations[order], origins, halves, tried).agreement
    over_relion = [standard_errors(one - agreement[0]) for one in agreement]
    supported = standard_errors(agreement[found] - shuffled[-1])
    verdict: Verdict = "undetermined"
    if found and min(supported, over_relion[found]) >= LEAST_STANDARD_ERRORS:
        verdict = "other"
    elif standard_errors(agreement[0] - shuffled[0]) >= LEAST_STANDARD_ERRORS:
        verdict, found, supported = "RELION", 0, standard_errors(agreement[0] - shuffled[0])
    fsc = scores.fsc[:, FIRST_SHELL:].mean(dim=1).tolist()
    table = tuple(ConventionScore(*row) for row in zip(conventions, fsc, over_relion, strict=True))
    return PoseCheck(verdict, conventions[found], supported, table, len(sample))


def _prepare(sample: Sample, wedge: WedgeCheck) -> ParticleStack:
    """Particles under the one observation model, in a box of at most 20."""
    volumes, weights, index = sample.volumes, sample.weights, sample.weight_index
    box = volumes.shape[-1]
    if weights is None or index is None:
        measured = wedge.measured
        full = torch.ones(box, box, box // 2 + 1)
        usable = wedge.visible and measured.beam == "z" and measured.tilt_axis != "z"
        if usable:
            low, high = measured.tilt_range
            full = wedge_from_tilt_range(box, max(low, -90), min(high, 90), "x" if measured.tilt_axis == "x" else "y")
        weights, index = full[None], torch.zeros(len(volumes), dtype=torch.long)
    elif sample.whitening:
        weights = weights.clamp_min(0).sqrt()
        volumes = torch.stack([whiten(volume, weights[i]) for volume, i in zip(volumes, index, strict=True)])
    if box > _BOX:
        volumes, weights = fourier_crop(volumes, _BOX), crop_weights(weights, _BOX)
    return ParticleStack(standardise(volumes), weights, index)


def _half_sets(sample: Sample, seed: int) -> Tensor:
    halves = sample.particles.half_sets
    if halves is not None and min((halves == 1).sum(), (halves == 2).sum()) >= len(sample) // 3:
        return torch.from_numpy(halves)
    order = np.random.default_rng(seed).permutation(len(sample))
    return torch.from_numpy(1 + order % 2)


def _other_convention(check: PoseCheck) -> InputError:
    found, relion = check.score(check.found), check.score(RELION)
    parts = [
        "invert each rotation: rot, tilt, psi become −psi, −tilt, −rot" if check.found.inverted else "",
        _ORIGIN_REMEDIES[check.found.origin],
        _FRAME_REMEDIES[check.found.frame],
    ]
    return InputError(
        "the poses fit the particles in another convention than RELION's",
        expected=f"best half maps with the poses as RELION reads them; their FSC is {relion.fsc:.2f} (shells 2 to 8)",
        found=f"{describe_convention(check.found)}: FSC {found.fsc:.2f}; {check.n_particles} particles agree better "
        f"by {found.over_relion:.1f} standard errors, and by {check.over_shuffled:.1f} than with rotations shuffled",
        remedy="; ".join(part for part in parts if part),
    )
