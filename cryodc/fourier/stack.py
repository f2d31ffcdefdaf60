"""Particles as tensors with the weight of each: their volumes, and their spectra in a ball."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cryodc.fourier.ball import FourierBall, ball_spectra, ball_weights, chunks
from cryodc.fourier.wedge import measured_voxels


@dataclass(frozen=True)
class ParticleStack:
    """Subtomograms and their weights.

    Parameters
    ----------
    volumes
        ``(n, d, h, w)`` subtomograms, box centre at ``N // 2``.
    weights
        ``(m, d, h, w // 2 + 1)`` distinct weights, half-Fourier in FFT order.
    weight_index
        ``(n,)`` which weight each subtomogram has.
    """

    volumes: Float[Tensor, "n d h w"]
    weights: Float[Tensor, "m d h hw"]
    weight_index: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def box_size(self) -> int:
        """Edge of the box, voxels."""
        return self.volumes.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.volumes.device

    @property
    def own_weights(self) -> Float[Tensor, "n d h hw"]:
        """The weight of each particle."""
        return self.weights[self.weight_index]

    def select(self, rows: Int[Tensor, " b"] | slice) -> "ParticleStack":
        """These particles."""
        return ParticleStack(self.volumes[rows], self.weights, self.weight_index[rows])

    def batches(self, n_per_batch: int) -> Iterator[tuple[slice, "ParticleStack"]]:
        """All particles in order, a few at a time."""
        for rows in chunks(len(self), n_per_batch):
            yield rows, self.select(rows)

    def masked(self, mask: Float[Tensor, "d h w"]) -> "ParticleStack":
        """The particles seen through a mask."""
        return ParticleStack(self.volumes * mask, self.weights, self.weight_index)

    def to(self, device: torch.device) -> "ParticleStack":
        """The same particles on a device."""
        return ParticleStack(self.volumes.to(device), self.weights.to(device), self.weight_index.to(device))


@dataclass(frozen=True)
class ParticleSpectra:
    """Particles as spectra in a ball.

    Parameters
    ----------
    ball
        Where they are sampled.
    spectra
        ``(n, p)`` spectrum of each particle.
    weights, weight_index
        ``(m, p)`` distinct weights, and ``(n,)`` which one each particle has.
    """

    ball: FourierBall
    spectra: Complex[Tensor, "n p"]
    weights: Float[Tensor, "m p"]
    weight_index: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.spectra)

    @property
    def own_weights(self) -> Float[Tensor, "n p"]:
        """The weight of each particle."""
        return self.weights[self.weight_index]

    @property
    def measured(self) -> Bool[Tensor, "m p"]:
        """Where each weight measures."""
        return measured_voxels(self.weights)

    def select(self, rows: Int[Tensor, " b"] | slice) -> "ParticleSpectra":
        """These particles."""
        return ParticleSpectra(self.ball, self.spectra[rows], self.weights, self.weight_index[rows])

    def within(self, radius_shells: float) -> "ParticleSpectra":
        """Their shells up to a radius."""
        keep = self.ball.mask(radius_shells)
        if bool(keep.all()):
            return self
        return ParticleSpectra(
            self.ball.within(radius_shells), self.spectra[:, keep], self.weights[:, keep], self.weight_index
        )

    def scaled(self, factors: Float[Tensor, "#m p"]) -> "ParticleSpectra":
        """Spectra and weights multiplied by factors, one row for each weight or one for all."""
        own = factors if len(factors) == 1 else factors[self.weight_index]
        return ParticleSpectra(self.ball, self.spectra * own, self.weights * factors, self.weight_index)


def stack_spectra(stack: ParticleStack, ball: FourierBall) -> ParticleSpectra:
    """Spectra of a stack in a ball."""
    spectra = [ball_spectra(part.volumes, ball) for _, part in stack.batches(256)]
    joined = torch.cat(spectra) if spectra else torch.zeros(0, len(ball), dtype=torch.complex64, device=stack.device)
    return ParticleSpectra(ball, joined, ball_weights(stack.weights, ball), stack.weight_index)
