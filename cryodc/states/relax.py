"""Poses of a class freed from a point group that its map nearly has: each half set chooses mates by itself."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from cryodc.device import as_the_leader
from cryodc.errors import InputError
from cryodc.geometry import FOUND_AXES, find_axes, resample, symmetry_rotations
from cryodc.states.mates import fit_mates, off_symmetric, turned_maps
from cryodc.states.measurements import Measurements
from cryodc.states.missing_data import average_of
from cryodc.states.storage import empty_like
from cryodc.unfinished import DoneSteps, on_device

_N_RANDOM_STARTS = 2


def put_on_axes(
    average: Float[Tensor, "d h w"],
    mask: Float[Tensor, "d h w"],
    poses: tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]],
    symmetry: str,
    radius_shells: float,
) -> tuple[tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]], Float[Tensor, "d h w"]]:
    """Poses whose reference has its axes in the group's place, and the mask there, the largest of its mates.

    Parameters
    ----------
    average, mask
        Of the class.
    poses
        Rotations and origins, voxels.
    symmetry
        As :func:`cryodc.geometry.rotations.symmetry_rotations` takes it.
    radius_shells
        Finest shell in which axes are looked for.

    Raises
    ------
    InputError
        If the average has no such axes.
    """
    turn, move, agreement = find_axes(average * mask, symmetry, radius_shells)
    if agreement < FOUND_AXES:
        raise InputError(
            f"the class's average has no {symmetry} axes to relax",
            expected=f"a correlation of at least {FOUND_AXES:g} with its mates",
            found=f"{agreement:.2f}",
            remedy="give the point group that the average nearly has, or leave --relax-symmetry out",
        )
    turn, move = turn.to(mask.device), move.to(mask.device)
    rotations, origins = poses
    group = torch.from_numpy(symmetry_rotations(symmetry)).float().to(mask.device)
    placed = resample(mask[None], turn[None], move[None]).expand(len(group), -1, -1, -1)
    return (rotations @ turn, origins - rotations @ move), resample(placed, group).amax(dim=0)


@torch.no_grad()
def relax_symmetry(
    particles: Measurements,
    average: Complex[Tensor, " p"],
    half_sets: Int[NDArray[np.int64], " n"],
    symmetry: str,
    seed: int = 0,
    done: DoneSteps | None = None,
) -> tuple[Measurements, Complex[Tensor, " p"], Float[Tensor, "n 3 3"]]:
    """Choose one of the mates of each particle's pose, so that what breaks the symmetry lies in one place.

    Each half set does so by its own map; then the second's map is turned onto the first's, by an element of the group.

    Parameters
    ----------
    particles, average
        As :func:`cryodc.states.measurements.measure` gives them, in poses with the axes in place.
    half_sets
        ``(n,)`` 1 or 2.
    symmetry
        As :func:`cryodc.geometry.rotations.symmetry_rotations` takes it.
    seed
        Of the random starts.
    done
        What a call that was stopped had found, and where it is kept.

    Returns
    -------
    The particles in their mates, relative to their average; that average; and of each particle the element ``g``: its
    pose is ``A g``, its origin as before.
    """
    device = particles.device
    group = torch.from_numpy(symmetry_rotations(symmetry)).float().to(device)
    relative, symmetric = off_symmetric(particles, average, symmetry)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(particles), dtype=torch.long, device=device)
    first: Tensor | None = None
    for half in (1, 2):
        rows = torch.from_numpy(np.flatnonzero(half_sets == half)).to(device)
        if not len(rows):
            continue
        starts = [torch.zeros(len(rows), dtype=torch.long)]
        starts += [torch.randint(len(group), (len(rows),), generator=generator) for _ in range(_N_RANDOM_STARTS)]
        broken, mates = _break(relative.select(rows), group, starts, done or DoneSteps(), f"mates of half {half}")
        if first is None:
            first = broken
        else:
            mates = _onto(first, broken, mates, group, relative)
            as_the_leader(mates)
        chosen[rows] = mates
    relaxed = _in_mates(relative, chosen, group)
    rest = average_of(relaxed)
    return relaxed.relative_to(rest), symmetric + rest, group[chosen]


def _break(
    particles: Measurements, group: Tensor, starts: list[Tensor], done: DoneSteps, name: str
) -> tuple[Tensor, Tensor]:
    """The map that breaks the symmetry, ``(p,)``, and each particle's mate; from its pose and from random mates."""
    n, order = len(particles), len(group)

    def fit(_: DoneSteps) -> dict[str, Any]:
        mates = [one_hot(start, order).float()[:, None].to(group.device) for start in starts]
        maps, memberships, likelihood = max((fit_mates(particles, mate, group) for mate in mates), key=lambda f: f[2])
        if likelihood <= 0:
            # The symmetric average explains the particles as well: nothing tells mates apart, and poses stay.
            return {"map": torch.zeros_like(maps[0]), "mates": torch.zeros(n, dtype=torch.long)}
        return {"map": maps[0], "mates": memberships[:, 0].argmax(dim=1)}

    found = on_device(done.once(name, fit), group.device)
    return found["map"], found["mates"]


def _onto(first: Tensor, second: Tensor, mates: Tensor, group: Tensor, particles: Measurements) -> Tensor:
    """Mates of the second map, as those of the first."""
    turned = turned_maps(second[None], group, particles.ball)[0]
    turn = group[(turned * first.conj()).real.sum(dim=1).argmax()]
    wanted = group[mates] @ turn.T
    return (wanted[:, None] - group[None]).flatten(2).norm(dim=2).argmin(dim=1)


def _in_mates(particles: Measurements, chosen: Tensor, group: Tensor) -> Measurements:
    """What each particle says in the mate ``A g`` of its pose: its data at ``g k``."""
    data, power = empty_like(particles.data), empty_like(particles.power)
    for which, of_data, of_power in particles.parts():
        turned_data, turned_power = of_data.clone(), of_power.clone()
        for i in torch.nonzero(chosen[which])[:, 0].tolist():
            both = torch.stack([of_data[i], of_power[i].to(of_data.dtype)])
            turned = turned_maps(both, group[chosen[which[i]]].T[None], particles.ball)[:, 0]
            turned_data[i], turned_power[i] = turned[0], turned[1].real.clamp_min(0)
        # Those that are held here lie side by side.
        start = int(which[0]) - particles.first
        rows = slice(start, start + len(which))
        data[rows], power[rows] = turned_data, turned_power
    return replace(particles, data=data, power=power, averages=())
