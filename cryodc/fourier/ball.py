"""A truncated ball of Fourier space, and volumes in it.

Spectra here are of volumes with the box centre (index ``N // 2``) at the phase origin, in units where
:func:`torch.fft.rfftn` is unscaled. A ball holds one of each pair ``±k``: the other is its conjugate.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cryodc.fourier.filters import shell_index
from cryodc.fourier.wedge import frequency_grid


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
    """Spectra of volumes in a ball, the same however many are made at once."""
    if len(volumes) == 1:
        # A transform of one volume alone takes another path through the library, and rounds otherwise.
        return ball_spectra(volumes.expand(2, -1, -1, -1), ball)[:1]
    spectra = torch.fft.rfftn(torch.fft.ifftshift(volumes, dim=(-3, -2, -1)), dim=(-3, -2, -1))
    return spectra.flatten(1)[:, ball.index]


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


def ball_weights(weights: Float[Tensor, "m d h hw"], ball: FourierBall) -> Float[Tensor, "m p"]:
    """Half-Fourier weights in a ball."""
    return weights.flatten(1)[:, ball.index]


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
