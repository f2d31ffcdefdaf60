"""Point groups: where the axes of a map lie, and averages over all mates."""

import math

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from cryodc.fourier import (
    FourierBall,
    ball_spectra,
    chunks,
    fine_spectrum,
    fourier_ball,
    sample_spectrum,
    volume_from_ball,
)
from cryodc.geometry.rotations import rotation_grid, rotations_from_vectors, symmetry_rotations

_MOST_MATES = 6
_COARSE_RADIUS = 6.0
_COARSE_STEP = 12.0
_N_CANDIDATES = 4


def find_axes(
    volume: Float[Tensor, "d h w"], symmetry: str, radius_shells: float
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, " 3"], float]:
    """Rotation and shift that put a map's axes where its point group has them.

    ``turned(x) = volume(R x + t)``, ``x`` zyx voxels from the box centre, agrees best with itself under the group.

    Parameters
    ----------
    volume
        A cube.
    symmetry
        As :func:`cryodc.geometry.rotations.symmetry_rotations` takes it.
    radius_shells
        Finest shell compared.

    Returns
    -------
    ``R``, ``t`` and the mean correlation of the turned map with its mates, shells weighted by the root of their power.
    """
    group = torch.from_numpy(symmetry_rotations(symmetry)).float()
    others = group[(group - torch.eye(3)).flatten(1).norm(dim=1) > 1e-3]
    if not len(others):
        return torch.eye(3), torch.zeros(3), 1.0
    whole = fourier_ball(volume.shape[-1], radius_shells)
    spectrum = ball_spectra(volume.cpu()[None], whole)
    half_whitened = spectrum * whole.shell_mean(spectrum.abs().square())[:, whole.shells].clamp_min(1e-12).pow(-0.25)
    flat = volume_from_ball(half_whitened[0], whole)
    fine = fine_spectrum(flat[None], radius_shells)
    centre = _centre_of_mass(volume.cpu())
    coarse = whole.within(min(radius_shells, _COARSE_RADIUS))
    grid = asymmetric_unit(rotation_grid(_COARSE_STEP), symmetry)
    # A few mates, spread over the group, are enough to compare with.
    others = others[np.unique(np.linspace(0, len(others) - 1, _MOST_MATES).round().astype(int))]
    agreement = torch.cat([_agreement(fine, coarse, grid[c], centre, others) for c in chunks(len(grid), 64)])
    starts = agreement.topk(min(_N_CANDIDATES, len(grid))).indices.tolist()
    found = max((_climb(fine, coarse, grid[start], centre, others) for start in starts), key=lambda item: item[2])
    return _climb(fine, whole, *found[:2], others)


def asymmetric_unit(grid: Float[Tensor, "r 3 3"], symmetry: str) -> Float[Tensor, "u 3 3"]:
    """Rotations ``A`` of a symmetric reference that are no further from the identity than any of their mates ``A g``.

    The others show the same view of it.
    """
    mates = torch.from_numpy(symmetry_rotations(symmetry)).to(grid)
    own = grid.diagonal(dim1=1, dim2=2).sum(dim=1) + 1e-5
    nearest = torch.einsum("rij,mji->rm", grid, mates).amax(dim=1)
    return grid[own >= nearest]


def symmetrise(
    numerator: Complex[Tensor, " p"], denominator: Float[Tensor, " p"], ball: FourierBall, symmetry: str
) -> tuple[Complex[Tensor, " p"], Float[Tensor, " p"]]:
    """Sums over a point group of the two sums of an average: every particle counts once for each mate.

    Parameters
    ----------
    numerator, denominator
        ``(p,)`` sums of an average.
    ball
        Where they lie.
    symmetry
        Point group, its axes where :func:`symmetry_rotations` has them.
    """
    group = torch.from_numpy(symmetry_rotations(symmetry)).float().to(denominator.device)
    if len(group) == 1:
        return numerator, denominator
    parts = torch.stack([volume_from_ball(v, ball) for v in (numerator, denominator.to(numerator.dtype))])
    fine = fine_spectrum(parts)
    total = torch.zeros(2, 2, len(ball), device=denominator.device)
    for mate in group:
        total += sample_spectrum(fine, (ball.frequencies @ mate.T).expand(2, -1, -1))
    return torch.complex(total[0, 0], total[0, 1]), total[1, 0].clamp_min(0)


def _agreement(fine: Tensor, ball: FourierBall, turns: Tensor, move: Tensor, mates: Tensor) -> Tensor:
    """Mean correlation of a map with its mates, its axes in each of some orientations, ``(r,)``."""
    own = _turned(fine, ball, turns, move)
    norm = own.abs().square().sum(dim=1).sqrt()
    total = torch.zeros(len(turns))
    for mate in mates:
        other = _turned(fine, ball, turns @ mate, move)
        length = other.abs().square().sum(dim=1).sqrt()
        total += (own * other.conj()).real.sum(dim=1) / (norm * length).clamp_min(1e-20)
    return total / len(mates)


def _turned(fine: Tensor, ball: FourierBall, turns: Tensor, move: Tensor) -> Tensor:
    """Spectra of ``volume(R x + t)``."""
    where = (ball.frequencies @ turns.transpose(1, 2)).reshape(1, -1, 3)
    values = sample_spectrum(fine, where)[0]
    angle = where[0] @ move * (2 * math.pi / ball.box_size)
    return (torch.complex(values[0], values[1]) * torch.polar(torch.ones_like(angle), angle)).reshape(len(turns), -1)


def _climb(fine: Tensor, ball: FourierBall, turn: Tensor, move: Tensor, mates: Tensor) -> tuple[Tensor, Tensor, float]:
    def placed(step: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        values = torch.from_numpy(step).float()
        # A tenth of a radian counts as much as a voxel.
        return turn @ rotations_from_vectors(0.1 * values[None, :3])[0], move + values[3:]

    def loss(step: NDArray[np.float64]) -> float:
        rotation, shift = placed(step)
        return -float(_agreement(fine, ball, rotation[None], shift, mates))

    origin = np.zeros(6)
    simplex = np.concatenate([np.zeros((1, 6)), 0.8 * np.eye(6)])
    found = minimize(
        loss,
        origin,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": 250, "xatol": 0.01, "fatol": 1e-5},
    )
    return *placed(found.x), -float(found.fun)


def _centre_of_mass(volume: Tensor) -> Tensor:
    n = volume.shape[-1]
    dense = (volume - 0.2 * volume.max()).clamp_min(0)
    axis = torch.arange(n, dtype=volume.dtype) - n // 2
    total = dense.sum().clamp_min(1e-12)
    return torch.stack([(dense.sum(dim=tuple(d for d in range(3) if d != a)) * axis).sum() / total for a in range(3)])
