"""Does noise that depends on the weight find more poses? 40 real ribosomes, searched against the published map.

python -m benchmarks.maps.noise_by_weight --data PATH

PATH holds particles.star, subtomograms/ and published_average.mrc. Particles are searched three times against the map,
mirrored as their hand asks, and the noise is estimated anew from what the map leaves. Noise is either one value for
each shell, or one for each shell and level of the weight, relative to the highest weight of the shell. Told is how many
particles end within 10° of the STAR's pose, for each tomogram, with their mean score.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.command import run
from cryodc.alignment import ClassSpectra
from cryodc.dataset import load_dataset
from cryodc.fourier import FourierBall, ParticleSpectra, low_pass, shift_lattice, soft_sphere
from cryodc.geometry import geodesic_degrees
from cryodc.io import read_volume
from cryodc.particles import read_particles

EDGES = {"shell": (), "shell and 4 levels of weight": (0.5, 0.25, 0.125)}
CLOSE_DEGREES = 10.0
_FEWEST = 20


def level_of(weights: Tensor, ball: FourierBall, edges: tuple[float, ...]) -> Tensor:
    """``(m, p)`` how many edges lie above a weight, over the highest of its shell."""
    shells = ball.shells.expand(len(weights), -1)
    highest = torch.zeros(len(weights), int(ball.shells.max()) + 1).scatter_reduce(1, shells, weights, "amax")
    relative = weights / highest.gather(1, shells).clamp_min(1e-9)
    return torch.stack([torch.zeros_like(relative), *(relative < edge for edge in edges)]).long().sum(dim=0)


@dataclass(frozen=True)
class LevelNoise:
    """Variance of the noise of each shell and level ``(shells, levels)``."""

    power: Tensor
    edges: tuple[float, ...]

    def whiten(self, particles: ParticleSpectra) -> ParticleSpectra:
        """As :meth:`cryodc.fourier.NoiseModel.whiten`."""
        level = level_of(particles.weights, particles.ball, self.edges)
        return particles.scaled(self.power[particles.ball.shells.expand_as(level), level].clamp_min(1e-12).rsqrt())


def estimator(edges: tuple[float, ...]) -> Callable[[ParticleSpectra, Tensor], LevelNoise]:
    """As :func:`cryodc.fourier.noise_of_residuals`; a level of few voxels takes the mean of its shell."""

    def estimate(particles: ParticleSpectra, power: Tensor) -> LevelNoise:
        n_shells, n_levels = particles.ball.box_size // 2 + 1, len(edges) + 1
        own = particles.weight_index
        measured = particles.measured.float()[own]
        level = level_of(particles.weights, particles.ball, edges)[own]
        place = (particles.ball.shells * n_levels + level).flatten()
        total, count = (
            torch.zeros(n_shells * n_levels).index_add(0, place, values.flatten()).reshape(n_shells, n_levels)
            for values in (power * measured, measured)
        )
        of_shell = total.sum(dim=1, keepdim=True) / count.sum(dim=1, keepdim=True).clamp_min(1e-9)
        mean = torch.where(count > _FEWEST, total / count.clamp_min(1e-9), of_shell)
        return LevelNoise(mean, edges)

    return estimate


def mean_of(parts: list[tuple[LevelNoise, int]]) -> LevelNoise:
    """As :func:`cryodc.fourier.mean_noise`."""
    n = sum(count for _, count in parts)
    return LevelNoise(torch.stack([noise.power * (count / n) for noise, count in parts]).sum(dim=0), parts[0][0].edges)


def main() -> None:
    """Search with each kind of noise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    particles = read_particles(arguments.data / "particles.star")
    assert particles.poses is not None
    known = torch.from_numpy(particles.poses.rotations).float()
    stack = load_dataset(particles).gather(torch.arange(len(particles)))
    published = torch.from_numpy(read_volume(arguments.data / "published_average.mrc").voxels.copy())
    reference = low_pass(torch.roll(published.flip(0), 1, 0), 9.0, 1.0)
    box, rows, tomograms = stack.box_size, torch.arange(len(stack)), np.array(particles.tomograms)
    for name, edges in EDGES.items():
        with (
            mock.patch("cryodc.alignment.spectra.noise_of_residuals", estimator(edges)),
            mock.patch("cryodc.alignment.spectra.mean_noise", mean_of),
        ):
            aligned = ClassSpectra(stack.masked(soft_sphere(box, 0.375 * box, 3.0)), 0.35 * box)
            generator, pose = torch.Generator().manual_seed(0), None
            for _ in range(3):
                lattice = shift_lattice(2.6, 1.5, stack.device)
                pose = aligned.search(rows, reference * aligned.mask, 7.0, 14.0, lattice, generator, pose)
                pose = aligned.refine(rows, reference * aligned.mask, 9.0, pose)
                aligned.estimate_noise(rows, reference * aligned.mask, pose)
        assert pose is not None
        close = geodesic_degrees(pose.rotations.double().numpy(), known.double().numpy()) < CLOSE_DEGREES
        told = [
            f"{tomogram}: {int(close[tomograms == tomogram].sum())} of {int((tomograms == tomogram).sum())}, "
            f"score {float(pose.scores.numpy()[tomograms == tomogram].mean()):.1f}"
            for tomogram in sorted(set(particles.tomograms))
        ]
        print(f"noise by {name}: {int(close.sum())} of {len(close)} within 10°;", "; ".join(told))


if __name__ == "__main__":
    run(main)
