"""Continuous refinement of poses: Levenberg–Marquardt on the normalised correlation."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.fourier import ParticleSpectra, chunks, predict_with_jacobian, slices
from cryodc.geometry import rotations_from_vectors


def refine_poses(
    particles: ParticleSpectra,
    references: Float[Tensor, "c 8 e e e"],
    reference_index: Int[Tensor, " n"],
    rotations: Float[Tensor, "n 3 3"],
    shifts_voxels: Float[Tensor, "n 3"],
    n_steps: int = 6,
    max_shift_voxels: float = math.inf,
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Move each pose uphill in the score of :func:`cryodc.fourier.score_poses`.

    Gauss–Newton steps on ``Σ |F − a H exp(2πi k·o/N) V(Aᵀk)|²`` over a rotation vector (``A ← exp(ω) A``) and a
    shift, the scale ``a`` at its best, damped for each particle alone; a step that lowers the score is undone.

    Parameters
    ----------
    particles
        Whitened: noise of variance 1.
    references, reference_index
        From :func:`cryodc.fourier.fine_gradient`, and which of them each particle is compared with.
    rotations, shifts_voxels
        Where to start.
    n_steps
        Steps; 0 only scores.
    max_shift_voxels
        No shift longer than this is accepted.

    Returns
    -------
    Rotations, shifts and scores.
    """
    results = [
        _refine_chunk(
            particles.select(rows),
            references,
            reference_index[rows],
            rotations[rows],
            shifts_voxels[rows],
            n_steps,
            max_shift_voxels,
        )
        for rows in chunks(len(particles), max(1, 400_000 // len(particles.ball)))
    ]
    turned, shifted, scores = (torch.cat(part) for part in zip(*results, strict=True))
    return turned, shifted, scores


def _refine_chunk(
    particles: ParticleSpectra,
    references: Tensor,
    reference_index: Tensor,
    rotations: Tensor,
    shifts: Tensor,
    n_steps: int,
    max_shift: float,
) -> tuple[Tensor, Tensor, Tensor]:
    device = particles.spectra.device
    damping = torch.full((len(particles),), 1e-2, device=device)
    best, residual_gradient, hessian = _normal_equations(particles, references, reference_index, rotations, shifts)
    diagonal = torch.eye(6, device=device)
    for _ in range(n_steps):
        scale = torch.diagonal(hessian, dim1=1, dim2=2).clamp_min(1e-12)
        damped = hessian + damping[:, None, None] * diagonal * scale[:, None]
        step = torch.linalg.solve(damped, residual_gradient[:, :, None])[:, :, 0]
        # No more than 12° or one voxel at once.
        turn, move = step[:, :3], step[:, 3:]
        turn = turn * (0.2 / turn.norm(dim=1, keepdim=True).clamp_min(0.2))
        move = move / move.norm(dim=1, keepdim=True).clamp_min(1.0)
        new_rotations = rotations_from_vectors(turn) @ rotations
        new_shifts = shifts + move
        score, new_gradient, new_hessian = _normal_equations(
            particles, references, reference_index, new_rotations, new_shifts
        )
        accepted = (score > best) & (new_shifts.norm(dim=1) <= max_shift)
        best = torch.where(accepted, score, best)
        rotations = torch.where(accepted[:, None, None], new_rotations, rotations)
        shifts = torch.where(accepted[:, None], new_shifts, shifts)
        residual_gradient = torch.where(accepted[:, None], new_gradient, residual_gradient)
        hessian = torch.where(accepted[:, None, None], new_hessian, hessian)
        damping = torch.where(accepted, damping * 0.3, damping * 8.0).clamp(1e-4, 1e6)
    return rotations, shifts, best


def _normal_equations(
    particles: ParticleSpectra, references: Tensor, reference_index: Tensor, rotations: Tensor, shifts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Score ``(n,)``, gradient ``(n, 6)`` and Gauss–Newton Hessian ``(n, 6, 6)``."""
    ball = particles.ball
    fields = torch.empty(len(particles), 8, len(ball), device=particles.spectra.device)
    for c, fine in enumerate(references):
        rows = reference_index == c
        if bool(rows.any()):
            fields[rows] = slices(fine, ball, rotations[rows])
    model, derivatives = predict_with_jacobian(fields, ball, particles.own_weights, rotations, shifts)
    jacobian = torch.view_as_real(derivatives).flatten(2)
    m = torch.view_as_real(model).flatten(1)
    f = torch.view_as_real(particles.spectra).flatten(1)
    power = m.square().sum(dim=1).clamp_min(1e-20)
    amplitude = (f * m).sum(dim=1) / power
    along = torch.einsum("njp,np->nj", jacobian, m) / power[:, None]
    jacobian = (jacobian - along[:, :, None] * m[:, None]) * amplitude[:, None, None]
    residual = f - amplitude[:, None] * m
    gradient_of_fit = torch.einsum("njp,np->nj", jacobian, residual)
    hessian = torch.einsum("nip,njp->nij", jacobian, jacobian)
    return amplitude * power.sqrt(), gradient_of_fit, hessian
