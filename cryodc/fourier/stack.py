"""Particles with the weight of each: their volumes, in memory or read a few at a time, and their spectra in a ball."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cryodc.fourier.ball import FourierBall, ball_spectra, ball_weights, chunks
from cryodc.fourier.wedge import measured_voxels


@runtime_checkable
class Particles(Protocol):
    """Subtomograms and their weights, in memory or in files: looked at a few at a time."""

    @property
    def weight_index(self) -> Int[Tensor, " n"]:
        """Which weight each particle has."""

    @property
    def box_size(self) -> int:
        """Edge of the box, voxels."""

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""

    @property
    def memory_bytes(self) -> float:
        """How much may be held of what is made of them."""

    @property
    def n_at_once(self) -> int:
        """How many are held at once, so that memory does not grow with the box."""

    def __len__(self) -> int: ...

    def select(self, rows: Tensor | slice) -> "Particles":
        """These particles."""

    def read(self) -> "ParticleStack":
        """All of them, in memory."""

    def batches(self, n_per_batch: int) -> Iterator[tuple[slice, "ParticleStack"]]:
        """All particles in order, a few at a time."""

    def changed(self, change: "Change", box_size: int) -> "Particles":
        """The particles as a function changes them, which looks at each by itself; and the box they then have."""

    def masked(self, mask: Float[Tensor, "d h w"]) -> "Particles":
        """The particles seen through a mask."""

    def to(self, device: torch.device) -> "Particles":
        """The same particles on a device."""


@dataclass(frozen=True)
class ParticleStack:
    """Subtomograms and their weights, in memory.

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

    @property
    def memory_bytes(self) -> float:
        """No limit: what is made of them is smaller than they are."""
        return float("inf")

    @property
    def n_at_once(self) -> int:
        """So many that they take 64 MiB."""
        return at_once(self.box_size)

    def select(self, rows: Int[Tensor, " b"] | slice) -> "ParticleStack":
        """These particles."""
        return ParticleStack(self.volumes[rows], self.weights, self.weight_index[rows])

    def read(self) -> "ParticleStack":
        """These."""
        return self

    def changed(self, change: "Change", box_size: int) -> "ParticleStack":
        """The particles as a function changes them."""
        return change(self)

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


Change = Callable[[ParticleStack], ParticleStack]


@dataclass(frozen=True)
class StoredParticles:
    """Particles that are read when they are looked at.

    Parameters
    ----------
    gather
        Reads some rows, with their distinct weights.
    rows
        ``(n,)`` which rows of all there are.
    weight_index
        ``(n,)`` which weight each of them has.
    box_size
        Edge of the box, voxels.
    memory_bytes
        How much may be held of what is made of them.
    n_at_once
        How many are read at once.
    device
        Where they are moved to when they have been read.
    changes
        What is done to them then, one after the other.
    """

    gather: Callable[[Tensor], ParticleStack]
    rows: Int[Tensor, " n"]
    weight_index: Int[Tensor, " n"]
    box_size: int
    memory_bytes: float
    n_at_once: int
    device: torch.device
    changes: tuple[Change, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Int[Tensor, " b"] | slice) -> "StoredParticles":
        """These particles; nothing is read."""
        rows = rows if isinstance(rows, slice) else rows.cpu()
        return replace(self, rows=self.rows[rows], weight_index=self.weight_index[rows])

    def read(self) -> ParticleStack:
        """All of them, in memory."""
        found = self.gather(self.rows).to(self.device)
        for change in self.changes:
            found = change(found)
        return found

    def batches(self, n_per_batch: int) -> Iterator[tuple[slice, ParticleStack]]:
        """All particles in order, a few at a time."""
        for rows in chunks(len(self), n_per_batch):
            yield rows, self.select(rows).read()

    def changed(self, change: Change, box_size: int) -> "StoredParticles":
        """The particles as a function changes them once they are read."""
        return replace(self, changes=(*self.changes, change), box_size=box_size)

    def masked(self, mask: Float[Tensor, "d h w"]) -> "StoredParticles":
        """The particles seen through a mask."""
        return self.changed(lambda part: part.masked(mask), self.box_size)

    def to(self, device: torch.device) -> "StoredParticles":
        """The same particles, read to a device."""
        return replace(self, device=device)


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
        """These particles; their own weights alone where there are more than particles."""
        spectra, index = self.spectra[rows], self.weight_index[rows]
        if len(self.weights) <= len(index):
            return ParticleSpectra(self.ball, spectra, self.weights, index)
        return ParticleSpectra(self.ball, spectra, self.weights[index], torch.arange(len(index), device=index.device))

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


def at_once(box_size: int) -> int:
    """How many particles take 64 MiB."""
    return max(1, 2**24 // box_size**3)


def stack_spectra(stack: ParticleStack, ball: FourierBall) -> ParticleSpectra:
    """Spectra of a stack in a ball."""
    spectra = [ball_spectra(part.volumes, ball) for _, part in stack.batches(stack.n_at_once)]
    joined = torch.cat(spectra) if spectra else torch.zeros(0, len(ball), dtype=torch.complex64, device=stack.device)
    return ParticleSpectra(ball, joined, ball_weights(stack.weights, ball), stack.weight_index)


def mean_weights(particles: Particles, ball: FourierBall) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Mean over distinct weights of ``H²`` in each shell, and of the share of it that counts as measured."""
    _, first = np.unique(particles.weight_index.cpu().numpy(), return_index=True)
    squared, seen = [], []
    for _, part in particles.select(torch.from_numpy(first).to(particles.device)).batches(particles.n_at_once):
        own = ball_weights(part.own_weights, ball)
        squared.append(ball.shell_mean(own.square()))
        seen.append(ball.shell_mean(measured_voxels(own).float()))
    # Joined before they are summed, so that the mean does not depend on the batches.
    return torch.cat(squared).mean(dim=0), torch.cat(seen).mean(dim=0)
