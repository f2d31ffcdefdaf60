"""Particles told apart by how well random shapes fit them, without training, labels or poses.

1. *Scores.* Every particle is correlated with a bank of random shapes in all orientations, where it was measured; the
   best orientation counts. A score is what no rotation of the particle changes, up to the step of the grid.
2. *Spread.* Particles of one protein differ in their scores all the same: noise, missing wedge, shift and grid. How and
   how much is simulated: other random shapes, under the particles' own weights, noise and signal-to-noise ratio.
3. *Points.* Scores in units of that spread, on the axes where particles vary most.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.ops.correlate import (
    FourierBall,
    ball_spectra,
    ball_weights,
    chunks,
    fine_spectrum,
    fourier_ball,
    phase_ramps,
    slices,
)
from cryodc.ops.filters import fourier_shift, soft_sphere
from cryodc.ops.rotations import random_rotations, resample, rotation_grid

BOX = 16
"""Particles are Fourier-cropped to this box: what tells shapes apart lies in their lowest shells."""

N_SHAPES = 96
"""In the bank; half of them are fine."""

_RADIUS = 6.5
_STEP_DEGREES = 24.0
_SHIFT = 0.6
_N_SHIFTED = 4
_BANK_SEED = 5
_BATCH = 256

_N_SIMULATED = 200
_N_PER_SHAPE = 10
_MOST_SHIFT = 0.75
_SNR = (0.02, 20.0)
_N_BISECTIONS = 7
_N_CALIBRATING = 200
_CALIBRATING_SHAPES = 8

_RIDGE = 1e-3


@dataclass(frozen=True)
class ShapeSpectra:
    """Particles as spectra in a ball of low frequencies.

    Parameters
    ----------
    spectra
        ``(n, p)`` of volumes in the box :data:`BOX`, seen through a soft sphere.
    weights, weight_index
        ``(m, p)`` distinct weights, and which one each particle has.
    """

    spectra: Complex[Tensor, "n p"]
    weights: Float[Tensor, "m p"]
    weight_index: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.spectra)

    def select(self, rows: Int[Tensor, " b"]) -> "ShapeSpectra":
        """These particles."""
        return ShapeSpectra(self.spectra[rows], self.weights, self.weight_index[rows])


def shape_ball(device: torch.device | None = None) -> FourierBall:
    """The frequencies that are looked at."""
    return fourier_ball(BOX, _RADIUS, device)


def shape_spectra(
    batches: list[tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h hw"]]], device: torch.device
) -> ShapeSpectra:
    """Spectra of particles that come in batches, with a weight each, at the box :data:`BOX`."""
    ball, mask = shape_ball(device), _mask(device)
    spectra = torch.cat([ball_spectra(volumes.to(device) * mask, ball) for volumes, _ in batches])
    weights = torch.cat([ball_weights(weights.to(device), ball) for _, weights in batches])
    distinct, index = torch.unique(weights, dim=0, return_inverse=True)
    return ShapeSpectra(spectra, distinct, index)


@torch.no_grad()
def shape_points(particles: ShapeSpectra, n_axes: int, *, seed: int = 0) -> Float[NDArray[np.float64], "n k"]:
    """Particles as points: in each axis 1 is the spread of particles of one protein, as simulated.

    Parameters
    ----------
    particles
        At least two.
    n_axes
        Of the principal axes as many as there are differences between proteins: their number less one.
    seed
        Of the simulation. The bank of shapes is always the same.
    """
    device, drawing = particles.spectra.device, torch.Generator().manual_seed(_BANK_SEED)
    coarse = random_shapes(N_SHAPES // 2, drawing)
    bank = torch.cat([coarse, random_shapes(N_SHAPES - len(coarse), drawing, fine=True)]).to(device)
    generator = torch.Generator().manual_seed(seed)
    snr = find_snr(particles, bank[:: len(bank) // _CALIBRATING_SHAPES], generator)
    simulated, shape = simulate_shapes(particles, _N_SIMULATED, _N_PER_SHAPE, snr, generator)
    within = spread_within(score_shapes(simulated, bank).double().cpu().numpy(), shape)
    return whitened(score_shapes(particles, bank).double().cpu().numpy(), within, n_axes)


def random_shapes(n_shapes: int, generator: torch.Generator, *, fine: bool = False) -> Float[Tensor, "n d h w"]:
    """Sums of Gaussians at random places about the middle of the box :data:`BOX`.

    Parameters
    ----------
    n_shapes
        How many.
    generator
        Draws them.
    fine
        20 to 59 Gaussians of 0.5 to 0.9 voxels instead of 3 to 8 of 1 to 1.8.
    """
    fewest, most, thinnest, widest = (20, 60, 0.5, 0.9) if fine else (3, 9, 1.0, 1.8)
    axis = torch.arange(BOX) - BOX // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).float()
    shapes = []
    for _ in range(n_shapes):
        radius = 2.0 + 3.5 * torch.rand(1, generator=generator)
        n = int(torch.randint(fewest, most, (1,), generator=generator))
        places = torch.randn(n, 3, generator=generator)
        # Evenly within a ball.
        places = places / places.norm(dim=1, keepdim=True) * radius * torch.rand(n, 1, generator=generator) ** (1 / 3)
        places = places - places.mean(dim=0)
        widths = thinnest + (widest - thinnest) * torch.rand(n, generator=generator)
        squares = (grid[None] - places[:, None, None, None]).square().sum(dim=-1)
        shapes.append(torch.exp(-squares / (2 * widths.square()[:, None, None, None])).sum(dim=0))
    return torch.stack(shapes)


@torch.no_grad()
def score_shapes(particles: ShapeSpectra, shapes: Float[Tensor, "k d h w"]) -> Float[Tensor, "n k"]:
    """Correlation of every particle with every shape, −1 to 1, in the orientation and shift in which it is highest.

    ``Re Σ conj(F) H S / (|F| |H S|)`` over the ball, ``H`` the particle's weight and ``S`` the slice of the shape.
    Shifts are tried in the four best orientations.
    """
    device = particles.spectra.device
    ball, mask = shape_ball(device), _mask(device)
    grid = rotation_grid(_STEP_DEGREES).float().to(device)
    offsets = _SHIFT * torch.cat([torch.eye(3), -torch.eye(3)]).to(device)
    ramps = phase_ramps(ball, offsets).conj()
    power = particles.weights.square()
    norms = particles.spectra.abs().square().sum(dim=1).sqrt().clamp_min(1e-20)
    scores = torch.empty(len(particles), len(shapes), device=device)
    for k, shape in enumerate(shapes):
        columns = slices(fine_spectrum((shape * mask)[None])[0], ball, grid)
        lengths = (power @ columns.square().sum(dim=1).T).clamp_min(1e-20).sqrt()
        for rows in chunks(len(particles), _BATCH):
            index = particles.weight_index[rows]
            measured = particles.spectra[rows] * particles.weights[index]
            upright = _rows(measured) @ columns.flatten(1).T / lengths[index]
            best, places = upright.topk(min(_N_SHIFTED, len(grid)), dim=1)
            moved = _rows(measured[:, None] * ramps)
            shifted = torch.einsum("bsp,btp->bts", moved, columns.flatten(1)[places])
            shifted = shifted / lengths[index].gather(1, places)[..., None]
            highest = torch.maximum(best[:, 0], shifted.flatten(1).amax(dim=1))
            scores[rows, k] = highest / norms[rows]
    return scores


def simulate_shapes(
    particles: ShapeSpectra, n_shapes: int, n_per_shape: int, snr: float, generator: torch.Generator
) -> tuple[ShapeSpectra, Int[NDArray[np.int64], " n"]]:
    """Random shapes in random poses, as these particles were recorded, and which shape each is.

    Parameters
    ----------
    particles
        Whose weights and noise are taken.
    n_shapes, n_per_shape
        How many; half of the shapes are fine.
    snr
        Power of the signal over that of the noise within the ball.
    generator
        Draws all that is random.
    """
    device = particles.spectra.device
    ball, mask = shape_ball(device), _mask(device)
    coarse, fine = (n_shapes + 1) // 2, n_shapes // 2
    shapes = torch.cat([random_shapes(coarse, generator), random_shapes(fine, generator, fine=True)])
    shape = torch.arange(n_shapes).repeat_interleave(n_per_shape)
    shifts = _MOST_SHIFT * (2 * torch.rand(len(shape), 3, generator=generator) - 1)
    posed = fourier_shift(resample(shapes[shape], random_rotations(len(shape), generator)), shifts)
    clean = ball_spectra(posed.to(device) * mask, ball)
    index = particles.weight_index[torch.randint(len(particles), (len(shape),), generator=generator).to(device)]
    weights = particles.weights[index]
    amplitude = math.sqrt(noise_power(particles)) * weights
    parts = torch.randn(2, *clean.shape, generator=generator).to(device)
    noise = torch.complex(parts[0], parts[1]) * amplitude / math.sqrt(2)
    signal = clean * weights
    energies = [values.abs().square().sum(dim=1, keepdim=True).clamp_min(1e-20) for values in (signal, noise)]
    scale = (snr * energies[1].mean() / energies[0]).sqrt()
    return ShapeSpectra(scale * signal + noise, particles.weights, index), shape.numpy()


def noise_power(particles: ShapeSpectra) -> float:
    """Power of the noise per unit of weight, taken as white: that of the outermost shell, where signal is least."""
    ball = shape_ball(particles.spectra.device)
    outermost = ball.shells == ball.shells.max()
    weights = particles.weights[particles.weight_index][:, outermost].square()
    measured = particles.spectra[:, outermost].abs().square()
    return float(measured.sum() / weights.sum().clamp_min(1e-9))


def find_snr(particles: ShapeSpectra, bank: Float[Tensor, "k d h w"], generator: torch.Generator) -> float:
    """The signal-to-noise ratio at which simulated shapes fit the bank as well as particles do, by bisection."""
    drawn = torch.randperm(len(particles), generator=generator)[:_N_CALIBRATING].to(particles.spectra.device)
    wanted = float(score_shapes(particles.select(drawn), bank).amax(dim=1).mean())
    seed = int(torch.randint(2**31, (1,), generator=generator))
    low, high = _SNR
    for _ in range(_N_BISECTIONS):
        middle = math.sqrt(low * high)
        again = torch.Generator().manual_seed(seed)
        simulated, _ = simulate_shapes(particles, _N_CALIBRATING, 1, middle, again)
        found = float(score_shapes(simulated, bank).amax(dim=1).mean())
        low, high = (middle, high) if found < wanted else (low, middle)
    return math.sqrt(low * high)


def spread_within(
    scores: Float[NDArray[np.float64], "n k"], shape: Int[NDArray[np.int64], " n"]
) -> Float[NDArray[np.float64], "k k"]:
    """Covariance of scores within shapes, pooled over them."""
    n_shapes = int(shape.max()) + 1
    means = np.stack([scores[shape == label].mean(axis=0) for label in range(n_shapes)])
    rest = scores - means[shape]
    return np.asarray(rest.T @ rest / (len(scores) - n_shapes))


def whitened(
    scores: Float[NDArray[np.float64], "n k"], within: Float[NDArray[np.float64], "k k"], n_axes: int
) -> Float[NDArray[np.float64], "n a"]:
    """Scores in units of the spread within a protein, on the principal axes of what is left (Fisher, 1936)."""
    ridge = _RIDGE * np.trace(within) / len(within)
    values, vectors = np.linalg.eigh(within + ridge * np.eye(len(within)))
    points = (scores - scores.mean(axis=0)) @ (vectors / np.sqrt(values))
    left, lengths, _ = np.linalg.svd(points, full_matrices=False)
    return np.asarray(left[:, :n_axes] * lengths[:n_axes])


def _rows(values: Complex[Tensor, "*b p"]) -> Float[Tensor, "*b q"]:
    """Real and imaginary parts side by side, so that a product with a column is ``Re conj(F) S``."""
    return torch.cat([values.real, values.imag], dim=-1)


def _mask(device: torch.device) -> Float[Tensor, "d h w"]:
    return soft_sphere(BOX, 6.0, 2.0, device)
