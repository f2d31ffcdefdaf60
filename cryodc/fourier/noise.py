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
        """What spectra and weights are multiplied by so that the noise has variance 1 everywhere."""
        return self.power.clamp_min(1e-12).rsqrt()[ball.shells][None]

    def whiten(self, particles: ParticleSpectra) -> ParticleSpectra:
        """Particles whose noise has variance 1 everywhere, with the weights that go with them."""
        return particles.scaled(self.whitening(particles.ball))


def noise_of_residuals(particles: ParticleSpectra, power: Float[Tensor, "n p"]) -> NoiseModel:
    """The noise of which ``|F − model|²`` are the squares: their mean over each shell, where it was measured.

    Parameters
    ----------
    particles
        Whose weights say what was measured.
    power
        ``(n, p)`` squared magnitude of what a model leaves of each particle, in the same ball.
    """
    measured = particles.measured.float()[particles.weight_index]
    share = measured.mean(dim=0)
    return NoiseModel(particles.ball.shell_mean((power * measured).mean(dim=0) / share.clamp_min(1e-9), share))


def mean_noise(parts: list[tuple[NoiseModel, int]]) -> NoiseModel:
    """The noise of several sets together: their mean, each by its number of particles."""
    total = sum(count for _, count in parts)
    return NoiseModel(torch.stack([noise.power * (count / total) for noise, count in parts]).sum(dim=0))
