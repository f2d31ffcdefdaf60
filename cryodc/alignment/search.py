"""Poses of a few particles on a reference: the best of a grid of all rotations and shifts, moved uphill."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.alignment.refine import refine_poses
from cryodc.device import share, sharing_team, sum_over_team
from cryodc.fourier import NoiseModel, ParticleSpectra, chunks, mean_noise, score_poses, slices, undo_shifts
from cryodc.geometry import asymmetric_unit, random_rotations, rotation_grid

_AS_GOOD = 0.99
_ROTATIONS_AT_ONCE = 2048


@dataclass
class PoseSet:
    """Poses of some particles.

    Parameters
    ----------
    rotations, shifts, scores
        ``(n, 3, 3)``, ``(n, 3)`` zyx in voxels, ``(n,)``.
    kept
        Share of particles for which a search found nothing clearly better than where they were.
    """

    rotations: Float[Tensor, "n 3 3"]
    shifts: Float[Tensor, "n 3"]
    scores: Float[Tensor, " n"]
    kept: float = 0.0

    def select(self, rows: Tensor | slice) -> "PoseSet":
        """Of some of the particles."""
        return PoseSet(self.rotations[rows], self.shifts[rows], self.scores[rows], self.kept)


def join_poses(parts: Sequence[PoseSet]) -> PoseSet:
    """Poses of particles that come in parts."""
    rotations, shifts, scores = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("rotations", "shifts", "scores")
    )
    kept = sum(part.kept * len(part.scores) for part in parts) / len(scores)
    return PoseSet(rotations, shifts, scores, kept)


def shared_poses(n: int, n_at_once: int, device: torch.device, find: Callable[[slice], PoseSet]) -> PoseSet:
    """Poses of ``n`` particles, found a few at a time; each process of a team finds those of some.

    Parameters
    ----------
    n, n_at_once
        Particles, and how many are looked at at once.
    device
        Where the poses lie.
    find
        Gives the poses of some rows.
    """
    if sharing_team().size == 1:
        return join_poses([find(rows) for rows in share(n, n_at_once)])
    table = torch.zeros(n, 14, device=device)
    for rows in share(n, n_at_once):
        found = find(rows)
        kept = torch.full_like(found.scores, found.kept)
        table[rows] = torch.cat([found.rotations.flatten(1), found.shifts, torch.stack([found.scores, kept], 1)], 1)
    sum_over_team(table)
    rotations, shifts, scores = table[:, :9].reshape(n, 3, 3), table[:, 9:12].clone(), table[:, 12].clone()
    return PoseSet(rotations, shifts, scores, float(table[:, 13].mean()))


def shared_noise(
    n: int, n_at_once: int, like: Float[Tensor, " s"], noise_of: Callable[[slice], NoiseModel]
) -> NoiseModel:
    """The mean noise of ``n`` particles, looked at a few at a time; each process of a team looks at some.

    Parameters
    ----------
    n, n_at_once
        Particles, and how many are looked at at once.
    like
        ``(shells,)`` what noise is a tensor like.
    noise_of
        Gives the noise of some rows.
    """
    parts = [(noise_of(rows), rows.stop - rows.start) for rows in share(n, n_at_once)]
    if sharing_team().size == 1:
        return mean_noise(parts)
    power = torch.zeros_like(like)
    for noise, count in parts:
        power += noise.power * (count / n)
    sum_over_team(power)
    return NoiseModel(power)


def search_grid(step_degrees: float, symmetry: str, generator: torch.Generator) -> Float[Tensor, "r 3 3"]:
    """Rotations of a grid turned at random, of mates of a point group only one."""
    grid = rotation_grid(step_degrees) @ random_rotations(1, generator)[0]
    return grid if symmetry == "C1" else asymmetric_unit(grid, symmetry)


def search_poses(
    part: ParticleSpectra,
    fine: Float[Tensor, "2 e e e"],
    gradient: Float[Tensor, "1 8 e e e"],
    grid: Float[Tensor, "r 3 3"],
    lattice: Float[Tensor, "t 3"],
    previous: PoseSet | None,
    n_candidates: int,
    n_steps: int,
    most_shift_voxels: float,
) -> PoseSet:
    """Best of a grid of rotations, a lattice of shifts and the previous pose, refined.

    Parameters
    ----------
    part
        A few particles, whitened.
    fine, gradient
        The reference as :func:`cryodc.fourier.fine_spectrum` and :func:`cryodc.fourier.fine_gradient` give it.
    grid, lattice
        Rotations, and shifts about the previous ones, zyx in voxels.
    previous
        Poses so far; None if there are none.
    n_candidates, n_steps
        How many poses of the grid are refined, and steps of refinement.
    most_shift_voxels
        No shift longer than this is accepted.
    """
    device = part.spectra.device
    start = torch.zeros(len(part), 3, device=device) if previous is None else previous.shifts
    centred = undo_shifts(part.spectra, part.ball, start)
    best_scores, best_rotations, best_shifts = [], [], []
    for g in chunks(len(grid), _ROTATIONS_AT_ONCE):
        columns = slices(fine, part.ball, grid[g])
        found = score_poses(centred, part.weights, part.weight_index, columns, part.ball, lattice).max(dim=1)
        top = found.values.topk(min(n_candidates, found.values.shape[1]), dim=1)
        best_scores.append(top.values)
        best_rotations.append(grid[g][top.indices])
        best_shifts.append(lattice[torch.gather(found.indices, 1, top.indices)] + start[:, None])
    score, rotations, shifts = (torch.cat(x, dim=1) for x in (best_scores, best_rotations, best_shifts))
    keep = score.topk(n_candidates, dim=1).indices
    rotations = torch.gather(rotations, 1, keep[:, :, None, None].expand(-1, -1, 3, 3))
    shifts = torch.gather(shifts, 1, keep[:, :, None].expand(-1, -1, 3))
    if previous is not None:
        rotations = torch.cat([rotations, previous.rotations[:, None]], dim=1)
        shifts = torch.cat([shifts, previous.shifts[:, None]], dim=1)
    # Two steps tell which candidate will win; only that one is refined to the end.
    n, k = rotations.shape[:2]
    each = torch.arange(n, device=device)
    several = PoseSet(rotations.flatten(0, 1), shifts.flatten(0, 1), torch.zeros(n * k, device=device))
    tried = climb(part.select(each.repeat_interleave(k)), gradient, several, 2, most_shift_voxels)
    scores = tried.scores.reshape(n, k)
    best = scores.argmax(dim=1)
    kept = 0.0
    if previous is not None:
        kept = float((scores[:, -1] >= _AS_GOOD * scores[each, best]).float().mean())
    pose = tried.select(each * k + best)
    pose.kept = kept
    return climb(part, gradient, pose, n_steps - 2, most_shift_voxels)


def climb(
    part: ParticleSpectra,
    gradient: Float[Tensor, "1 8 e e e"],
    pose: PoseSet,
    n_steps: int,
    most_shift_voxels: float,
) -> PoseSet:
    """Poses moved uphill from where they are.

    Parameters
    ----------
    part
        A few particles, whitened.
    gradient
        The reference as :func:`cryodc.fourier.fine_gradient` gives it.
    pose
        Where to start.
    n_steps
        Steps; 0 only scores.
    most_shift_voxels
        No shift longer than this is accepted.
    """
    one = torch.zeros(len(part), dtype=torch.long, device=part.spectra.device)
    found = refine_poses(part, gradient, one, pose.rotations, pose.shifts, n_steps, max_shift_voxels=most_shift_voxels)
    return PoseSet(*found, pose.kept)
