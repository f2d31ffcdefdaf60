"""What can be told of particles without a template of theirs: how well random shapes fit, and moments."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.dataset import Dataset
from cryodc.device import share, sum_over_team
from cryodc.fourier import NoiseModel, ParticleSpectra
from cryodc.geometry import rotation_grid
from cryodc.templates.match import BOX, Search, at_template_box, match_map, shift_star, sphere
from cryodc.templates.spread import simulate_particles, spread_within, whitening_axes

N_SHAPES = 96
"""In the bank; half of them are fine."""
_STEP_DEGREES = 24.0
_SHIFT = 0.6
_BANK_SEED = 5
_N_SIMULATED = 200
_N_PER_SHAPE = 10
_LENGTHS = (3.0, 100.0)
_N_BISECTIONS = 7
_N_CALIBRATING = 200
_CALIBRATING_SHAPES = 8
_N_RINGS = 8
_MOMENTS_BATCH = 256


@torch.no_grad()
def shape_points(particles: ParticleSpectra, n_axes: int, *, seed: int = 0) -> Float[NDArray[np.float64], "n k"]:
    """Particles as points: in each axis 1 is the spread of particles of one protein, as simulated from random shapes.

    Parameters
    ----------
    particles
        At least two.
    n_axes
        How many of the axes along which particles vary most.
    seed
        Of the simulation. The bank of shapes is always the same.
    """
    device, drawing = particles.spectra.device, torch.Generator().manual_seed(_BANK_SEED)
    bank = _mixed_shapes(N_SHAPES, drawing).to(device)
    generator = torch.Generator().manual_seed(seed)
    noise = white_noise(particles)
    length = find_length(particles, bank[:: N_SHAPES // _CALIBRATING_SHAPES], noise, generator)
    shapes = _mixed_shapes(_N_SIMULATED, generator).to(device)
    lengths = torch.full((len(shapes),), length, device=device)
    simulated, shape = simulate_particles(particles, shapes, lengths, _N_PER_SHAPE, noise, generator)
    within = spread_within(score_shapes(simulated, bank).double().cpu().numpy(), shape.cpu().numpy())
    scores = score_shapes(particles, bank).double().cpu().numpy()
    return np.asarray((scores - scores.mean(axis=0)) @ whitening_axes(scores, within)[:, :n_axes])


def particle_moments(dataset: Dataset, particles: ParticleSpectra) -> Float[NDArray[np.float64], "n m"]:
    """Numbers of each particle that hardly depend on its pose, in the box :data:`cryodc.templates.match.BOX`.

    They are the logarithm of the mean power of each Fourier shell, where it was measured, the mean density of each
    ring about the centre of the box, and the logarithm of the spread of density in each ring. They tell what templates
    of proteins do not see: whether there is a protein at all, how large and how hollow it is, where it lies.

    Parameters
    ----------
    dataset
        The volumes.
    particles
        Spectra of the same particles.
    """
    ball, own = particles.ball, particles.weight_index
    n_shells = int(ball.shells.max()) + 1
    measured = particles.measured.float()
    rows = [torch.arange(len(own))[part] for part in share(len(own), _MOMENTS_BATCH)]
    place = torch.arange(BOX, device=own.device) - BOX // 2
    squares = torch.stack(torch.meshgrid(place**2, place**2, place**2, indexing="ij")).sum(dim=0)
    ring = squares.float().sqrt().round().long().flatten().clamp_max(_N_RINGS)
    size = torch.bincount(ring, minlength=_N_RINGS + 1)
    # The ring of one voxel has no spread, and the last holds all that is left.
    found = torch.zeros(len(own), n_shells - 1 + 2 * _N_RINGS - 1, device=own.device)
    for part, (volumes, _) in zip(rows, at_template_box(dataset).batches(rows), strict=True):
        power = ball.shell_mean(particles.spectra[part].abs().square(), measured[own[part]])
        values = volumes.to(own.device).flatten(1)
        mean, square = (
            values.new_zeros(len(values), _N_RINGS + 1).index_add(1, ring, moment) / size
            for moment in (values, values.square())
        )
        spread = (square - mean.square()).clamp_min(1e-12).sqrt().log()
        numbers = power[:, 1:n_shells].clamp_min(1e-12).log(), mean[:, :_N_RINGS], spread[:, 1:_N_RINGS]
        found[part] = torch.cat(numbers, dim=1)
    sum_over_team(found)
    return found.double().cpu().numpy()


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
def score_shapes(particles: ParticleSpectra, shapes: Float[Tensor, "k d h w"]) -> Float[Tensor, "n k"]:
    """Correlation of every particle with every shape, −1 to 1, in the orientation and shift in which it is highest."""
    device, mask = particles.spectra.device, sphere(particles.spectra.device)
    search = Search(rotation_grid(_STEP_DEGREES).to(device), shift_star(_SHIFT, 1, device))
    norms = particles.spectra.abs().square().sum(dim=1).sqrt().clamp_min(1e-20)
    return torch.stack([match_map(particles, shape * mask, search).scores / norms for shape in shapes], dim=1)


def white_noise(particles: ParticleSpectra) -> NoiseModel:
    """Power of the noise, taken as the same in all shells: that of the outermost, where signal is least."""
    outermost = particles.ball.shells == particles.ball.shells.max()
    measured = particles.measured[:, outermost][particles.weight_index]
    power = (particles.spectra[:, outermost].abs().square() * measured).sum() / measured.sum().clamp_min(1)
    return NoiseModel(power.expand(particles.ball.box_size // 2 + 1))


def find_length(
    particles: ParticleSpectra, bank: Float[Tensor, "k d h w"], noise: NoiseModel, generator: torch.Generator
) -> float:
    """Length of the signal, in units of the noise, at which simulated shapes fit the bank as well as particles do.

    Parameters
    ----------
    particles
        The particles, as spectra.
    bank
        ``(k, d, h, w)`` shapes.
    noise
        Of the particles.
    generator
        Draws all that is random.
    """
    drawn = torch.randperm(len(particles), generator=generator)[:_N_CALIBRATING].to(particles.spectra.device)
    wanted = float(score_shapes(particles.select(drawn), bank).amax(dim=1).mean())
    seed = int(torch.randint(2**31, (1,), generator=generator))
    low, high = _LENGTHS
    for _ in range(_N_BISECTIONS):
        middle, again = math.sqrt(low * high), torch.Generator().manual_seed(seed)
        shapes = _mixed_shapes(_N_CALIBRATING, again).to(particles.spectra.device)
        lengths = torch.full((len(shapes),), middle, device=shapes.device)
        simulated, _ = simulate_particles(particles, shapes, lengths, 1, noise, again)
        found = float(score_shapes(simulated, bank).amax(dim=1).mean())
        low, high = (middle, high) if found < wanted else (low, middle)
    return math.sqrt(low * high)


def _mixed_shapes(n_shapes: int, generator: torch.Generator) -> Float[Tensor, "n d h w"]:
    """As many coarse as fine ones."""
    return torch.cat([random_shapes(n_shapes // 2, generator, fine=fine) for fine in (False, True)])
