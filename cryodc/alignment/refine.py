"""Continuous refinement of poses: Levenberg–Marquardt on the normalised correlation."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.fourier import ParticleSpectra, chunks, predict_with_jacobian, slices, undo_shifts
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
    if n_steps == 0:
        return rotations, shifts, _scores(particles, references, reference_index, rotations, shifts)
    damping = torch.full((len(particles),), 1e-2, device=particles.spectra.device)
    diagonal = torch.eye(6, device=particles.spectra.device)
    best, residual_gradient, hessian = _normal_equations(particles, references, reference_index, rotations, shifts)
    for left in reversed(range(n_steps)):
        scale = torch.diagonal(hessian, dim1=1, dim2=2).clamp_min(1e-12)
        damped = hessian + damping[:, None, None] * diagonal * scale[:, None]
        step = torch.linalg.solve(damped, residual_gradient[:, :, None])[:, :, 0]
        # No more than 12° or one voxel at once.
        turn, move = step[:, :3], step[:, 3:]
        turn = turn * (0.2 / turn.norm(dim=1, keepdim=True).clamp_min(0.2))
        move = move / move.norm(dim=1, keepdim=True).clamp_min(1.0)
        new = rotations_from_vectors(turn) @ rotations, shifts + move
        if left:
            score, new_gradient, new_hessian = _normal_equations(particles, references, reference_index, *new)
        else:
            score = _scores(particles, references, reference_index, *new)
        accepted = (score > best) & (new[1].norm(dim=1) <= max_shift)
        best = torch.where(accepted, score, best)
        rotations = torch.where(accepted[:, None, None], new[0], rotations)
        shifts = torch.where(accepted[:, None], new[1], shifts)
        if left:
            residual_gradient = torch.where(accepted[:, None], new_gradient, residual_gradient)
            hessian = torch.where(accepted[:, None, None], new_hessian, hessian)
            damping = torch.where(accepted, damping * 0.3, damping * 8.0).clamp(1e-4, 1e6)
    return rotations, shifts, best


def _scores(
    particles: ParticleSpectra, references: Tensor, reference_index: Tensor, rotations: Tensor, shifts: Tensor
) -> Tensor:
    """Score ``(n,)`` of each particle in its pose."""
    fields = _fields(references[:, :2], particles, reference_index, rotations)
    model = fields * particles.own_weights[:, None]
    length = model.square().sum(dim=(1, 2)).clamp_min(1e-20).sqrt()
    return (_centred(particles, shifts) * model).sum(dim=(1, 2)) / length


def _normal_equations(
    particles: ParticleSpectra, references: Tensor, reference_index: Tensor, rotations: Tensor, shifts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Score ``(n,)``, gradient ``(n, 6)`` and Gauss–Newton Hessian ``(n, 6, 6)``, the scale at its best for each."""
    fields = _fields(references, particles, reference_index, rotations)
    predicted = predict_with_jacobian(fields, particles.ball, particles.own_weights, rotations).flatten(2)
    # All products of the model, its derivatives and the particle at once.
    products = predicted @ torch.cat([predicted, _centred(particles, shifts).flatten(1)[:, None]], dim=1).mT
    power = products[:, 0, 0].clamp_min(1e-20)
    amplitude = products[:, 0, 7] / power
    on_model, on_particle = products[:, 1:, 0], products[:, 1:, 7]
    # Derivatives without what a change of the scale makes up for: J − (J·m / m·m) m.
    gradient_of_fit = amplitude[:, None] * (on_particle - amplitude[:, None] * on_model)
    apart = products[:, 1:, 1:7] - on_model[:, :, None] * on_model[:, None] / power[:, None, None]
    return amplitude * power.sqrt(), gradient_of_fit, amplitude.square()[:, None, None] * apart


def _fields(references: Tensor, particles: ParticleSpectra, reference_index: Tensor, rotations: Tensor) -> Tensor:
    """The slice ``(n, channels, p)`` of its own reference in each particle's rotation."""
    if len(references) == 1:
        return slices(references[0], particles.ball, rotations)
    fields = references.new_empty(len(particles), references.shape[1], len(particles.ball))
    for c, fine in enumerate(references):
        rows = reference_index == c
        fields[rows] = slices(fine, particles.ball, rotations[rows])
    return fields


def _centred(particles: ParticleSpectra, shifts: Tensor) -> Tensor:
    """Spectra ``(n, 2, p)`` whose shift is undone, real and imaginary part."""
    spectra = undo_shifts(particles.spectra, particles.ball, shifts)
    return torch.stack([spectra.real, spectra.imag], dim=1)
