"""Scoring poses in a truncated Fourier ball, as a matrix product.

Spectra here are of volumes with the box centre (index ``N // 2``) at the phase origin, in units where
:func:`torch.fft.rfftn` is unscaled. A ball holds one of each pair ``±k``: the other is its conjugate. With a
particle's pose ``(A, o)``, ``particle(x) = reference(Aᵀ (x + o))``, its spectrum is

``F(k) = H(k) · exp(2πi k·o / N) · V(Aᵀ k)``

so a shift is a phase ramp of the row and a rotation is a slice of the column: all pairs are one matrix product.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cryodc.fourier.filters import pad_box, shell_index
from cryodc.fourier.wedge import frequency_grid

OVERSAMPLING = 2
"""How much finer than its box a spectrum is sampled before it is interpolated."""


@dataclass(frozen=True)
class FourierBall:
    """Half of the Fourier voxels within a radius, DC and the Nyquist plane left out.

    Parameters
    ----------
    box_size
        Edge of the box, voxels.
    frequencies
        ``(p, 3)`` zyx, cycles per box.
    index
        ``(p,)`` place of each in the flattened half-Fourier grid.
    shells
        ``(p,)`` shell number, as FSC counts.
    """

    box_size: int
    frequencies: Float[Tensor, "p 3"]
    index: Int[Tensor, " p"]
    shells: Int[Tensor, " p"]

    def __len__(self) -> int:
        return len(self.index)

    def within(self, radius_shells: float) -> "FourierBall":
        """The part of this ball inside a smaller radius."""
        keep = self.mask(radius_shells)
        return FourierBall(self.box_size, self.frequencies[keep], self.index[keep], self.shells[keep])

    def mask(self, radius_shells: float) -> Tensor:
        """Which voxels lie inside a smaller radius, ``(p,)`` bool."""
        return self.frequencies.norm(dim=1) <= radius_shells

    def shell_mean(
        self, values: Float[Tensor, "*batch p"], weights: Float[Tensor, "*batch p"] | None = None
    ) -> Float[Tensor, "*batch s"]:
        """Weighted mean over each shell, 0 to Nyquist; 0 where the ball has none of it."""
        sums = values.new_zeros(*values.shape[:-1], self.box_size // 2 + 1)
        weights = torch.ones_like(values) if weights is None else weights
        total = sums.index_add(-1, self.shells, weights)
        return sums.index_add(-1, self.shells, values * weights) / total.clamp_min(1e-9)


def fourier_ball(box_size: int, radius_shells: float, device: torch.device | None = None) -> FourierBall:
    """The ball of a radius, sorted as the half-Fourier grid is.

    Examples
    --------
    >>> fourier_ball(8, 1.0).frequencies
    tensor([[0., 0., 1.],
            [0., 1., 0.],
            [1., 0., 0.]])
    """
    grid = frequency_grid(box_size, device)
    z, y, x = grid.unbind(dim=-1)
    half = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    inside = (grid.norm(dim=-1) <= radius_shells) & (grid.abs().amax(dim=-1) < box_size // 2)
    index = torch.nonzero((half & inside).reshape(-1))[:, 0]
    return FourierBall(box_size, grid.reshape(-1, 3)[index], index, shell_index(box_size, device).reshape(-1)[index])


def ball_spectra(volumes: Float[Tensor, "b d h w"], ball: FourierBall) -> Complex[Tensor, "b p"]:
    """Spectra of volumes in a ball."""
    spectra = torch.fft.rfftn(torch.fft.ifftshift(volumes, dim=(-3, -2, -1)), dim=(-3, -2, -1))
    return spectra.flatten(1)[:, ball.index]


def ball_weights(weights: Float[Tensor, "m d h hw"], ball: FourierBall) -> Float[Tensor, "m p"]:
    """Half-Fourier weights in a ball."""
    return weights.flatten(1)[:, ball.index]


def measured_voxels(weights: Float[Tensor, "m p"]) -> Bool[Tensor, "m p"]:
    """Where each of some weights is more than a tenth of their largest."""
    return weights.abs() > 0.1 * weights.abs().max()


def phase_ramps(ball: FourierBall, shifts_voxels: Float[Tensor, "*t 3"]) -> Complex[Tensor, "*t p"]:
    """``exp(2πi k·o / N)``: what moving a volume by ``−o`` (zyx, voxels) does to its spectrum."""
    angle = shifts_voxels @ ball.frequencies.T * (2 * math.pi / ball.box_size)
    return torch.polar(torch.ones_like(angle), angle)


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
    x = torch.arange(box_size, dtype=volumes.dtype, device=volumes.device) - box_size // 2
    loss = torch.sinc(x / fine_box) ** 2
    corrected = volumes / (loss[:, None, None] * loss[:, None] * loss)
    padded = torch.fft.ifftshift(pad_box(corrected, fine_box), dim=(-3, -2, -1))
    spectra = torch.fft.fftshift(torch.fft.fftn(padded, dim=(-3, -2, -1)), dim=(-3, -2, -1))
    half = fine_box // 2 - 1
    if radius_shells is not None:
        half = min(half, math.ceil(OVERSAMPLING * radius_shells) + 1)
    keep = slice(fine_box // 2 - half, fine_box // 2 + half + 1)
    spectra = spectra[:, keep, keep, keep]
    return torch.stack([spectra.real, spectra.imag], dim=1)


def sample_spectrum(fine: Float[Tensor, "b c e e e"], frequencies: Float[Tensor, "b q 3"]) -> Float[Tensor, "b c q"]:
    """Interpolate fine spectra (:func:`fine_spectrum`) at frequencies in cycles per box, zero outside."""
    half = fine.shape[-1] // 2
    grid = (frequencies.flip(-1) * (OVERSAMPLING / half))[:, None, None]
    return F.grid_sample(fine, grid, align_corners=True, padding_mode="zeros")[:, :, 0, 0]


def slices(
    fine: Float[Tensor, "2 e e e"], ball: FourierBall, rotations: Float[Tensor, "r 3 3"]
) -> Float[Tensor, "r 2 p"]:
    """``V(Aᵀ k)`` for each rotation ``A``: real and imaginary part."""
    rotated = (ball.frequencies @ rotations).reshape(1, -1, 3)
    sampled = sample_spectrum(fine[None], rotated)[0].reshape(2, len(rotations), len(ball))
    return sampled.transpose(0, 1)


def weighted_rows(
    spectra: Complex[Tensor, "n p"],
    weights: Float[Tensor, "n p"],
    ball: FourierBall,
    shifts_voxels: Float[Tensor, "t 3"],
) -> Float[Tensor, "n t 2 p"]:
    """``conj(H F exp(−2πi k·o / N))`` for each particle and shift, laid out so that row · column is its real part."""
    ramped = (spectra * weights)[:, None] * phase_ramps(ball, shifts_voxels).conj()
    return torch.stack([ramped.real, ramped.imag], dim=2)


def score_poses(
    spectra: Complex[Tensor, "n p"],
    weights: Float[Tensor, "m p"],
    weight_index: Int[Tensor, " n"],
    columns: Float[Tensor, "r 2 p"],
    ball: FourierBall,
    shifts_voxels: Float[Tensor, "t 3"],
) -> Float[Tensor, "n t r"]:
    """Normalised correlation inside what each particle measured, of every particle, shift and column.

    ``score = Re Σ conj(F e^(−2πi k·o/N)) H S / √(Σ |H S|²)``, in units of the noise where ``F`` is whitened. Twice the
    log-likelihood gained over no particle, best scale included, is its square.

    Parameters
    ----------
    spectra
        ``(n, p)`` in the ball.
    weights, weight_index
        ``(m, p)`` weights and which one each particle has: the norm is computed once for each.
    columns
        ``(r, 2, p)`` reference slices: of any references and rotations.
    shifts_voxels
        ``(t, 3)`` zyx origins ``o``.
    """
    rows = weighted_rows(spectra, weights[weight_index], ball, shifts_voxels)
    cross = rows.flatten(0, 1).flatten(1) @ columns.flatten(1).T
    power = weights**2 @ columns.square().sum(dim=1).T
    norm = power.clamp_min(1e-20).rsqrt()
    return cross.reshape(len(spectra), len(shifts_voxels), -1) * norm[weight_index][:, None]


def chunks(n_items: int, n_per_chunk: int) -> Iterator[slice]:
    """Consecutive slices that cover ``n_items``."""
    for start in range(0, n_items, max(1, n_per_chunk)):
        yield slice(start, min(n_items, start + max(1, n_per_chunk)))


def shift_lattice(radius_voxels: float, step_voxels: float, device: torch.device | None = None) -> Float[Tensor, "t 3"]:
    """Shifts within a radius of 0 on a cubic lattice, zyx; 0 is among them."""
    n_steps = int(radius_voxels / step_voxels + 1e-6)
    axis = torch.arange(-n_steps, n_steps + 1, dtype=torch.float32, device=device) * step_voxels
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    return points[points.norm(dim=1) <= radius_voxels + 1e-6]
