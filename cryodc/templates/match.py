"""Particles matched with maps in all orientations, as spectra in a ball of low frequencies at a small box."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.alignment import ClassPoses, PoseSet, References, empty_poses, shared_poses
from cryodc.dataset import CroppedDataset, Dataset
from cryodc.fourier import (
    NoiseModel,
    ParticleSpectra,
    ParticleStack,
    ball_spectra,
    ball_weights,
    fine_spectrum,
    fourier_ball,
    score_chosen,
    score_poses,
    slices,
    soft_sphere,
)
from cryodc.geometry import random_rotations, rotation_grid

BOX = 16
"""Particles are Fourier-cropped to this box: what tells proteins apart lies in their lowest shells."""
RADIUS = 6.5
"""Shells that are ever looked at."""
_READ_BATCH = 256


def sphere(device: torch.device | None = None) -> Float[Tensor, "d h w"]:
    """The soft sphere that masks particles and maps in the box :data:`BOX`."""
    return soft_sphere(BOX, 6.0, 2.0, device)


def crop_particles(dataset: Dataset, rows: Int[Tensor, " b"], device: torch.device) -> ParticleStack:
    """Particles in the box :data:`BOX`."""
    volumes, weights = [], _DistinctWeights()
    for volume, weight in at_template_box(dataset).batches(rows.split(_READ_BATCH)):
        assert weight is not None
        volumes.append(volume.to(device))
        weights.add(weight.to(device))
    return ParticleStack(torch.cat(volumes), *weights.joined())


def particle_spectra(dataset: Dataset, device: torch.device) -> ParticleSpectra:
    """Spectra of all particles, read in batches."""
    batches = torch.arange(len(dataset)).split(_READ_BATCH)
    return spectra_of(at_template_box(dataset).batches(batches), len(dataset), device)


def spectra_of(
    batches: Iterable[tuple[Tensor, Tensor | None]], n_particles: int, device: torch.device
) -> ParticleSpectra:
    """Spectra of so many volumes in the box :data:`BOX` that come in batches, each with its weights."""
    ball, mask = fourier_ball(BOX, RADIUS, device), sphere(device)
    # Filled, not joined: kept pieces between those that are given back would leave memory in holes.
    spectra = torch.empty(n_particles, len(ball), dtype=torch.complex64, device=device)
    weights, start = _DistinctWeights(), 0
    for volume, weight in batches:
        assert weight is not None
        spectra[start : start + len(volume)] = ball_spectra(volume.to(device) * mask, ball)
        weights.add(ball_weights(weight.to(device), ball))
        start += len(volume)
    return ParticleSpectra(ball, spectra, *weights.joined())


class _DistinctWeights:
    """Weights that come in batches, of which each is kept once."""

    def __init__(self) -> None:
        self.distinct: list[Tensor] = []
        self.index: list[Tensor] = []

    def add(self, weights: Tensor) -> None:
        """Those of one batch, a row for each particle."""
        distinct, index = torch.unique(weights, dim=0, return_inverse=True)
        self.index.append(index + sum(map(len, self.distinct)))
        self.distinct.append(distinct)

    def joined(self) -> tuple[Tensor, Int[Tensor, " n"]]:
        """The distinct weights, and which of them each particle has."""
        distinct, index = torch.unique(torch.cat(self.distinct), dim=0, return_inverse=True)
        return distinct, index[torch.cat(self.index)]


def at_template_box(dataset: Dataset) -> Dataset:
    """Particles in the box :data:`BOX`."""
    return dataset if dataset.box_size == BOX else CroppedDataset(dataset, BOX)


STEP_DEGREES = 24.0
_BATCH = 256
_N_SHIFTED = 4
_SHIFT, _N_SHIFTS = 0.6, 2


@dataclass(frozen=True)
class Search:
    """What is tried.

    Parameters
    ----------
    rotations
        ``(r, 3, 3)``, all of them with no shift.
    shifts
        ``(t, 3)`` zyx in voxels of the particles' box, in the best four of the rotations.
    """

    rotations: Float[Tensor, "r 3 3"]
    shifts: Float[Tensor, "t 3"]


def shift_star(step_voxels: float, n_steps: int, device: torch.device | None = None) -> Float[Tensor, "t 3"]:
    """No shift, and so many steps along each axis in both directions.

    Examples
    --------
    >>> len(shift_star(0.6, 2))
    13
    """
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    return torch.cat([torch.zeros(1, 3), *(step_voxels * k * axes for k in range(1, n_steps + 1))]).to(device)


def random_search(generator: torch.Generator, device: torch.device) -> Search:
    """A grid that covers all rotations, turned at random, and a star of shifts: no two searches try the same poses."""
    turned = rotation_grid(STEP_DEGREES) @ random_rotations(1, generator)[0]
    return Search(turned.to(device), shift_star(_SHIFT, _N_SHIFTS, device))


@torch.no_grad()
def match_map(
    particles: ParticleSpectra, volume: Float[Tensor, "d h w"], search: Search, noise: NoiseModel | None = None
) -> PoseSet:
    """Find the pose in which a map fits each particle best, by the score of :func:`cryodc.fourier.score_poses`.

    All rotations are tried without a shift, then all shifts in the best four of them.

    Parameters
    ----------
    particles
        As recorded.
    volume
        The map, in their box.
    search
        What is tried.
    noise
        Of the particles; of variance 1 by default.
    """
    ball = particles.ball
    fine = fine_spectrum(volume[None], float(ball.frequencies.norm(dim=1).max()))[0]
    columns = slices(fine, ball, search.rotations)

    def find(rows: slice) -> PoseSet:
        part = particles.select(rows)
        part = part if noise is None else noise.whiten(part)
        upright = score_poses(part.spectra, part.weights, part.weight_index, columns, ball, search.shifts[:1])[:, 0]
        best = upright.topk(min(_N_SHIFTED, len(columns)), dim=1).indices
        shifted = score_chosen(part.spectra, part.weights, part.weight_index, columns, best, ball, search.shifts)
        scores, where = shifted.transpose(1, 2).flatten(1).max(dim=1)
        turned = best.gather(1, (where // len(search.shifts))[:, None])[:, 0]
        return PoseSet(search.rotations[turned], search.shifts[where % len(search.shifts)], scores)

    return shared_poses(len(particles), _BATCH, ball.index.device, find)


def match_references(
    particles: ParticleSpectra,
    halves: Int[Tensor, " n"],
    references: References,
    search: Search,
    noise: NoiseModel,
) -> ClassPoses:
    """Match every particle with every reference, always with the map of the other half set.

    Parameters
    ----------
    particles, halves
        The particles, and the half set, 1 or 2, of each.
    references
        Two maps of each.
    search
        What is tried.
    noise
        Of the particles.
    """
    poses = empty_poses(len(particles), len(references), halves.device)
    for label in range(len(references)):
        for half in (1, 2):
            rows = torch.nonzero(halves == half)[:, 0]
            if len(rows):
                other = references.maps[label, 2 - half]
                poses.put(rows, label, match_map(particles.select(rows), other, search, noise))
    return poses
