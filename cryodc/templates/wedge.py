"""The effect of the missing wedge on scores, and its correction.

A template that is longer one way than the other fits a particle worse where more of that part was not measured. In the
pose in which the template fits best it is known which part that is, so the effect can be learned and taken away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import ClassPoses
from cryodc.fourier import ParticleSpectra

_FEWEST = 40
_RIDGE = 1e-2


def ball_moments(particles: ParticleSpectra) -> Float[Tensor, "m 3 3"]:
    """``Σ k̂ k̂ᵀ`` over missing voxels of the ball, divided by the number of all: how much is missing, and where.

    :func:`cryodc.fourier.wedge.missing_moments` of the ball alone, with a weight near nothing counted as missing.
    """
    directions = particles.ball.frequencies / particles.ball.frequencies.norm(dim=1, keepdim=True)
    missing = (~particles.measured).to(directions.dtype)
    return torch.einsum("mp,pi,pj->mij", missing, directions, directions) / len(directions)


def wedge_on_best(particles: ParticleSpectra, poses: ClassPoses) -> Float[NDArray[np.float64], "n 6"]:
    """:func:`wedge_seen` in the pose of each particle on the template that fits it best."""
    best = poses.scores.argmax(dim=1)
    return wedge_seen(particles, poses.rotations[torch.arange(len(best), device=best.device), best])


def wedge_seen(particles: ParticleSpectra, rotations: Float[Tensor, "n 3 3"]) -> Float[NDArray[np.float64], "n 6"]:
    """The missing wedge of each particle in the frame of a map that it lies on with ``A``: the moments ``Aᵀ M A``."""
    moments = ball_moments(particles)[particles.weight_index]
    seen = rotations.transpose(1, 2) @ moments @ rotations
    rows, columns = torch.triu_indices(3, 3)
    return seen[:, rows, columns].double().cpu().numpy()


@dataclass(frozen=True)
class WedgeFit:
    """Of the particles of one group: ``score = … + terms(seen) · coefficients``."""

    centre: Float[NDArray[np.float64], " 6"]
    scale: float
    mean: Float[NDArray[np.float64], " q"]
    coefficients: Float[NDArray[np.float64], "q k"]


@dataclass(frozen=True)
class WedgeCorrection:
    """Scores with the effect of the missing wedge subtracted.

    Parameters
    ----------
    fits
        By group; those of too few particles are not corrected.
    degree
        Of the polynomial in the moments, 1 or 2.
    """

    fits: dict[int, WedgeFit]
    degree: int

    def apply(
        self,
        scores: Float[NDArray[np.float64], "n k"],
        groups: Int[NDArray[np.int64], " n"],
        seen: Float[NDArray[np.float64], "n 6"],
    ) -> Float[NDArray[np.float64], "n k"]:
        """Correct scores. The mean over the particles that a group was fitted to does not change."""
        corrected = scores.copy()
        for group, fit in self.fits.items():
            rows = groups == group
            terms = _terms((seen[rows] - fit.centre) / fit.scale, self.degree) - fit.mean
            corrected[rows] -= terms @ fit.coefficients
        return corrected


def corrected_scores(
    particles: ParticleSpectra, poses: ClassPoses, corrections: Sequence[WedgeCorrection]
) -> Float[NDArray[np.float64], "n k"]:
    """Scores of particles after corrections by the template that fits each best."""
    scores, best = poses.scores.double().cpu().numpy(), poses.scores.argmax(dim=1).cpu().numpy()
    seen = wedge_on_best(particles, poses)
    for correction in corrections:
        scores = correction.apply(scores, best, seen)
    return scores


def fit_correction(
    scores: Float[NDArray[np.float64], "n k"],
    groups: Int[NDArray[np.int64], " n"],
    seen: Float[NDArray[np.float64], "n 6"],
    degree: int,
) -> WedgeCorrection:
    """Ridge regression of scores on the missing wedge, for each group by itself.

    Parameters
    ----------
    scores
        Of particles against all templates, or what is made of them.
    groups
        Particles that lie on one map: of one template, or alike.
    seen
        :func:`wedge_seen`.
    degree
        1, or 2 with squares and products.
    """
    fits = {}
    for group in np.unique(groups).tolist():
        rows = groups == group
        scale = float(seen[rows].std(axis=0).mean())
        if rows.sum() < _FEWEST or scale < 1e-9:
            continue
        centre = seen[rows].mean(axis=0)
        terms = _terms((seen[rows] - centre) / scale, degree)
        mean = terms.mean(axis=0)
        terms, rest = terms - mean, scores[rows] - scores[rows].mean(axis=0)
        ridge = _RIDGE * len(terms) * np.eye(terms.shape[1])
        fits[group] = WedgeFit(centre, scale, mean, np.linalg.solve(terms.T @ terms + ridge, terms.T @ rest))
    return WedgeCorrection(fits, degree)


def _terms(values: Float[NDArray[np.float64], "n 6"], degree: int) -> Float[NDArray[np.float64], "n q"]:
    if degree == 1:
        return values
    rows, columns = np.triu_indices(values.shape[1])
    return np.concatenate([values, values[:, rows] * values[:, columns]], axis=1)
