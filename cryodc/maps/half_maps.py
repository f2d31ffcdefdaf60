"""Half maps of particles in given poses, what they agree on, and the average that follows from it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.device import share, sum_over_team
from cryodc.fourier import (
    FourierBall,
    HalfMapFsc,
    Particles,
    agreeing_shells,
    density_mask,
    fine_spectrum,
    fourier_ball,
    half_map_fsc,
    mean_weights,
    predict,
    stack_spectra,
    turn_back,
    volume_from_ball,
    weighted_spectra,
)
from cryodc.geometry import symmetrise
from cryodc.maps.coverage import Coverage, measure_coverage

_AT_ONCE = 8
"""Particles that are held at once, twice as fine as their box."""
_VALUES_AT_ONCE = 400_000
"""Fourier values that are held at once in the poses of their particles."""


@dataclass(frozen=True)
class HalfMaps:
    """An average, its two halves, and how well they agree.

    Parameters
    ----------
    average
        ``(d, h, w)``: of every particle, Wiener-filtered by the FSC.
    halves
        ``(2, d, h, w)``: of each half set, unfiltered.
    mask
        ``(d, h, w)``: soft, what the FSC is computed within.
    fsc
        Between the halves within the mask, corrected for it.
    curves
        That FSC, and the others that it comes from.
    coverage
        What the particles measured of Fourier space.
    score
        Mean correlation of a particle with the half map it is not in, where its weight measures, to the resolution.
    """

    average: Float[Tensor, "d h w"]
    halves: Float[Tensor, "2 d h w"]
    mask: Float[Tensor, "d h w"]
    fsc: Float[NDArray[np.float64], " shells"]
    curves: HalfMapFsc
    coverage: Coverage
    score: float


@torch.no_grad()
def average_particles(
    stack: Particles,
    rotations: Float[Tensor, "n 3 3"],
    origins_voxels: Float[Tensor, "n 3"],
    half_sets: Int[NDArray[np.int64], " n"],
    independent: tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]] | None = None,
    symmetry: str = "C1",
    mask: Float[Tensor, "d h w"] | None = None,
) -> HalfMaps:
    """Average particles in given poses, and in two halves.

    Half maps are regularised by one average particle in each shell. The average is Wiener-filtered by the
    signal-to-noise their FSC shows: ``r = mean(Σ H²) · (1 − FSC) / (2 FSC)`` in each shell.

    Parameters
    ----------
    stack
        The particles.
    rotations, origins_voxels
        Poses as in :class:`cryodc.particles.table.Poses`, origins in voxels.
    half_sets
        ``(n,)`` 1 or 2.
    independent
        Rotations and origins for the half maps, where they differ.
    symmetry
        Point group imposed on every map; poses must have its axes where :func:`symmetry_rotations` has them.
    mask
        What the FSC is computed within, 0 to 1; by default the surroundings of the density.
    """
    box_size, device = stack.box_size, stack.device
    ball = fourier_ball(box_size, box_size / 2, device)
    first_turn, first_move = independent or (rotations, origins_voxels)
    sums = []
    for half in (1, 2):
        rows = torch.from_numpy(np.flatnonzero(half_sets == half)).to(device)
        half_sums = average_sums(stack.select(rows), first_turn[rows], first_move[rows], ball)
        sums.append(symmetrise(*half_sums, ball, symmetry))
    squared, seen = mean_weights(stack, ball)
    one = squared[ball.shells].clamp_min(1e-9)
    halves = torch.stack([volume_from_ball(top / (bottom + one), ball) for top, bottom in sums])
    mask = density_mask(halves.mean(dim=0)) if mask is None else mask
    curves = half_map_fsc(halves, mask)
    fsc = curves.corrected
    if independent is None:
        top, bottom = sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]
    else:
        whole = average_sums(stack, rotations, origins_voxels, ball)
        top, bottom = symmetrise(*whole, ball, symmetry)
    known = torch.from_numpy(fsc).float().to(device).clamp(0.02, 0.99)
    damping = ball.shell_mean(bottom)[ball.shells] * ((1 - known) / (2 * known))[ball.shells.clamp_max(len(fsc) - 1)]
    average = volume_from_ball(top / (bottom + damping + 1e-3 * one), ball)
    finest = float(max(3, min(agreeing_shells(fsc), box_size // 2 - 1)))
    score = _mean_correlation(stack, (first_turn, first_move), half_sets, halves * mask, ball.within(finest))
    coverage = measure_coverage(bottom, squared, seen, len(stack), ball)
    return HalfMaps(average, halves, mask, fsc, curves, coverage, score)


def average_sums(
    stack: Particles,
    rotations: Float[Tensor, "n 3 3"],
    origins_voxels: Float[Tensor, "n 3"],
    ball: FourierBall,
) -> tuple[Complex[Tensor, " p"], Float[Tensor, " p"]]:
    """Numerator and denominator of the average of all particles, each turned back by itself.

    Backprojection on the fine grid of a map is quicker, and serves while particles are aligned. Turning each particle
    back from its own fine grid leaves less than half the error of interpolation, and serves what is written.

    Parameters
    ----------
    stack
        The particles.
    rotations, origins_voxels
        Their poses.
    ball
        Where the average is wanted.
    """
    numerator = torch.zeros(len(ball), dtype=torch.complex64, device=stack.device)
    denominator = torch.zeros(len(ball), device=stack.device)
    for c in share(len(stack), _AT_ONCE):
        part = stack.select(c).read()
        fine = weighted_spectra(part.volumes, part.own_weights)
        data, power = turn_back(fine, ball, rotations[c], origins_voxels[c])
        numerator += data.sum(dim=0)
        denominator += power.sum(dim=0)
    sum_over_team(numerator, denominator)
    return numerator, denominator


def _mean_correlation(
    stack: Particles,
    poses: tuple[Tensor, Tensor],
    half_sets: NDArray[np.int64],
    halves: Tensor,
    ball: FourierBall,
) -> float:
    total = torch.zeros(1, dtype=torch.float64, device=stack.device)
    for half in (1, 2):
        rows = torch.from_numpy(np.flatnonzero(half_sets == half)).to(stack.device)
        fine = fine_spectrum(halves[2 - half][None])[0]
        for c in share(len(rows), max(1, _VALUES_AT_ONCE // len(ball))):
            particles = stack_spectra(stack.select(rows[c]).read(), ball)
            rotations, origins = poses[0][rows[c]], poses[1][rows[c]]
            model = predict(fine, ball, particles.own_weights, rotations, origins)
            spectra = particles.spectra * particles.measured.float()[particles.weight_index]
            norm = (model.abs().square().sum(dim=1) * spectra.abs().square().sum(dim=1)).sqrt().clamp_min(1e-20)
            total += ((spectra * model.conj()).real.sum(dim=1) / norm).sum()
    sum_over_team(total)
    return float(total) / len(stack)
