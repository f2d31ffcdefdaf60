"""Starting maps from nothing: stochastic EM from a random particle."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.alignment.spectra import ClassSpectra, PoseSet
from cryodc.fourier import fine_spectrum, score_poses, shift_lattice, slices
from cryodc.geometry import random_rotations, rotation_grid


def random_start(
    particles: ClassSpectra, generator: torch.Generator, n_most: int = 60, finest_shells: float = 6.0
) -> tuple[Float[Tensor, "d h w"], float]:
    """Make a map from one random start with at most ``n_most`` particles, and its score: their root mean square.

    It uses shells up to ``finest_shells``, and at most 6.

    Parameters
    ----------
    particles
        The particles, as spectra.
    generator
        Draws all that is random.
    n_most
        At most so many particles are used.
    finest_shells
        Shells that are used, 6 at most.
    """
    device = particles.device
    rows = torch.randperm(len(particles), generator=generator)[:n_most].to(device)
    eye = torch.eye(3, device=device)[None]
    seed_particle = particles.sums(rows[:1], eye, torch.zeros(1, 3, device=device), 4.0)
    reference = particles.volume(*seed_particle, torch.full_like(particles.one, 0.5))
    lattice = shift_lattice(1.8, 1.8, device)
    # Radius, grid step, poses a particle is spread over.
    for radius, step, spread in ((4.0, 25.0, 100.0), (4.0, 25.0, 60.0), (4.0, 22.0, 30.0), (5.0, 20.0, 12.0)):
        radius = min(radius, finest_shells)
        drawn = _draw(particles, rows, reference, radius, step, spread, lattice, generator)
        parts = [particles.sums(rows[k].repeat_interleave(8), *_flat(drawn, k), radius) for k in _split(len(rows))]
        first, second, _ = particles.reference(parts[0], parts[1])
        reference = 0.5 * (first + second)
    pose: PoseSet | None = None
    finest = min(6.0, finest_shells)
    for _ in range(2):
        pose = particles.search(rows, reference, finest, 18.0, lattice, generator, pose, n_candidates=2, n_steps=4)
        parts = [particles.sums(rows[k], pose.rotations[k], pose.shifts[k], finest) for k in _split(len(rows))]
        first, second, _ = particles.reference(parts[0], parts[1])
        reference = 0.5 * (first + second)
    assert pose is not None
    return reference, float(pose.scores.square().mean().sqrt())


def _draw(
    particles: ClassSpectra,
    rows: Tensor,
    reference: Tensor,
    radius: float,
    step_degrees: float,
    spread: float,
    lattice: Tensor,
    generator: torch.Generator,
    n_draws: int = 8,
) -> tuple[Tensor, Tensor]:
    """Poses drawn from each particle's posterior: rotations ``(n, draws, 3, 3)`` and shifts ``(n, draws, 3)``."""
    part = particles.whitened(rows, radius)
    grid = rotation_grid(step_degrees) @ random_rotations(1, generator)[0]
    grid = grid.to(rows.device)
    columns = slices(fine_spectrum(reference[None], radius)[0], part.ball, grid)
    scores = score_poses(part.spectra, part.weights, part.weight_index, columns, part.ball, lattice)
    likelihood = 0.5 * scores.clamp_min(0).square().flatten(1)
    temperature = _temperature(likelihood[:: max(1, len(rows) // 12)], spread)
    posterior = torch.softmax(likelihood / temperature, dim=1)
    picked = torch.multinomial(posterior.cpu(), n_draws, replacement=True, generator=generator).to(rows.device)
    return grid[picked % len(grid)], lattice[picked // len(grid)]


def _temperature(likelihood: Tensor, spread: float) -> float:
    """The temperature at which posteriors have, on average, the entropy of ``spread`` equal poses."""
    low, high = 1e-3, 1e4
    relative = likelihood - likelihood.max(dim=1, keepdim=True).values
    for _ in range(18):
        middle = math.sqrt(low * high)
        p = torch.softmax(relative / middle, dim=1)
        entropy = float(-(p * (p + 1e-30).log()).sum(dim=1).mean())
        low, high = (low, middle) if entropy > math.log(spread) else (middle, high)
    return math.sqrt(low * high)


def _flat(drawn: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    return drawn[0][rows].flatten(0, 1), drawn[1][rows].flatten(0, 1)


def _split(n: int) -> tuple[Tensor, Tensor]:
    return torch.arange(0, n, 2), torch.arange(1, n, 2)


def centred(volume: Tensor) -> Tensor:
    """The volume, its dense part moved to the centre by whole voxels."""
    n = volume.shape[-1]
    dense = (volume - 0.3 * volume.max()).clamp_min(0)
    axis = torch.arange(n, device=volume.device) - n // 2
    total = dense.sum().clamp_min(1e-12)
    shift = [round(float((dense.sum(dim=tuple(d for d in range(3) if d != a)) * axis).sum() / total)) for a in range(3)]
    return torch.roll(volume, [-s for s in shift], (0, 1, 2))
