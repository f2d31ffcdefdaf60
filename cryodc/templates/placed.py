"""The transformation code of volumes: how each particle lies, and how it differs from those like it.

Particles fall into groups by their content codes, as :mod:`cryodc.cluster` finds them. Those of a group are placed on
its commonest template, which is averaged anew from them a few times: a template of few particles may look alike from
two sides where the protein does not. What particles differ in there, where they were measured, is told along principal
axes of the group alone. So the code says pose and conformation, and nothing that sets one group apart from another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass
from torch import Tensor

from cryodc.class_mixture import ClassPoses, References, empty_poses, make_references
from cryodc.class_spectra import ClassSpectra, PoseSet
from cryodc.data.dataset import Dataset
from cryodc.measurements import Batch, measure
from cryodc.mixture import choose_mixture, content_features
from cryodc.ops.correlate import phase_ramps
from cryodc.ops.missing_data import average_of, fit_axes
from cryodc.ops.reconstruct import volume_from_ball
from cryodc.ops.refine import fine_gradient, refine_poses
from cryodc.register import register_map
from cryodc.templates.match import match_references, random_search
from cryodc.templates.spectra import BOX, BallSpectra, at_template_box, sphere
from cryodc.volumes import Volume

N_PLACE = 12
"""Numbers that tell how a particle lies: nine of its rotation, three of its shift."""

_N_ROUNDS = 8
_N_STEPS = 5
_FEWEST = 20
"""A group of fewer particles has no axes."""
_ALIKE = 0.8
"""Correlation of two averages, at least, of one protein."""
_NOTHING = 0.05
"""Coordinates that spread less than this are those of an axis that noise alone explains."""
_BATCH = 64


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

    particles: BallSpectra
    halves: Int[Tensor, " n"]
    sample: ClassSpectra
    rows: Int[Tensor, " s"]
    references: References
    poses: ClassPoses
    radius: float


@dataclass(frozen=True)
class Groups:
    """What the particles of each group have in common, in the box :data:`cryodc.templates.spectra.BOX`.

    Parameters
    ----------
    centres
        ``(g, k)`` mean content code.
    maps
        ``(g, d, h, w)`` averages.
    axes
        ``(g, a, d, h, w)``: what one standard deviation along each axis adds; 0 along axes that tell nothing.
    turns, moves
        ``(g, 3, 3)``, ``(g, 3)``: ``x = turn · x_first + move`` from the average of the largest group.
    """

    centres: Float[NDArray[np.float32], "g k"]
    maps: Float[NDArray[np.float32], "g d h w"]
    axes: Float[NDArray[np.float32], "g a d h w"]
    turns: Float[NDArray[np.float32], "g 3 3"]
    moves: Float[NDArray[np.float32], "g 3"]


@torch.no_grad()
def place_particles(
    dataset: Dataset,
    matched: Matched,
    points: Float[NDArray[np.float32], "n k"],
    n_axes: int,
    seed: int,
) -> tuple[Float[NDArray[np.float32], "n p"], Groups]:
    """Pose and conformation of every particle, and the groups in which these are told.

    Parameters
    ----------
    dataset
        The same particles, volumes.
    matched
        Against the templates.
    points
        Content codes, by which particles are grouped.
    n_axes
        Along so many principal axes of its group each particle's difference from the average is told. Axes along which
        there is nothing but noise are 0 for all.
    seed
        Of groups, searches and starts.

    Returns
    -------
    The code, ``(n, 12 + n_axes)``: the nine entries of the rotation, times √3, and the shift zyx in voxels of the
    templates' box – both from the average of the largest group, on which those of all others are registered – and the
    coordinates, in standard deviations. And the groups, the largest first.
    """
    features = content_features(points)
    labels = choose_mixture(features, seed)[0].predict(features)
    generator = torch.Generator().manual_seed(seed)
    best = matched.poses.scores.argmax(dim=1)
    found = torch.zeros(len(best), N_PLACE + n_axes, device=best.device)
    groups: list[Groups] = []
    first: Volume | None = None
    for label in np.argsort(-np.bincount(labels), kind="stable"):
        members = np.flatnonzero(labels == label)
        rows = torch.from_numpy(members).to(best.device)
        if not len(rows):
            continue
        pose, average = _posed(matched, rows, int(torch.bincount(best[rows]).argmax()), generator)
        first = first or average
        turn, move = register_group(average, first, matched.radius)
        found[rows, :N_PLACE] = place_code(pose, torch.from_numpy(turn).to(found), torch.from_numpy(move).to(found))
        axes = torch.zeros(n_axes, BOX, BOX, BOX)
        if n_axes and len(rows) >= max(_FEWEST, n_axes + 1):
            sampled = torch.isin(rows, matched.rows)
            found[rows, N_PLACE:], axes = _along_axes(dataset, rows, sampled, pose, matched.radius, n_axes, generator)
        parts = points[members].mean(axis=0), average.voxels, axes.cpu().numpy(), turn, move
        groups.append(Groups(*(np.asarray(part, dtype=np.float32)[None] for part in parts)))
    code = np.ascontiguousarray(found.cpu().numpy(), dtype=np.float32)
    names = [field.name for field in fields(Groups)]
    return code, Groups(*(np.concatenate([getattr(group, name) for group in groups]) for name in names))


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


def place_code(pose: PoseSet, turn: Float[Tensor, "3 3"], move: Float[Tensor, " 3"]) -> Float[Tensor, "b 12"]:
    """Rotation, times √3, and shift from the map on which an average is registered: ``x = turn · x_first + move``.

    ``Aᵀ (x + o) = turn · x_first + move``, so ``x_first = (A turn)ᵀ (x + o − A move)``.
    """
    rotations = 3**0.5 * (pose.rotations @ turn).flatten(1)
    return torch.cat([rotations, pose.shifts - pose.rotations @ move], dim=1)


def _posed(
    matched: Matched, rows: Int[Tensor, " b"], template: int, generator: torch.Generator
) -> tuple[PoseSet, Volume]:
    """Poses of a group's particles on their own average, which begins as a template; and that average."""
    part, halves = matched.particles.select(rows).within(matched.radius), matched.halves[rows]
    average, noise = matched.references.select([template]), matched.sample.noise
    pose = _refined(part, halves, average, noise, matched.poses.of(rows, template))
    every = torch.arange(len(rows), device=rows.device)
    for _ in range(_N_ROUNDS):
        again = _averaged(matched, rows, pose)
        if again is None:
            break
        average = again
        search = random_search(generator, rows.device)
        found = match_references(_centred(part, pose), halves, average, search, noise).of(every, 0)
        found.shifts += pose.shifts
        kept, moved = (_refined(part, halves, average, noise, start) for start in (pose, found))
        pose = _better(kept, moved)
    return pose, Volume(average.maps[0].mean(dim=0).cpu().numpy(), 1.0)


