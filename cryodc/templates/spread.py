"""The simulated spread of scores among particles of one map, and scores in units of this spread."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.clustering import fit_mixture
from cryodc.device import by_leader
from cryodc.fourier import NoiseModel, ParticleSpectra, fine_spectrum, predict
from cryodc.geometry import random_rotations

_MOST_SHIFT = 0.75
_RIDGE = 1e-3
_N_GROUPS = (1, 2, 3, 4, 6, 8, 11, 16)
"""Of the mixtures that are tried for the spread within groups."""


def simulate_particles(
    particles: ParticleSpectra,
    maps: Float[Tensor, "k d h w"],
    lengths: Float[Tensor, " k"],
    n_per_map: int,
    noise: NoiseModel,
    generator: torch.Generator,
) -> tuple[ParticleSpectra, Int[Tensor, " n"]]:
    """Simulate particles: maps in random poses, with weights and noise of recorded particles, and the map of each.

    Parameters
    ----------
    particles
        Whose weights are drawn from.
    maps
        In the particles' box.
    lengths
        ``√(Σ |H S|² / N)``, the score of a perfect match: its median over the particles of each map.
    n_per_map
        Particles of each.
    noise
        Added where anything was measured.
    generator
        Draws all that is random, on the CPU.
    """
    device, ball = particles.spectra.device, particles.ball
    power, measured, spectra, index = noise.variance(ball), particles.measured, [], []
    for volume, length in zip(maps, lengths, strict=True):
        rotations = random_rotations(n_per_map, generator).to(device)
        shifts = _MOST_SHIFT * (2 * torch.rand(n_per_map, 3, generator=generator) - 1)
        drawn = torch.randint(len(particles), (n_per_map,), generator=generator).to(device)
        own = particles.weight_index[drawn]
        fine = fine_spectrum(volume[None])[0]
        signal = predict(fine, ball, particles.weights[own], rotations, shifts.to(device))
        found = (signal.abs().square() / power.clamp_min(1e-20)).sum(dim=1).sqrt().median()
        white = torch.randn(2, *signal.shape, generator=generator).to(device) * (power / 2).sqrt()
        rest = torch.complex(white[0], white[1]) * measured[own]
        spectra.append(length / found.clamp_min(1e-20) * signal + rest)
        index.append(own)
    which = torch.arange(len(maps), device=device).repeat_interleave(n_per_map)
    return ParticleSpectra(ball, torch.cat(spectra), particles.weights, torch.cat(index)), which


@dataclass(frozen=True)
class JointAxes:
    """Axes of several kinds of numbers together: ``points = (numbers − centre) · axes``.

    Parameters
    ----------
    centre, axes
        ``(m,)`` and ``(m, a)``. Along each axis 1 is the spread of particles that are alike.
    """

    centre: Float[NDArray[np.float64], " m"]
    axes: Float[NDArray[np.float64], "m a"]

    def apply(self, numbers: Float[NDArray[np.float64], "n m"]) -> Float[NDArray[np.float64], "n a"]:
        """Points of particles."""
        return np.asarray((numbers - self.centre) @ self.axes)


def joint_axes(numbers: Float[NDArray[np.float64], "n m"], least_spread: float, seed: int) -> JointAxes:
    """Axes in which 1 is the spread within groups of particles alike, those along which particles vary most first.

    The spread cannot be simulated, because junk and neighbours are like no simulation. So it is that of a mixture with
    one covariance for all groups, of as many groups as BIC chooses.

    Parameters
    ----------
    numbers
        ``(n, m)`` of each particle.
    least_spread
        Axes along which particles spread less tell nothing and are left out; one axis is always kept.
    seed
        Of the mixture.
    """
    centre, scale = numbers.mean(axis=0), numbers.std(axis=0).clip(1e-9)
    scaled = (numbers - centre) / scale
    sizes = [size for size in _N_GROUPS if size == 1 or size <= len(scaled) // 10]
    mixtures = by_leader(lambda: [fit_mixture(scaled, size, seed, n_starts=2) for size in sizes])
    within = min(mixtures, key=lambda mixture: float(mixture.bic(scaled))).covariances_
    axes = whitening_axes(scaled, within)
    told = max(1, int(((scaled @ axes).std(axis=0) > least_spread).sum()))
    return JointAxes(centre, axes[:, :told] / scale[:, None])


def spread_within(
    scores: Float[NDArray[np.float64], "n k"], labels: Int[NDArray[np.int64], " n"]
) -> Float[NDArray[np.float64], "k k"]:
    """Covariance of scores within maps, pooled over them."""
    _, labels = np.unique(labels, return_inverse=True)
    n_maps = int(labels.max()) + 1
    means = np.stack([scores[labels == label].mean(axis=0) for label in range(n_maps)])
    rest = scores - means[labels]
    return np.asarray(rest.T @ rest / (len(scores) - n_maps))


def whitening_axes(
    scores: Float[NDArray[np.float64], "n k"], within: Float[NDArray[np.float64], "k k"]
) -> Float[NDArray[np.float64], "k a"]:
    """Axes in which the spread within a map is 1, those along which scores vary most first (Fisher, 1936)."""
    ridge = _RIDGE * np.trace(within) / len(within)
    values, vectors = np.linalg.eigh(within + ridge * np.eye(len(within)))
    whitening = vectors / np.sqrt(values)
    _, _, principal = np.linalg.svd((scores - scores.mean(axis=0)) @ whitening, full_matrices=False)
    return np.asarray(whitening @ principal.T)
