"""Wedge-weighted Fourier averages: particles turned back into the frame of their reference.

For ``F_i = H_i · V_i + white noise``, with ``V_i`` the reference ``V`` in pose ``i``, least squares gives
``V = Σ A_i⁻¹[H_i F_i] / (Σ A_i⁻¹[H_i²] + r)``: Fourier voxels no particle measured stay empty, and no particle's
missing wedge pulls the average towards zero.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cryodc.fourier.ball import FourierBall, chunks, fine_spectrum, sample_spectrum


def accumulate(
    volumes: Float[Tensor, "n d h w"],
    weights: Float[Tensor, "m d h hw"],
    weight_index: Int[Tensor, " n"],
    rotations: Float[Tensor, "n 3 3"],
    origins_voxels: Float[Tensor, "n 3"],
    ball: FourierBall,
    batch_size: int = 8,
) -> tuple[Complex[Tensor, " p"], Float[Tensor, " p"]]:
    """Numerator and denominator of the average, in a Fourier ball.

    The sums of :func:`aligned_spectra` over all particles; at most ``batch_size`` of them are held at a time.

    Parameters
    ----------
    volumes
        ``(n, d, h, w)`` particles.
    weights, weight_index
        ``(m, d, h, w // 2 + 1)`` transfers ``H`` and which of them each particle has.
    rotations, origins_voxels
        Poses: ``particle(x) = reference(Aᵀ (x + o))``, zyx.
    ball
        Where the average is wanted.
    """
    numerator = torch.zeros(len(ball), dtype=torch.complex64, device=volumes.device)
    denominator = torch.zeros(len(ball), dtype=torch.float32, device=volumes.device)
    for c in chunks(len(volumes), batch_size):
        data, power = aligned_spectra(volumes[c], weights[weight_index[c]], rotations[c], origins_voxels[c], ball)
        numerator += data.sum(dim=0)
        denominator += power.sum(dim=0)
    return numerator, denominator


def aligned_spectra(
    volumes: Float[Tensor, "n d h w"],
    weights: Float[Tensor, "n d h hw"],
    rotations: Float[Tensor, "n 3 3"],
    origins_voxels: Float[Tensor, "n 3"],
    ball: FourierBall,
) -> tuple[Complex[Tensor, "n p"], Float[Tensor, "n p"]]:
    """What each particle says of each Fourier voxel of the reference: ``A⁻¹[H F]``, and how much: ``A⁻¹[H²]``.

    Each particle's ``H F`` is interpolated at ``A k`` from its twice oversampled spectrum and its shift is
    undone there as a phase; ``H²`` is interpolated in the same way, so both are smoothed alike.

    Parameters
    ----------
    volumes
        ``(n, d, h, w)`` particles.
    weights
        ``(n, d, h, w // 2 + 1)`` the transfer ``H`` of each.
    rotations, origins_voxels
        Poses: ``particle(x) = reference(Aᵀ (x + o))``, zyx.
    ball
        Where the reference is wanted.
    """
    spectra = torch.fft.rfftn(volumes, dim=(-3, -2, -1))
    weighted = torch.fft.irfftn(spectra * weights, s=volumes.shape[1:], dim=(-3, -2, -1))
    spread = torch.fft.irfftn(weights.square() + 0j, s=volumes.shape[1:], dim=(-3, -2, -1))
    spread = torch.fft.fftshift(spread, dim=(-3, -2, -1))
    rotated = ball.frequencies @ rotations.transpose(1, 2)
    values = sample_spectrum(fine_spectrum(weighted), rotated)
    # Undoing exp(2πi k·o / N) at the particle's own frequencies k.
    angle = torch.einsum("bpi,bi->bp", rotated, origins_voxels) * (2 * torch.pi / ball.box_size)
    ramp = torch.polar(torch.ones_like(angle), -angle)
    power = sample_spectrum(fine_spectrum(spread)[:, :1], rotated)[:, 0].clamp_min(0)
    return torch.complex(values[:, 0], values[:, 1]) * ramp, power


def volume_from_ball(values: Complex[Tensor, " p"], ball: FourierBall) -> Float[Tensor, "d h w"]:
    """The volume with these Fourier values, zero elsewhere, centre at ``N // 2``."""
    n = ball.box_size
    half = torch.zeros(n * n * (n // 2 + 1), dtype=values.dtype, device=values.device)
    half[ball.index] = values
    grid = half.reshape(n, n, n // 2 + 1)
    # The ball holds one of each ±k; on the plane k_x = 0 the grid wants both.
    plane = grid[:, :, 0].clone()
    mirrored = torch.roll(plane.flip(0, 1), (1, 1), (0, 1)).conj()
    grid[:, :, 0] = plane + mirrored
    return torch.fft.fftshift(torch.fft.irfftn(grid, s=(n, n, n)), dim=(-3, -2, -1))