def _centred(particles: BallSpectra, pose: PoseSet) -> BallSpectra:
    """Particles moved back by the shifts they are known to have, so that rotations are compared in place."""
    return replace(particles, spectra=particles.spectra * phase_ramps(particles.ball, pose.shifts).conj())


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
    particles: BallSpectra, halves: Int[Tensor, " b"], average: References, noise: Float[Tensor, " s"], start: PoseSet
) -> PoseSet:
    """Poses moved uphill, always on the map of the other half set."""
    rotations, shifts, scores = start.rotations.clone(), start.shifts.clone(), start.scores.clone()
    whitening = noise.clamp_min(1e-12).rsqrt()[particles.ball.shells]
    for half in (1, 2):
        rows = torch.nonzero(halves == half)[:, 0]
        if len(rows):
            rotations[rows], shifts[rows], scores[rows] = refine_poses(
                particles.spectra[rows] * whitening,
                particles.weights * whitening,
                particles.weight_index[rows],
                fine_gradient(average.maps[0, 2 - half], float(particles.ball.shells.max()))[None],
                torch.zeros_like(rows),
                particles.ball,
                rotations[rows],
                shifts[rows],
                _N_STEPS,
                max_shift_voxels=BOX / 4,
            )
    return PoseSet(rotations, shifts, scores)


def _better(first: PoseSet, second: PoseSet) -> PoseSet:
    """Of each particle the pose with the higher score."""
    moved = second.scores > first.scores
    return PoseSet(
        torch.where(moved[:, None, None], second.rotations, first.rotations),
        torch.where(moved[:, None], second.shifts, first.shifts),
        torch.where(moved, second.scores, first.scores),
    )


def _along_axes(
    dataset: Dataset,
    rows: Int[Tensor, " b"],
    sampled: Bool[Tensor, " b"],
    pose: PoseSet,
    radius: float,
    n_axes: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b a"], Float[Tensor, "a d h w"]]:
    """Where each particle of a group lies along its axes, and these: probabilistic PCA with missing data."""
    small, device = at_template_box(dataset), rows.device

    def batches() -> Iterator[Batch]:
        places = torch.arange(len(rows), device=device).split(_BATCH)
        for place, (volumes, weights) in zip(places, small.batches(rows.cpu().split(_BATCH)), strict=True):
            assert weights is not None
            yield volumes.to(device), weights.to(device), pose.rotations[place], pose.shifts[place]

    measured, _ = measure(batches, sphere(device), int(radius))
    rest = measured.relative_to(average_of(measured))
    fitted = torch.nonzero(sampled)[:, 0] if int(sampled.sum()) > n_axes else torch.arange(len(rows), device=device)
    axes, _ = fit_axes(rest.select(fitted), n_axes, generator)
    found = axes.posterior(rest)[0]
    told = found.std(dim=0) > _NOTHING
    maps = torch.stack([volume_from_ball(values, measured.ball) for values in axes.maps])
    return torch.where(told, found, 0.0), torch.where(told[:, None, None, None], maps, 0.0)
