"""Continuous refinement of poses: Levenberg–Marquardt on the normalised correlation."""

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cryodc.fourier import FourierBall, chunks, fine_spectrum, phase_ramps, sample_spectrum
from cryodc.geometry import rotations_from_vectors


def fine_gradient(reference: Float[Tensor, "d h w"], radius_shells: float | None = None) -> Float[Tensor, "8 e e e"]:
    """Fine spectrum of a volume and its three derivatives along k (zyx), real and imaginary parts in turn.

    ``∂V/∂k = F[ −2πi x/N · v ]``, so the derivatives are as exact as the spectrum.
    """
    n = reference.shape[-1]
    x = (torch.arange(n, dtype=reference.dtype, device=reference.device) - n // 2) * (2 * math.pi / n)
    moments = torch.stack([reference, reference * x[:, None, None], reference * x[:, None], reference * x], dim=0)
    fine = fine_spectrum(moments, radius_shells)
    # −i (a + ib) = b − ia
    gradient = torch.stack([fine[1:, 1], -fine[1:, 0]], dim=1)
    return torch.cat([fine[:1], gradient], dim=0).flatten(0, 1)


def refine_poses(
    spectra: Complex[Tensor, "n p"],
    weights: Float[Tensor, "m p"],
    weight_index: Int[Tensor, " n"],
    references: Float[Tensor, "c 8 e e e"],
    reference_index: Int[Tensor, " n"],
    ball: FourierBall,
    rotations: Float[Tensor, "n 3 3"],
    shifts_voxels: Float[Tensor, "n 3"],
    n_steps: int = 6,
    max_shift_voxels: float = math.inf,
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Move each pose uphill in the score of :func:`cryodc.fourier.ball.score_poses`.

    Gauss–Newton steps on ``Σ |F − a H exp(2πi k·o/N) V(Aᵀk)|²`` over a rotation vector (``A ← exp(ω) A``) and a
    shift, the scale ``a`` at its best, damped for each particle alone; a step that lowers the score is undone.

    Parameters
    ----------
    spectra, weights, weight_index, ball
        As in ``score_poses``.
    references, reference_index
        From :func:`fine_gradient`, and which of them each particle is compared with.
    rotations, shifts_voxels
        Where to start.
    max_shift_voxels
        No shift longer than this is accepted.

    Returns
    -------
    Rotations, shifts and scores.
    """
    results = [
        _refine_chunk(
            spectra[rows],
            weights[weight_index[rows]],
            references,
            reference_index[rows],
            ball,
            rotations[rows],
            shifts_voxels[rows],
            n_steps,
            max_shift_voxels,
        )
        for rows in chunks(len(spectra), max(1, 400_000 // len(ball)))
    ]
    turned, shifted, scores = (torch.cat(part) for part in zip(*results, strict=True))
    return turned, shifted, scores


def _refine_chunk(
    spectra: Tensor,
    weights: Tensor,
    references: Tensor,
    reference_index: Tensor,
    ball: FourierBall,
    rotations: Tensor,
    shifts: Tensor,
    n_steps: int,
    max_shift: float,
) -> tuple[Tensor, Tensor, Tensor]:
    damping = torch.full((len(spectra),), 1e-2, device=spectra.device)
    best, residual_gradient, hessian = _normal_equations(
        spectra, weights, references, reference_index, ball, rotations, shifts
    )
    diagonal = torch.eye(6, device=spectra.device)
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
            spectra, weights, references, reference_index, ball, new_rotations, new_shifts
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
    spectra: Tensor,
    weights: Tensor,
    references: Tensor,
    reference_index: Tensor,
    ball: FourierBall,
    rotations: Tensor,
    shifts: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Score ``(n,)``, gradient ``(n, 6)`` and Gauss–Newton Hessian ``(n, 6, 6)``."""
    k = ball.frequencies
    rotated = k @ rotations
    sampled = torch.empty(len(spectra), 8, len(ball), device=spectra.device)
    for c in range(len(references)):
        rows = reference_index == c
        count = int(rows.sum())
        if count:
            points = rotated[rows].reshape(1, -1, 3)
            values = sample_spectrum(references[c][None], points)[0]
            sampled[rows] = values.reshape(8, count, len(ball)).transpose(0, 1)
    fields = torch.complex(sampled[:, 0::2], sampled[:, 1::2])
    ramp = phase_ramps(ball, shifts) * weights
    model = fields[:, 0] * ramp
    gradient = torch.einsum("nij,njp->nip", rotations.to(fields.dtype), fields[:, 1:])
    kz, ky, kx = k.unbind(dim=1)
    gz, gy, gx = gradient.unbind(dim=1)
    # −k × (A ∇V): turning the particle by ω moves the sampled frequency by −Aᵀ(ω × k). Components are zyx.
    turned = torch.stack([ky * gx - kx * gy, kx * gz - kz * gx, kz * gy - ky * gz], dim=1) * ramp[:, None]
    moved = (2j * math.pi / ball.box_size) * k.T * model[:, None]
    jacobian = torch.view_as_real(torch.cat([turned, moved], dim=1)).flatten(2)
    m = torch.view_as_real(model).flatten(1)
    f = torch.view_as_real(spectra).flatten(1)
    power = m.square().sum(dim=1).clamp_min(1e-20)
    amplitude = (f * m).sum(dim=1) / power
    along = torch.einsum("njp,np->nj", jacobian, m) / power[:, None]
    jacobian = (jacobian - along[:, :, None] * m[:, None]) * amplitude[:, None, None]
    residual = f - amplitude[:, None] * m
    gradient_of_fit = torch.einsum("njp,np->nj", jacobian, residual)
    hessian = torch.einsum("nip,njp->nij", jacobian, jacobian)
    return amplitude * power.sqrt(), gradient_of_fit, hessian
