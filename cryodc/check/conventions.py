"""Which convention the poses of a particle set follow, judged by the particles themselves.

Under the right convention particles add up: each agrees with the average of the others. Under a wrong one the
average is a blur. Agreement is measured leave-one-out, so a particle's noise never meets itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.fourier import (
    FourierBall,
    ParticleStack,
    fourier_ball,
    hermitian_count,
    shell_index,
    turn_back,
    turned_ramps,
    view_mask,
    weighted_spectra,
)

Origin = Literal["as given", "negated", "ignored", "rotated", "rotated, negated"]
Frame = Literal["as given", "z flipped", "y flipped", "x flipped", "z and x swapped"]
FIRST_SHELL, LAST_SHELL = 2, 8
"""Shells compared: the first is the same blob in every pose."""
_BATCH = 16
_ORIGINS: tuple[Origin, ...] = ("as given", "negated", "ignored", "rotated", "rotated, negated")
_FRAMES: dict[Frame, tuple[tuple[float, float, float], ...]] = {
    "as given": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "z flipped": ((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "y flipped": ((1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "x flipped": ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "z and x swapped": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
}


@dataclass(frozen=True)
class Convention:
    """How a file's poses may have to be read, beside RELION's way.

    Parameters
    ----------
    inverted
        Its rotations take the particle to the reference.
    origin
        What its origins are: RELION's, of opposite sign, already applied to the volumes (``ignored``), or in the
        frame of the reference (``rotated``).
    frame
        The poses are those of volumes that are mirrored so.
    """

    inverted: bool = False
    origin: Origin = "as given"
    frame: Frame = "as given"

    @property
    def complexity(self) -> int:
        """In how many ways it departs from RELION's."""
        return int(self.inverted) + int(self.origin != "as given") + int(self.frame != "as given")

    def apply(
        self, rotations: Float[Tensor, "n 3 3"], origins: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]:
        """Give the poses in RELION's convention, if this is the one the file follows."""
        turn = rotations.transpose(1, 2) if self.inverted else rotations
        if self.origin.startswith("rotated"):
            origins = torch.einsum("nij,nj->ni", turn, origins)
        if self.origin.endswith("negated"):
            origins = -origins
        if self.origin == "ignored":
            origins = torch.zeros_like(origins)
        mirror = torch.tensor(_FRAMES[self.frame], dtype=turn.dtype, device=turn.device)
        return mirror @ turn @ mirror, origins @ mirror


RELION = Convention()


@dataclass(frozen=True)
class ConventionScores:
    """How well particles agree under each of several conventions.

    Parameters
    ----------
    agreement
        ``(c, n)``: each particle's cross-term with the average of the others, whitened; expectation 0 for noise.
    fsc
        ``(c, shells)`` of the half maps, DC to ``LAST_SHELL``; 0 in the shells not compared.
    """

    agreement: Float[Tensor, "c n"]
    fsc: Float[Tensor, "c shells"]


def candidate_conventions() -> list[Convention]:
    """Every combination, simplest first; RELION's is the first."""
    every = [
        Convention(inverted, origin, frame) for inverted in (False, True) for frame in _FRAMES for origin in _ORIGINS
    ]
    return sorted(every, key=lambda convention: convention.complexity)


def standard_errors(difference: Float[Tensor, " n"]) -> float:
    """Mean over its standard error of a difference between two agreements, particle by particle.

    Each pair of particles counts in both of them, so their sum varies up to twice as much as ``n`` independent
    numbers would: the standard error is ``2 s / √n``.
    """
    if float(difference.abs().max()) < 1e-9:
        return 0.0
    return float(difference.mean() * math.sqrt(len(difference)) / (2 * difference.std()).clamp_min(1e-12))


