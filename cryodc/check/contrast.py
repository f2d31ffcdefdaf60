"""Contrast: whether protein is white or black in a set of particles."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.fourier import standardise

Sign = Literal["white", "black", "undetermined"]
_MIN_SCORE = 5.0
_MIN_PARTICLES = 5


@dataclass(frozen=True)
class Contrast:
    """Whether protein is white (positive) or black in the particles.

    Parameters
    ----------
    sign
        ``undetermined`` where the score is within ±5, or there are fewer than 5 particles.
    score
        Mean over particles of (centre minus surroundings), in standard errors; positive is white.
    n_particles
        Particles it was measured on.
    """

    sign: Sign
    score: float
    n_particles: int


def contrast_sign(volumes: Float[Tensor, "n d h w"]) -> Contrast:
    """Decide whether the middle of the boxes is brighter or darker than what surrounds it.

    For several radii ``r``, each particle gives the mean within ``r`` minus the mean between ``r`` and the
    largest sphere in the box. The radius at which the mean of these over particles stands most standard
    errors from 0 decides: so neither the size of the protein nor a dark fringe around it has to be known.

    Parameters
    ----------
    volumes
        ``(n, d, h, w)``, any scale.
    """
    n_particles, box = len(volumes), volumes.shape[-1]
    if n_particles < _MIN_PARTICLES:
        return Contrast("undetermined", 0.0, n_particles)
    axis = torch.arange(box, device=volumes.device) - box // 2
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).float().norm(dim=0)
    standardised = standardise(volumes).flatten(1)
    scores = []
    for share in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35):
        inner = (radius <= share * box).flatten()
        outer = (radius <= box / 2).flatten() & ~inner
        difference = standardised[:, inner].mean(dim=1) - standardised[:, outer].mean(dim=1)
        error = float(difference.std()) / math.sqrt(n_particles)
        scores.append(float(difference.mean()) / max(error, 1e-12))
    score = max(scores, key=abs)
    if abs(score) < _MIN_SCORE:
        return Contrast("undetermined", score, n_particles)
    return Contrast("white" if score > 0 else "black", score, n_particles)
