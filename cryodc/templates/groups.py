"""The transformation code of volumes: each particle's pose, and how it differs from the average of its group.

Particles fall into groups by their content codes, as :mod:`cryodc.clustering` finds them, and those of a group lie on
their own average (:mod:`cryodc.templates.group_poses`). What they differ in there, where they were measured, is told
along principal axes of the group alone. So the code says pose and conformation, and nothing that sets one group apart
from another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import PoseSet
from cryodc.clustering import choose_mixture, content_features, linear_rule
from cryodc.dataset import Dataset
from cryodc.device import by_leader, own_part
from cryodc.fourier import chunks, volume_from_ball
from cryodc.states import PosedBatch, average_of, fit_axes, measure
from cryodc.templates.group_poses import Matched, group_poses, register_group
from cryodc.templates.match import BOX, at_template_box, sphere
from cryodc.unfinished import DoneSteps, on_device
from cryodc.volumes import Volume

N_PLACE = 12
"""Numbers that tell how a particle lies: nine of its rotation, three of its shift."""
ROTATION_SCALE = 3**0.5
"""The nine entries of a rotation are multiplied by this, so that each varies by 1 over all rotations."""
_FEWEST = 20
"""A group of fewer particles has no axes."""
_NOTHING = 0.05
"""Coordinates that spread less than this are those of an axis that noise alone explains."""
_BATCH = 64


@dataclass(frozen=True)
class TemplateGroups:
    """What the particles of each group have in common, in the box :data:`cryodc.templates.match.BOX`.

    Parameters
    ----------
    centres
        ``(g, k)`` mean content code.
    maps
        ``(g, d, h, w)`` averages.
    axes
        ``(g, a, d, h, w)``: the change of the map at one standard deviation along each axis; 0 for axes of noise alone.
    turns, moves
        ``(g, 3, 3)``, ``(g, 3)``: ``x = turn · x_first + move`` from the average of the largest group.
    """

    centres: Float[NDArray[np.float32], "g k"]
    maps: Float[NDArray[np.float32], "g d h w"]
    axes: Float[NDArray[np.float32], "g a d h w"]
    turns: Float[NDArray[np.float32], "g 3 3"]
    moves: Float[NDArray[np.float32], "g 3"]


@dataclass(frozen=True)
class GroupRule:
    """What puts other particles into the groups, and on the average of each.

    Parameters
    ----------
    normals, offsets
        The group of a content code is the ``argmax`` of ``code · normals + offsets``.
    halves
        ``(g, 2, d, h, w)`` both half maps of each average.
    starts
        ``(g,)`` the template on which each average began.
    """

    normals: Float[NDArray[np.float64], "k g"]
    offsets: Float[NDArray[np.float64], " g"]
    halves: Float[Tensor, "g 2 d h w"]
    starts: Int[NDArray[np.int64], " g"]

    def find(self, points: Float[NDArray[np.floating], "n k"]) -> Int[NDArray[np.int64], " n"]:
        """The group of each particle."""
        return np.asarray((points @ self.normals + self.offsets).argmax(axis=1))


@dataclass(frozen=True)
class GroupedPoses:
    """Pose and conformation of every particle in its group.

    Parameters
    ----------
    code
        ``(n, 12 + n_axes)``: the nine entries of the rotation, times √3, and the shift zyx in voxels of the templates'
        box – both from the average of the largest group, on which those of all others are registered – and the
        coordinates along the group's axes, in standard deviations.
    labels
        ``(n,)`` group of each.
    groups
        The largest first.
    rule
        By which other particles join them.
    """

    code: Float[NDArray[np.float32], "n p"]
    labels: Int[NDArray[np.int64], " n"]
    groups: TemplateGroups
    rule: GroupRule

    @property
    def rotations(self) -> Float[Tensor, "n 3 3"]:
        """Of the particles, from the average of the largest group."""
        return rotations_of(self.code)


@torch.no_grad()
def place_particles(
    dataset: Dataset,
    matched: Matched,
    points: Float[NDArray[np.float32], "n k"],
    n_axes: int,
    seed: int,
    done: DoneSteps | None = None,
) -> GroupedPoses:
    """Pose and conformation of every particle, and the groups in which these are defined.

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
    done
        Groups that are done.
    """
    features = content_features(points)
    mixture = by_leader(lambda: choose_mixture(features, seed, in_units=True)[0])
    labels = mixture.predict(features)
    group_of = np.zeros(len(labels), dtype=np.int64)
    generator = torch.Generator().manual_seed(seed)
    best = matched.poses.scores.argmax(dim=1)
    found = torch.zeros(len(best), N_PLACE + n_axes, device=best.device)
    groups: list[TemplateGroups] = []
    averages: list[Tensor] = []
    starts: list[int] = []
    sizes = np.bincount(labels)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]

    def place_group(rows: Tensor) -> None:
        starts.append(int(torch.bincount(best[rows]).argmax()))
        pose, reference = group_poses(matched, rows, starts[-1], generator)
        averages.append(reference.maps)
        first, average = (Volume(maps[0].mean(dim=0).cpu().numpy(), 1.0) for maps in (averages[0], averages[-1]))
        turn, move = by_leader(partial(register_group, average, first, matched.radius))
        found[rows, :N_PLACE] = place_code(pose, torch.from_numpy(turn).to(found), torch.from_numpy(move).to(found))
        axes = torch.zeros(n_axes, BOX, BOX, BOX)
        if n_axes and len(rows) >= max(_FEWEST, n_axes + 1):
            sampled = torch.isin(rows, matched.rows)
            found[rows, N_PLACE:], axes = _along_axes(dataset, rows, sampled, pose, matched.radius, n_axes, generator)
        parts = points[rows.cpu().numpy()].mean(axis=0), average.voxels, axes.cpu().numpy(), turn, move
        groups.append(TemplateGroups(*(np.asarray(part, dtype=np.float32)[None] for part in parts)))

    def save() -> dict[str, Any]:
        known = {"found": found, "groups": groups, "averages": averages, "starts": starts}
        return known | {"generator": generator.get_state()}

    def load(state: dict[str, Any]) -> None:
        generator.set_state(state["generator"])
        found[:], averages[:], starts[:] = (
            state["found"].to(found),
            on_device(state["averages"], best.device),
            state["starts"],
        )
        groups[:] = [TemplateGroups(**{name: part.numpy() for name, part in one.items()}) for one in state["groups"]]

    steps = (done or DoneSteps()).sequence("placed", save, load)
    for number, label in enumerate(order):
        members = np.flatnonzero(labels == label)
        group_of[members] = number
        steps.do(f"group {number + 1}", partial(place_group, torch.from_numpy(members).to(best.device)))
    code = np.ascontiguousarray(found.cpu().numpy(), dtype=np.float32)
    names = [field.name for field in fields(TemplateGroups)]
    joined = TemplateGroups(*(np.concatenate([getattr(group, name) for group in groups]) for name in names))
    normals, offsets = linear_rule(points, mixture)
    rule = GroupRule(normals[:, order], offsets[order], torch.cat(averages), np.array(starts))
    return GroupedPoses(code, group_of, joined, rule)


def rotations_of(code: Float[NDArray[np.float32], "n p"]) -> Float[Tensor, "n 3 3"]:
    """Rotations that transformation codes tell."""
    return torch.from_numpy(code[:, :9] / ROTATION_SCALE).reshape(-1, 3, 3)


def place_code(pose: PoseSet, turn: Float[Tensor, "3 3"], move: Float[Tensor, " 3"]) -> Float[Tensor, "b 12"]:
    """Rotation, times √3, and shift from the map on which an average is registered: ``x = turn · x_first + move``.

    ``Aᵀ (x + o) = turn · x_first + move``, so ``x_first = (A turn)ᵀ (x + o − A move)``.
    """
    rotations = ROTATION_SCALE * (pose.rotations @ turn).flatten(1)
    return torch.cat([rotations, pose.shifts - pose.rotations @ move], dim=1)


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
    own = torch.arange(len(rows), device=device)[own_part(len(rows))]
    places = [own[c] for c in chunks(len(own), _BATCH)]

    def batches() -> Iterator[PosedBatch]:
        for place, (volumes, weights) in zip(places, small.batches([rows[p].cpu() for p in places]), strict=True):
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
