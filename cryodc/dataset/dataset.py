"""SubtomogramDataset: a ParticleSet as tensors, in memory or read from a pack as they are needed."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.dataset.packed import PackedArray
from cryodc.dataset.reading import InputOptions, ParticleReader
from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, StoredParticles, at_once
from cryodc.particles import ParticleSet


@runtime_checkable
class Dataset(Protocol):
    """What training and encoding ask of particles, in 2D or 3D."""

    @property
    def names(self) -> tuple[str, ...]:
        """Unique, in order."""

    @property
    def source(self) -> Path:
        """What an error about them names."""

    @property
    def box_size(self) -> int:
        """Voxels."""

    @property
    def dims(self) -> int:
        """2 or 3."""

    @property
    def n_channels(self) -> int:
        """1; images in colour have 3."""

    def __len__(self) -> int: ...

    def batches(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Particles and their weights (None: everything was measured), one batch of indices after the other."""


class OfVolumes:
    """What every dataset of volumes has in common."""

    @property
    def dims(self) -> int:
        """3."""
        return 3

    @property
    def n_channels(self) -> int:
        """1."""
        return 1


@dataclass(frozen=True)
class SubtomogramDataset(OfVolumes):
    """Particles as tensors; see :mod:`cryodc.dataset.reading` for what is done to them.

    Parameters
    ----------
    particles
        Names, poses, tomograms; box size and spacing of the volumes.
    volumes
        ``(n, d, h, w)`` float32, protein positive, each of mean 0 and standard deviation 1: a tensor, or an array
        that is read when it is indexed.
    weights
        ``(m, d, h, w // 2 + 1)``: the distinct weights, likewise.
    weight_index
        ``(n,)``: which of them each particle has.
    """

    particles: ParticleSet
    volumes: Float[Tensor, "n d h w"] | PackedArray
    weights: Float[Tensor, "m d h hw"] | PackedArray
    weight_index: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the particles."""
        return self.particles.names

    @property
    def source(self) -> Path:
        """Their STAR file."""
        return self.particles.source

    @property
    def box_size(self) -> int:
        """Of the volumes."""
        return self.particles.box_size

    def batch(self, indices: Int[Tensor, " b"]) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h hw"]]:
        """Volumes and weights of these particles."""
        return self.volumes[indices], self.weight(indices)

    def weight(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b d h hw"]:
        """Weights of these particles."""
        return self.weights[self.weight_index[indices]]

    def batches(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch after the other, the next read in a thread while the caller works on this one."""
        coming: Future[tuple[Tensor, Tensor]] | None = None
        with ThreadPoolExecutor(max_workers=1) as reader:
            for indices in batches:
                present, coming = coming, reader.submit(self.batch, indices)
                if present is not None:
                    yield present.result()
            if coming is not None:
                yield coming.result()

    def gather(self, rows: Int[Tensor, " b"]) -> ParticleStack:
        """These particles in memory, with their distinct weights.

        Raises
        ------
        InputError
            If they do not fit in memory.
        """
        require_memory(self.particles, len(rows), len(torch.unique(self.weight_index[rows])))
        return self._read(rows)

    def stored(
        self, rows: Int[Tensor, " b"], memory_bytes: float = 0, device: torch.device | None = None
    ) -> StoredParticles:
        """These particles, read when they are looked at.

        Parameters
        ----------
        rows
            ``(b,)`` which particles.
        memory_bytes
            How much may be held of what is made of them.
        device
            Where they are moved to.
        """
        index, device = self.weight_index[rows], device or torch.device("cpu")
        return StoredParticles(self._read, rows, index, self.box_size, memory_bytes, at_once(self.box_size), device)

    def _read(self, rows: Int[Tensor, " b"]) -> ParticleStack:
        distinct, place = torch.unique(self.weight_index[rows], return_inverse=True)
        return ParticleStack(self.volumes[rows], self.weights[distinct], place)


def load_dataset(
    particles: ParticleSet, options: InputOptions | None = None, box_size: int | None = None
) -> SubtomogramDataset:
    """Read every particle and its weight into memory.

    Raises
    ------
    InputError
        If there is no weight for a particle, the set does not fit in memory, or a file is bad.
    """
    reader = ParticleReader(particles, options, box_size)
    require_memory(reader.particles, len(particles), reader.n_weights)
    volumes, weights = reader.read(0, len(particles))
    return SubtomogramDataset(reader.particles, volumes, weights, torch.from_numpy(reader.weight_index))


def require_memory(particles: ParticleSet, n_particles: int, n_weights: int) -> None:
    """Check that so many volumes and weights fit in memory.

    Raises
    ------
    InputError
        If they do not.
    """
    n_bytes = 4 * particles.box_size**3 * (n_particles + n_weights / 2)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > 0.7 * physical:
        raise InputError(
            "these particles do not fit in memory",
            file=particles.source,
            expected=f"at most {0.7 * physical / 2**30:.1f} GiB",
            found=f"{n_particles} particles of box {particles.box_size}: {n_bytes / 2**30:.1f} GiB",
            remedy="pack them to a smaller box: `cryodc pack --box N`; training reads a pack from disk",
        )
