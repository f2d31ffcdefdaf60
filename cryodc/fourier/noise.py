"""The noise of particles: how its variance varies over Fourier space."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.fourier.ball import FourierBall
from cryodc.fourier.stack import ParticleSpectra


@dataclass(frozen=True)
class NoiseModel:
    """Noise whose variance depends on the shell alone.

    Parameters
    ----------
    power
        ``(shells,)`` expected ``|noise|²`` of a Fourier voxel of each shell, 0 to Nyquist.
    """

    power: Float[Tensor, " shells"]

    def variance(self, ball: FourierBall) -> Float[Tensor, " p"]:
        """Variance of the noise at each voxel of a ball."""
        return self.power[ball.shells]

    def whitening(self, ball: FourierBall) -> Float[Tensor, "1 p"]:
        """Factors for spectra and weights that give the noise variance 1 everywhere."""
        return self.power.clamp_min(1e-12).rsqrt()[ball.shells][None]

    def whiten(self, particles: ParticleSpectra) -> ParticleSpectra:
        """The particles, scaled so that their noise has variance 1 everywhere; their weights are scaled alike."""
        return particles.scaled(self.whitening(particles.ball))


def noise_of_residuals(particles: ParticleSpectra, power: Float[Tensor, "n p"]) -> NoiseModel:
    """Noise estimated from residuals ``|F − model|²``: their mean over each shell, where particles measured.

    Parameters
    ----------
    particles
        The particles; their weights say what was measured.
    power
        ``(n, p)`` squared magnitude of the residual of each particle, in the same ball.
    """
    measured = particles.measured.float()[particles.weight_index]
    share = measured.mean(dim=0)
    return NoiseModel(particles.ball.shell_mean((power * measured).mean(dim=0) / share.clamp_min(1e-9), share))


def mean_noise(parts: list[tuple[NoiseModel, int]]) -> NoiseModel:
    """The mean noise of several sets, weighted by their numbers of particles."""
    total = sum(count for _, count in parts)
    return NoiseModel(torch.stack([noise.power * (count / total) for noise, count in parts]).sum(dim=0))
