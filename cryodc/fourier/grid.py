"""Spectra sampled twice as finely as their box: interpolated at any frequency, and the exact adjoint of both."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cryodc.fourier.filters import pad_box

OVERSAMPLING = 2
"""How much finer than its box a spectrum is sampled before it is interpolated."""


def fine_spectrum(volumes: Float[Tensor, "b d h w"], radius_shells: float | None = None) -> Float[Tensor, "b 2 e e e"]:
    """Spectra of volumes, sampled twice as finely as their box, ready for :func:`sample_spectrum`.

    Linear interpolation between Fourier samples multiplies the volume by ``sinc²`` in real space; the volume
    is divided by that first (gridding correction), so what is sampled is exact but for faint ghosts two boxes
    away. All frequencies are interpolated equally well.

    Parameters
    ----------
    volumes
        ``(b, d, h, w)``, box centre at ``N // 2``.
    radius_shells
        Keep only what lies within this radius (default: everything).

    Returns
    -------
    ``(b, 2, e, e, e)``: real and imaginary part, DC in the middle, ``e`` odd.
    """
    box_size = volumes.shape[-1]
    fine_box = OVERSAMPLING * box_size
    corrected = volumes / _interpolation_loss(box_size, volumes)
    padded = torch.fft.ifftshift(pad_box(corrected, fine_box), dim=(-3, -2, -1))
    spectra = torch.fft.fftshift(torch.fft.fftn(padded, dim=(-3, -2, -1)), dim=(-3, -2, -1))
    half = half_edge(box_size, radius_shells)
    keep = slice(fine_box // 2 - half, fine_box // 2 + half + 1)
    spectra = spectra[:, keep, keep, keep]
    return torch.stack([spectra.real, spectra.imag], dim=1)


def fine_gradient(volume: Float[Tensor, "d h w"], radius_shells: float | None = None) -> Float[Tensor, "8 e e e"]:
    """Fine spectrum of a volume and its three derivatives along k (zyx), real and imaginary parts in turn.

    ``∂V/∂k = F[ −2πi x/N · v ]``, so the derivatives are as exact as the spectrum.
    """
    n = volume.shape[-1]
    x = (torch.arange(n, dtype=volume.dtype, device=volume.device) - n // 2) * (2 * math.pi / n)
    moments = torch.stack([volume, volume * x[:, None, None], volume * x[:, None], volume * x], dim=0)
    fine = fine_spectrum(moments, radius_shells)
    # −i (a + ib) = b − ia
    gradient = torch.stack([fine[1:, 1], -fine[1:, 0]], dim=1)
    return torch.cat([fine[:1], gradient], dim=0).flatten(0, 1)


def sample_spectrum(fine: Float[Tensor, "b c e e e"], frequencies: Float[Tensor, "b q 3"]) -> Float[Tensor, "b c q"]:
    """Interpolate fine spectra (:func:`fine_spectrum`) at frequencies in cycles per box, zero outside."""
    half = fine.shape[-1] // 2
    grid = (frequencies.flip(-1) * (OVERSAMPLING / half))[:, None, None]
    return F.grid_sample(fine, grid, align_corners=True, padding_mode="zeros")[:, :, 0, 0]


def spread_samples(
    values: Float[Tensor, "c q"], frequencies: Float[Tensor, "q 3"], half: int
) -> Float[Tensor, "c e e e"]:
    """The exact adjoint of :func:`sample_spectrum`: values at frequencies, on a fine grid of edge ``2 half + 1``."""
    edge = 2 * half + 1
    grid = (frequencies.flip(-1) * (OVERSAMPLING / half))[None, None, None]
    empty = values.new_zeros(1, len(values), edge, edge, edge)
    # Backward of F.grid_sample (bilinear, zeros, align_corners) by its input alone.
    spread, _ = torch.ops.aten.grid_sampler_3d_backward(
        values[None, :, None, None], empty, grid, 0, 0, True, [True, False]
    )
    return spread[0]


def unfold_spectrum(fine: Float[Tensor, "b 2 e e e"], box_size: int) -> Float[Tensor, "b d h w"]:
    """The exact adjoint of :func:`fine_spectrum`: volumes of a box from fine spectra."""
    fine_box = OVERSAMPLING * box_size
    margin = fine_box // 2 - fine.shape[-1] // 2
    pad = (margin, margin - 1) * 3
    spectra = F.pad(torch.complex(fine[:, 0], fine[:, 1]), pad)
    volumes = torch.fft.ifftn(torch.fft.ifftshift(spectra, dim=(-3, -2, -1)), dim=(-3, -2, -1), norm="forward")
    centred = torch.fft.fftshift(volumes.real, dim=(-3, -2, -1))
    keep = slice((fine_box - box_size) // 2, (fine_box + box_size) // 2)
    return centred[:, keep, keep, keep] / _interpolation_loss(box_size, fine)


def half_edge(box_size: int, radius_shells: float | None) -> int:
    """Half the edge of a fine grid that holds so many shells."""
    half = OVERSAMPLING * box_size // 2 - 1
    return half if radius_shells is None else min(half, math.ceil(OVERSAMPLING * radius_shells) + 1)


def _interpolation_loss(box_size: int, like: Tensor) -> Tensor:
    """``sinc²`` along each axis, ``(d, h, w)``: what linear interpolation of the fine spectrum does to a volume."""
    x = torch.arange(box_size, dtype=like.dtype, device=like.device) - box_size // 2
    loss = torch.sinc(x / (OVERSAMPLING * box_size)) ** 2
    return loss[:, None, None] * loss[:, None] * loss
