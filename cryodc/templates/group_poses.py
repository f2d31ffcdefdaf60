"""Poses of the particles of a group on their own average, and registration of one average on another.

A group is placed on its commonest template, which is averaged anew from it a few times: a template of few particles
may look alike from two sides where the protein does not.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass
from torch import Tensor

from cryodc.alignment import (
    ClassPoses,
    ClassSpectra,
    PoseSet,
    References,
    climb,
    empty_poses,
    make_references,
    register_map,
    search_poses,
    shared_poses,
)
from cryodc.fourier import NoiseModel, ParticleSpectra, fine_gradient, fine_spectrum, undo_shifts
from cryodc.templates.match import BOX, match_references, random_search
from cryodc.volumes import Volume

_N_ROUNDS = 8
_N_STEPS, _N_CANDIDATES = 5, 4
_BATCH = 1024
_ALIKE = 0.8
"""Correlation of two averages, at least, of one protein."""


@dataclass(frozen=True)
class Matched:
    """Particles matched with templates.

    Parameters
    ----------
    particles, halves
        All particles, and the half set of each.
    sample, rows
        Those that averages are made of, and where they are among all.
    references, poses
        The templates, and every particle in the pose in which each fits it best.
    radius
        Shells that were looked at.
    """

    particles: ParticleSpectra
    halves: Int[Tensor, " n"]
    sample: ClassSpectra
    rows: Int[Tensor, " s"]
    references: References
    poses: ClassPoses
    radius: float


def group_poses(
    matched: Matched, rows: Int[Tensor, " b"], template: int, generator: torch.Generator
) -> tuple[PoseSet, References]:
    """Poses of a group's particles on their own average, which begins as a template; and that average as a reference.

    Parameters
    ----------
    matched
        The particles against the templates.
    rows
        Of the group.
    template
        On which its average begins.
    generator
        Of the searches.
    """
    part, halves = matched.particles.select(rows).within(matched.radius), matched.halves[rows]
    average, noise = matched.references.select([template]), matched.sample.noise
    pose = _refined(part, halves, average, noise, matched.poses.of(rows, template))
    for _ in range(_N_ROUNDS):
        again = _averaged(matched, rows, pose)
        if again is None:
            break
        average = again
        pose = _searched(part, halves, average, noise, pose, generator)
    return pose, average


def poses_on_average(
    particles: ParticleSpectra,
    halves: Int[Tensor, " b"],
    average: References,
    noise: NoiseModel,
    start: PoseSet,
    generator: torch.Generator,
) -> PoseSet:
    """Poses of particles on an average that stays as it is: one search over all rotations, whose best few are tried.

    Parameters
    ----------
    particles, halves
        The particles, up to the shells that are looked at, and the half set of each.
    average, noise
        A single reference, and the noise of particles.
    start
        Where they may lie.
    generator
        Of the search.
    """
    grid, radius = random_search(generator, halves.device).rotations, float(particles.ball.shells.max())
    in_place = torch.zeros(1, 3, device=halves.device)
    pose = PoseSet(start.rotations.clone(), start.shifts.clone(), start.scores.clone())
    for half in (1, 2):
        volume = average.maps[0, 2 - half]
        fine, gradient = fine_spectrum(volume[None], radius)[0], fine_gradient(volume, radius)[None]
        for rows in torch.nonzero(halves == half)[:, 0].split(_BATCH):
            part, known = noise.whiten(particles.select(rows)), start.select(rows)
            found = search_poses(part, fine, gradient, grid, in_place, known, _N_CANDIDATES, _N_STEPS, BOX / 4)
            pose.rotations[rows], pose.shifts[rows], pose.scores[rows] = found.rotations, found.shifts, found.scores
    return pose


def _searched(
    particles: ParticleSpectra,
    halves: Int[Tensor, " b"],
    average: References,
    noise: NoiseModel,
    pose: PoseSet,
    generator: torch.Generator,
) -> PoseSet:
    """Poses moved uphill, or found in a search over all rotations where that fits better."""
    search, every = random_search(generator, halves.device), torch.arange(len(halves), device=halves.device)
    found = match_references(_centred(particles, pose), halves, average, search, noise).of(every, 0)
    found.shifts += pose.shifts
    kept, moved = (_refined(particles, halves, average, noise, start) for start in (pose, found))
    return _better(kept, moved)


def _centred(particles: ParticleSpectra, pose: PoseSet) -> ParticleSpectra:
    """Particles moved back by the shifts they are known to have, so that rotations are compared in place."""
    return replace(particles, spectra=undo_shifts(particles.spectra, particles.ball, pose.shifts))


def _averaged(matched: Matched, rows: Int[Tensor, " b"], pose: PoseSet) -> References | None:
    """The average, in two halves, of those of a group that are in the sample; None without two in each half."""
    among = torch.full_like(matched.halves, -1)
    among[rows] = torch.arange(len(rows), device=rows.device)
    places = among[matched.rows]
    members, halves = torch.nonzero(places >= 0)[:, 0], matched.halves[matched.rows]
    if min(int((halves[members] == half).sum()) for half in (1, 2)) < 2:
        return None
    poses = empty_poses(len(places), 1, rows.device)
    which = places[members]
    poses.put(members, 0, PoseSet(pose.rotations[which], pose.shifts[which], pose.scores[which]))
    shares = (places >= 0).float()[:, None]
    return make_references(matched.sample, halves, poses, shares, matched.radius + 1)


def _refined(
    particles: ParticleSpectra, halves: Int[Tensor, " b"], average: References, noise: NoiseModel, start: PoseSet
) -> PoseSet:
    """Poses moved uphill, always on the map of the other half set."""
    found = PoseSet(start.rotations.clone(), start.shifts.clone(), start.scores.clone())
    whitened = noise.whiten(particles)
    for half in (1, 2):
        rows = torch.nonzero(halves == half)[:, 0]
        gradient = fine_gradient(average.maps[0, 2 - half], float(particles.ball.shells.max()))[None]

        def climbed(c: slice, rows: Tensor = rows, gradient: Tensor = gradient) -> PoseSet:
            return climb(whitened.select(rows[c]), gradient, start.select(rows[c]), _N_STEPS, BOX / 4)

        if len(rows):
            moved = shared_poses(len(rows), len(rows), halves.device, climbed)
            found.rotations[rows], found.shifts[rows], found.scores[rows] = moved.rotations, moved.shifts, moved.scores
    return found


def _better(first: PoseSet, second: PoseSet) -> PoseSet:
    """Of each particle the pose with the higher score."""
    moved = second.scores > first.scores
    return PoseSet(
        torch.where(moved[:, None, None], second.rotations, first.rotations),
        torch.where(moved[:, None], second.shifts, first.shifts),
        torch.where(moved, second.scores, first.scores),
    )


def register_group(
    average: Volume, first: Volume, radius_shells: float
) -> tuple[Float[NDArray[np.float64], "3 3"], Float[NDArray[np.float64], " 3"]]:
    """Turn and move, ``x = turn · x_first + move``, that take one average to another.

    The best of all where both are of one protein. Between proteins that are not alike the best overlap may be that of
    one with an edge of the other: there they are turned likewise, and middle lies on middle.
    """
    turn, move, moved = register_map(average, first, radius_shells=radius_shells)
    if np.corrcoef(moved.voxels.ravel(), first.voxels.ravel())[0, 1] < _ALIKE:
        move = _middle(average) - turn @ _middle(first)
    return turn, move


def _middle(volume: Volume) -> Float[NDArray[np.float64], " 3"]:
    """Centre of mass of what is denser than a fifth of the peak, zyx voxels from the centre of the box."""
    dense = np.where(volume.voxels > 0.2 * volume.voxels.max(), volume.voxels, 0.0)
    return np.asarray(center_of_mass(dense)) - volume.box_size // 2
