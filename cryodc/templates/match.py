"""Particles matched with maps in all orientations, as spectra in a ball of low frequencies at a small box."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cryodc.alignment import ClassPoses, PoseSet, References, empty_poses
from cryodc.dataset import CroppedDataset, Dataset
from cryodc.fourier import (
    FourierBall,
    ball_spectra,
    ball_weights,
    chunks,
    fine_spectrum,
    fourier_ball,
    measured_voxels,
    phase_ramps,
    slices,
    soft_sphere,
)
from cryodc.geometry import random_rotations, rotation_grid

BOX = 16
"""Particles are Fourier-cropped to this box: what tells proteins apart lies in their lowest shells."""
RADIUS = 6.5
"""Shells that are ever looked at."""
_READ_BATCH = 256


@dataclass(frozen=True)
class BallSpectra:
    """Particles as spectra.

    Parameters
    ----------
    ball
        Where they are sampled.
    spectra
        ``(n, p)`` of volumes in the box :data:`BOX`, seen through :func:`sphere`.
    weights, weight_index
        ``(m, p)`` distinct weights, and which one each particle has.
    """

    ball: FourierBall
    spectra: Complex[Tensor, "n p"]
    weights: Float[Tensor, "m p"]
    weight_index: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.spectra)

    def select(self, rows: Int[Tensor, " b"]) -> "BallSpectra":
        """These particles."""
        return BallSpectra(self.ball, self.spectra[rows], self.weights, self.weight_index[rows])

    def within(self, radius_shells: float) -> "BallSpectra":
        """Their shells up to a radius."""
        keep = self.ball.mask(radius_shells)
        return BallSpectra(
            self.ball.within(radius_shells), self.spectra[:, keep], self.weights[:, keep], self.weight_index
        )

    @property
    def measured(self) -> Bool[Tensor, "m p"]:
        """Where each weight is not next to nothing."""
        return measured_voxels(self.weights)


def sphere(device: torch.device | None = None) -> Float[Tensor, "d h w"]:
    """What particles and maps are seen through, in the box :data:`BOX`."""
    return soft_sphere(BOX, 6.0, 2.0, device)


def crop_particles(
    dataset: Dataset, rows: Int[Tensor, " b"], device: torch.device
) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "m d h hw"], Int[Tensor, " b"]]:
    """Volumes in the box :data:`BOX`, their distinct weights, and which of them each has."""
    volumes, weights = [], []
    for volume, weight in at_template_box(dataset).batches(rows.split(_READ_BATCH)):
        assert weight is not None
        volumes.append(volume.to(device))
        weights.append(weight.to(device))
    distinct, index = torch.unique(torch.cat(weights), dim=0, return_inverse=True)
    return torch.cat(volumes), distinct, index


def particle_spectra(dataset: Dataset, device: torch.device) -> BallSpectra:
    """Spectra of all particles, read in batches."""
    return spectra_of(at_template_box(dataset).batches(torch.arange(len(dataset)).split(_READ_BATCH)), device)


def spectra_of(batches: Iterable[tuple[Tensor, Tensor | None]], device: torch.device) -> BallSpectra:
    """Spectra of volumes in the box :data:`BOX` that come in batches, each with its weights."""
    ball, mask = fourier_ball(BOX, RADIUS, device), sphere(device)
    spectra, weights = [], []
    for volume, weight in batches:
        assert weight is not None
        spectra.append(ball_spectra(volume.to(device) * mask, ball))
        weights.append(ball_weights(weight.to(device), ball))
    distinct, index = torch.unique(torch.cat(weights), dim=0, return_inverse=True)
    return BallSpectra(ball, torch.cat(spectra), distinct, index)


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
    particles: BallSpectra,
    volume: Float[Tensor, "d h w"],
    search: Search,
    noise: Float[Tensor, " s"] | None = None,
) -> PoseSet:
    """Every particle in the pose in which a map fits it best.

    ``score = Re Σ conj(F) H S / N / √(Σ |H S|² / N)`` over the ball, with the particle's weight ``H``, the slice ``S``
    of the map and the power ``N`` of the noise of each shell: in units of the noise (of 1, without ``noise``).
    """
    ball = particles.ball
    power_of_noise = torch.ones(ball.box_size, device=ball.shells.device) if noise is None else noise
    whitening = power_of_noise.clamp_min(1e-12).rsqrt()[ball.shells]
    fine = fine_spectrum(volume[None], float(ball.frequencies.norm(dim=1).max()))[0]
    columns = slices(fine, ball, search.rotations) * whitening
    flat, power = columns.flatten(1), columns.square().sum(dim=1)
    ramps = phase_ramps(ball, search.shifts).conj()
    found = []
    for rows in chunks(len(particles), _BATCH):
        distinct, place = torch.unique(particles.weight_index[rows], return_inverse=True)
        weights = particles.weights[distinct]
        lengths = (weights.square() @ power.T).clamp_min(1e-20).sqrt()
        weighted = particles.spectra[rows] * (weights * whitening)[place]
        upright = side_by_side(weighted) @ flat.T / lengths[place]
        best = upright.topk(min(_N_SHIFTED, len(flat)), dim=1).indices
        moved = side_by_side(weighted[:, None] * ramps)
        shifted = torch.einsum("bsp,btp->bts", moved, flat[best]) / lengths[place].gather(1, best)[..., None]
        scores, where = shifted.flatten(1).max(dim=1)
        turned = best.gather(1, (where // len(search.shifts))[:, None])[:, 0]
        found.append((search.rotations[turned], search.shifts[where % len(search.shifts)], scores))
    rotations, shifts, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
    return PoseSet(rotations, shifts, scores)


def match_references(
    particles: BallSpectra,
    halves: Int[Tensor, " n"],
    references: References,
    search: Search,
    noise: Float[Tensor, " s"],
) -> ClassPoses:
    """Every particle against every reference, always the one made of the other half set."""
    poses = empty_poses(len(particles), len(references), halves.device)
    for label in range(len(references)):
        for half in (1, 2):
            rows = torch.nonzero(halves == half)[:, 0]
            if len(rows):
                other = references.maps[label, 2 - half]
                poses.put(rows, label, match_map(particles.select(rows), other, search, noise))
    return poses


def side_by_side(values: Complex[Tensor, "*b p"]) -> Float[Tensor, "*b q"]:
    """Real and imaginary parts, so that a product with a column is ``Re conj(F) S``."""
    return torch.cat([values.real, values.imag], dim=-1)
