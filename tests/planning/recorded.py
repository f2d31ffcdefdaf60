"""What tests of practice particles share."""

import re

import numpy as np
import torch

from cryodc.dataset import ParticleReader
from cryodc.fourier import shell_radius, wedge_from_tilt_range
from cryodc.particles import ParticleSet
from cryodc.planning import Recorded
from cryodc.simulation import phantom

BOX, SPACING, N = 24, 14.0, 48
BARREL = {"barrel": phantom("barrel")}
LEVELS = {"quiet": 4.0, "loud": 12.0}


def transfer() -> torch.Tensor:
    """A CTF behind a wedge of ±60°: it falls to nothing and comes back, so a shell has many weights."""
    k = shell_radius(BOX)
    envelope = torch.exp(-((k / 14) ** 2))
    return (0.05 + 0.95 * torch.sin(0.9 + k**2 / 40).abs()) * envelope * wedge_from_tilt_range(BOX, -60, 60)


def noise_power(weight: torch.Tensor, level: float) -> torch.Tensor:
    """Red, and a hundred times weaker where the weight is small."""
    return level * 40 / (1 + shell_radius(BOX) / 3) ** 2 * (0.01 + (weight / weight.max()) ** 2) * (weight > 0)


def measured_noise(recorded: Recorded, weight: torch.Tensor, tomogram: str) -> torch.Tensor:
    power = recorded.noise.at(weight, tomogram)
    return power / power.mean()


def renumbered(lines: list[str]) -> list[str]:
    """Column numbers after a label are comments; here they go."""
    return [re.sub(r"^(_rln\w+)\s+#\d+", r"\1", line) for line in lines]


def power_by_kind(particles: ParticleSet) -> dict[tuple[int, int], tuple[float, int]]:
    """Mean power of particles as they are read, and number of voxels, by shell and octave of the weight."""
    reader = ParticleReader(particles)
    volumes, weights = reader.read(0, len(particles))
    power = torch.fft.rfftn(volumes, dim=(1, 2, 3)).abs().square().numpy() / volumes[0].numel()
    weight = weights[torch.from_numpy(reader.weight_index)].abs()
    share = (weight / weight.amax(dim=(1, 2, 3), keepdim=True)).numpy().clip(1e-4)
    octaves = np.floor(np.log2(share)).astype(int)
    shells = np.broadcast_to(np.rint(shell_radius(particles.box_size).numpy()).astype(int), octaves.shape)
    found = {}
    for shell in range(1, particles.box_size // 2):
        for octave in range(-6, 1):
            kind = (shells == shell) & (octaves == octave)
            if kind.any():
                found[shell, octave] = (float(power[kind].mean()), int(kind.sum()))
    return found
