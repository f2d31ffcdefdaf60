"""Noise as it was recorded: its power by shell and by weight, for each tomogram."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import hermitian_count, shell_index

_OCTAVES, _PER_OCTAVE = 6, 2
N_BINS = _OCTAVES * _PER_OCTAVE + 1
"""Half octaves of the weight, down to 1/64 of its largest value, and one bin for everything below."""
_OTHERS = ""


def bin_edges() -> Float[NDArray[np.float64], " edges"]:
    """Edges of the bins, as shares of a weight's largest value, 0 to 1."""
    return np.concatenate([[0.0], 2.0 ** (np.arange(-_OCTAVES * _PER_OCTAVE, 1) / _PER_OCTAVE)])


def weight_bins(weight: Float[Tensor, "d h hw"]) -> Int[Tensor, "d h hw"]:
    """Which bin each Fourier voxel of a weight is in: by its magnitude over the largest.

    Examples
    --------
    >>> weight_bins(torch.tensor([[[0.0, 0.02, 0.5, -1.0]]]))
    tensor([[[ 0,  1, 11, 12]]])
    """
    share = weight.abs() / weight.abs().max()
    return (_PER_OCTAVE * share.log2()).floor().add(N_BINS).clamp(0, N_BINS - 1).long()


@dataclass(frozen=True)
class NoisePower:
    """Noise whose power depends on the shell and on the weight; of each tomogram that has enough particles.

    Parameters
    ----------
    groups
        Place in ``power`` by tomogram; those that are not named are in the last.
    power
        ``(g, s, b)`` expected ``|F|² / N³`` of a Fourier voxel, for particles of variance 1: by shell, to the corner of
        the box, and by bin of the weight.
    """

    groups: Mapping[str, int]
    power: Float[Tensor, "g s b"]

    def group(self, tomogram: str) -> int:
        """Which group the particles of a tomogram are in."""
        return self.groups.get(tomogram, len(self.power) - 1)

    def at(self, weight: Float[Tensor, "d h hw"], tomogram: str) -> Float[Tensor, "d h hw"]:
        """Power at every Fourier voxel of a particle with this weight."""
        return self.power[self.group(tomogram), shell_index(weight.shape[0]), weight_bins(weight)]


def enough(tomograms: tuple[str, ...], fewest: int) -> dict[str, int]:
    """Groups of tomograms: one for each that has so many particles, numbered as they come up."""
    names, counts = np.unique(np.array(tomograms), return_counts=True)
    many = [str(name) for name, count in zip(names, counts, strict=True) if count >= fewest and name != _OTHERS]
    return {name: place for place, name in enumerate(many)}


class PowerSums:
    """Power of particles, and of what their weights pass on, summed by group, shell and bin of the weight.

    Parameters
    ----------
    box_size
        Of the particles.
    groups
        By tomogram; there is one more group, for those not named.
    protein
        ``(d, h, w // 2 + 1)`` power of the protein before its weight, at variance 1.
    """

    def __init__(self, box_size: int, groups: Mapping[str, int], protein: Float[Tensor, "d h hw"]) -> None:
        self.groups, self._protein = dict(groups), protein.double()
        self._index = shell_index(box_size)
        self._count = hermitian_count(box_size).double().expand(self._index.shape)
        self._shape = (len(groups) + 1, int(self._index.max()) + 1, N_BINS)
        # Power, power of the protein under the weight, squared weight, number of voxels.
        self._sums = torch.zeros(4, *self._shape, dtype=torch.float64)
        self.occupancy = torch.zeros(N_BINS, *self._index.shape)

    def add(self, power: Float[Tensor, "d h hw"], weight: Float[Tensor, "d h hw"], tomogram: str) -> None:
        """Add one particle: its ``|F|² / N³``, and its weight."""
        bins = weight_bins(weight)
        self.occupancy.scatter_add_(0, bins[None], torch.ones_like(weight)[None])
        place = (self._index * N_BINS + bins).flatten()
        group = self._sums[:, self.groups.get(tomogram, len(self.groups))].flatten(1)
        squared = weight.square()
        for row, values in enumerate((power, squared * self._protein, squared, torch.ones_like(weight))):
            group[row].index_add_(0, place, (values.double() * self._count).flatten())

    @property
    def voxels(self) -> Float[Tensor, "g s b"]:
        """How many Fourier voxels there are of each kind."""
        return self._sums[3]

    def power(self) -> Float[Tensor, "g s b"]:
        """Mean power, of noise and protein together; a kind that a group lacks has that of all groups."""
        return self._mean(0)

    def protein(self) -> Float[Tensor, "g s b"]:
        """Mean power of a protein of variance 1 under its weight."""
        return self._mean(1)

    def squared_weight(self) -> Float[Tensor, "g s b"]:
        """Mean squared weight."""
        return self._mean(2)

    def mean_over(self, table: Float[Tensor, "g s b"]) -> Float[Tensor, "s b"]:
        """A table over all groups, each counting by its voxels."""
        return (table * self.voxels).sum(dim=0) / self.voxels.sum(dim=0).clamp_min(1)

    def by_shell(self, table: Float[Tensor, "g s b"]) -> Float[Tensor, " s"]:
        """Mean of a table in each shell, each kind of voxel counting by its number."""
        return (table * self.voxels).sum(dim=(0, 2)) / self.voxels.sum(dim=(0, 2))

    def _mean(self, row: int) -> Float[Tensor, "g s b"]:
        mean = self._sums[row] / self.voxels.clamp_min(1)
        return torch.where(self.voxels > 0, mean, _nearest(self.mean_over(mean), self.voxels.sum(dim=0) > 0))


def _nearest(table: Float[Tensor, "s b"], known: Tensor) -> Float[Tensor, "s b"]:
    """A table whose gaps are filled with the nearest known bin of the same shell."""
    bins = torch.arange(N_BINS)
    distance = (bins[:, None] - bins).abs() + torch.where(known, 0, 10 * N_BINS)[:, None]
    return table.gather(1, distance.argmin(dim=2))