@torch.no_grad()
def score_conventions(
    stack: ParticleStack,
    rotations: Float[Tensor, "n 3 3"],
    origins_voxels: Float[Tensor, "n 3"],
    half_sets: Int[Tensor, " n"],
    conventions: Sequence[Convention],
) -> ConventionScores:
    """Average particles under each convention and compare each with the average of the others.

    With ``Y_i`` the particle's weighted spectrum turned back to the reference, ``D_i`` its squared weight there
    and ``r`` the mean of ``D``, agreement is ``Re Σ_k Y_i* Σ_{j≠i} Y_j / (Σ_{j≠i} D_j + r)`` over shells 2 to 8.

    Parameters
    ----------
    stack
        The particles, of any scale.
    rotations, origins_voxels
        As the file has them, in the sense of :class:`cryodc.particles.table.Poses`.
    half_sets
        ``(n,)`` 1 or 2, for the FSC.
    conventions
        To be tried.
    """
    box = stack.box_size
    ball = fourier_ball(box, LAST_SHELL + 0.5)
    keep = (ball.shells >= FIRST_SHELL) & (ball.shells <= LAST_SHELL)
    ball = FourierBall(box, ball.frequencies[keep], ball.index[keep], ball.shells[keep])
    turns = list(dict.fromkeys(Convention(c.inverted, frame=c.frame) for c in conventions))
    spectra, powers = _turn_back(stack, rotations, origins_voxels, turns, ball)
    agreements, curves = [], []
    for convention in conventions:
        turn = turns.index(Convention(convention.inverted, frame=convention.frame))
        turned, origins = convention.apply(rotations, origins_voxels)
        aligned = spectra[turn] * turned_ramps(ball, turned, origins).conj()
        agreements.append(_leave_one_out(aligned, powers[turn]))
        curves.append(_half_map_fsc(aligned, powers[turn], half_sets, ball))
    return ConventionScores(torch.stack(agreements), torch.stack(curves))


def _turn_back(
    stack: ParticleStack, rotations: Tensor, origins: Tensor, turns: Sequence[Convention], ball: FourierBall
) -> tuple[Tensor, Tensor]:
    """``H F`` and ``H²`` of every particle at ``A k``, for each way to read ``A``: ``(turns, n, p)``, shifts left."""
    shells = shell_index(ball.box_size)
    noise = _shell_noise(stack, shells)
    spectra = torch.empty(len(turns), len(stack), len(ball), dtype=torch.complex64)
    powers = torch.empty(len(turns), len(stack), len(ball))
    mask, dims = view_mask(ball.box_size), (-3, -2, -1)
    for rows, part in stack.batches(_BATCH):
        whitened = torch.fft.irfftn(
            torch.fft.rfftn(part.volumes * mask, dim=dims) / noise[shells], s=mask.shape, dim=dims
        )
        fine = weighted_spectra(whitened, part.own_weights, float(LAST_SHELL + 1))
        for i, turn in enumerate(turns):
            turned = turn.apply(rotations[rows], origins[rows])[0]
            spectra[i, rows], powers[i, rows] = turn_back(fine, ball, turned, torch.zeros_like(origins[rows]))
    return spectra, powers


def _shell_noise(stack: ParticleStack, shells: Tensor) -> Tensor:
    """Root mean power of a particle where it was measured, in each shell."""
    mask = view_mask(stack.box_size)
    power = torch.zeros(shells.shape)
    for _, part in stack.batches(_BATCH):
        power += torch.fft.rfftn(part.volumes * mask, dim=(-3, -2, -1)).abs().square().sum(dim=0)
    used, counts = torch.unique(stack.weight_index, return_counts=True)
    measured = torch.einsum("m,mdhw->dhw", counts.float(), stack.weights[used].square())
    count = hermitian_count(stack.box_size)
    top, bottom = (
        torch.zeros(int(shells.max()) + 1).index_add_(0, shells.flatten(), (values * count).flatten())
        for values in (power, measured)
    )
    return (top / bottom.clamp_min(1e-9)).sqrt().clamp_min(1e-12)


def _leave_one_out(aligned: Tensor, powers: Tensor) -> Tensor:
    others = (aligned.sum(dim=0) - aligned) / (powers.sum(dim=0) - powers + powers.mean())
    return (aligned.conj() * others).real.sum(dim=1)


def _half_map_fsc(aligned: Tensor, powers: Tensor, half_sets: Tensor, ball: FourierBall) -> Tensor:
    members = [half_sets == half for half in (1, 2)]
    first, second = (aligned[member].sum(dim=0) / (powers[member].sum(dim=0) + powers.mean()) for member in members)
    cross, one, other = (
        torch.zeros(LAST_SHELL + 1).index_add_(0, ball.shells, values)
        for values in ((first * second.conj()).real, first.abs().square(), second.abs().square())
    )
    return cross / (one * other).sqrt().clamp_min(1e-20)
