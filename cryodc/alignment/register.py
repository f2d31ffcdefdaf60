"""Registering one map on another: any rotation, any shift."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment.refine import refine_poses
from cryodc.fourier import (
    FourierBall,
    ParticleSpectra,
    ball_spectra,
    ball_weights,
    chunks,
    fine_gradient,
    fine_spectrum,
    fourier_ball,
    slices,
    volume_from_ball,
)
from cryodc.geometry import resample, rotation_grid
from cryodc.volumes import Volume


def register_map(
    moving: Volume,
    fixed: Volume,
    *,
    radius_shells: float | None = None,
    n_candidates: int = 24,
    weight: Float[Tensor, "d h hw"] | None = None,
) -> tuple[Float[NDArray[np.float64], "3 3"], Float[NDArray[np.float64], " 3"], Volume]:
    """Turn and shift one map onto another: a search over all rotations and shifts, then refinement.

    ``moved(x) = moving(R x + t)``, ``x`` zyx voxels from the box centre, best matches ``fixed``. Both maps are
    weighted so that each Fourier shell counts by the square root of its power. The hand is never changed.

    Parameters
    ----------
    moving, fixed
        Maps of one box size and spacing.
    radius_shells
        Finest shell compared (default: 80 % of Nyquist).
    n_candidates
        Rotations of the coarse grid that are refined.
    weight
        Half-Fourier: what the fixed map shows of a spectrum, 0 to 1; the moving one is seen through it. All by default.

    Returns
    -------
    ``R`` (zyx), ``t`` (voxels, zyx) and the moved map (resampled trilinearly from ``moving``).

    Raises
    ------
    ValueError
        If box sizes or spacings differ.
    """
    if moving.box_size != fixed.box_size:
        raise ValueError(f"box sizes differ: {moving.box_size} and {fixed.box_size}")
    if not math.isclose(moving.spacing_angstrom, fixed.spacing_angstrom, rel_tol=0.01):
        raise ValueError(f"spacings differ: {moving.spacing_angstrom} and {fixed.spacing_angstrom} Å")
    finest = 0.4 * fixed.box_size if radius_shells is None else radius_shells
    ball = fourier_ball(fixed.box_size, finest)
    voxels = torch.from_numpy(np.stack([moving.voxels, fixed.voxels])).float()
    spectra = ball_spectra(voxels, ball)
    # Half-whitened, each map by its own power.
    spectra = spectra * ball.shell_mean(spectra.abs().square())[:, ball.shells].clamp_min(1e-12).pow(-0.25)
    mobile = volume_from_ball(spectra[0], ball)
    coarse = ball.within(min(finest, 6.0))
    seen = torch.ones(1, len(ball)) if weight is None else ball_weights(weight[None].float(), ball)
    near = ball.mask(min(finest, 6.0))
    rotations, shifts, _ = _search_all_shifts(spectra[1, near], mobile, coarse, seen[0, near], n_candidates)
    target = ParticleSpectra(ball, spectra[1:], seen, torch.zeros(1, dtype=torch.long))
    zeros = torch.zeros(len(rotations), dtype=torch.long)
    for radius in (min(finest, 8.0), finest):
        rotations, shifts, scores = refine_poses(
            target.within(radius).select(zeros[: len(rotations)]),
            fine_gradient(mobile, radius)[None],
            zeros[: len(rotations)],
            rotations,
            shifts,
            n_steps=12,
        )
        best = scores.argsort(descending=True)[: max(1, n_candidates // 4)]
        rotations, shifts = rotations[best], shifts[best]
    inverse = rotations[0].double().T
    shift = inverse @ shifts[0].double()
    moved = resample(voxels[:1], inverse[None].float(), shift[None].float())[0]
    return inverse.numpy(), shift.numpy(), Volume(moved.numpy(), moving.spacing_angstrom)


def _search_all_shifts(
    target: Tensor, mobile: Tensor, ball: FourierBall, seen: Tensor, n_best: int, step_degrees: float = 15.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The best rotations of a coarse grid, each at its best shift on the Fourier-cropped box's lattice."""
    n = ball.box_size
    small = min(n, 2 * int(ball.shells.max()) + 4)
    where = ball.frequencies.long() % torch.tensor([small, small, small], device=ball.frequencies.device)
    fine = fine_spectrum(mobile[None], float(ball.shells.max()))[0]
    found = []
    for rows in chunks(len(grid := rotation_grid(step_degrees).to(mobile.device)), 256):
        column = slices(fine, ball, grid[rows]) * seen
        product = torch.complex(column[:, 0], column[:, 1]) * target.conj()
        norm = column.square().sum(dim=(1, 2)).clamp_min(1e-20).sqrt()
        spectrum = torch.zeros(len(column), small, small, small // 2 + 1, dtype=product.dtype, device=mobile.device)
        # One of ±k only: irfftn's real part of the half needs x ≥ 0, where the ball lies.
        spectrum[:, where[:, 0], where[:, 1], where[:, 2]] = product
        plane = spectrum[:, :, :, 0]
        spectrum[:, :, :, 0] = plane + torch.roll(plane.flip(1, 2), (1, 1), (1, 2)).conj()
        # Σ conj(F) V(Aᵀk) exp(2πi k·o/N), at o on the small box's lattice.
        surface = torch.fft.irfftn(spectrum, s=(small,) * 3).flatten(1) / norm[:, None]
        score, place = surface.max(dim=1)
        found.append((score, place))
    score = torch.cat([s for s, _ in found])
    place = torch.cat([p for _, p in found])
    best = score.argsort(descending=True)[:n_best]
    lattice = torch.stack([place[best] // small**2, place[best] // small % small, place[best] % small], dim=1)
    centred = (lattice + small // 2) % small - small // 2
    return grid[best], centred.float() * (n / small), score[best]
