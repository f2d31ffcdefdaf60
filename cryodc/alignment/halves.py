"""The half sets of a class, each with poses, sums and a reference of its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment.search import PoseSet
from cryodc.alignment.spectra import ClassSpectra
from cryodc.device import by_leader
from cryodc.fourier import NoiseModel, agreeing_shells, density_mask
from cryodc.geometry import RESOLVED, find_confirmed_axes
from cryodc.unfinished import DoneSteps, Sequence, on_device


@dataclass
class Half:
    """Particles of one half set, their poses, the sums in these poses, and the reference made of them."""

    rows: Tensor
    poses: PoseSet
    sums: tuple[Tensor, Tensor]
    reference: Tensor


def halves_in_steps(
    done: DoneSteps, particles: ClassSpectra, halves: list[Half], generator: torch.Generator
) -> Sequence:
    """Steps of an alignment that change its halves, the noise and symmetry of its particles, and the generator.

    Parameters
    ----------
    done
        Where they are kept.
    particles, halves, generator
        What they change.
    """

    def save() -> dict[str, Any]:
        known = {"halves": halves, "noise": particles.noise, "symmetry": particles.symmetry}
        return known | {"generator": generator.get_state()}

    def load(state: dict[str, Any]) -> None:
        generator.set_state(state["generator"])
        state = on_device(state, particles.device)
        halves[:] = [
            Half(half["rows"], PoseSet(**half["poses"]), tuple(half["sums"]), half["reference"])
            for half in state["halves"]
        ]
        particles.noise = NoiseModel(**state["noise"])
        particles.symmetry = state["symmetry"]

    return done.sequence("alignment", save, load)


def join_halves(halves: list[Half]) -> tuple[Tensor, PoseSet]:
    """All rows in order, and their poses."""
    rows = torch.cat([half.rows for half in halves])
    order = rows.argsort()
    rotations, shifts, scores = (
        torch.cat([getattr(half.poses, name) for half in halves])[order] for name in ("rotations", "shifts", "scores")
    )
    return rows[order], PoseSet(rotations, shifts, scores)


def turn_onto_axes(
    particles: ClassSpectra,
    halves: list[Half],
    maps: tuple[Tensor, Tensor],
    symmetry: str,
    fsc: Tensor,
    finest: float,
) -> str:
    """Turn both halves onto the axes of a group, if it is found, make references symmetric, and say what was found.

    Parameters
    ----------
    particles
        The particles, as spectra.
    halves
        Both half sets, changed in place.
    maps
        The reference of each half set.
    symmetry
        The point group.
    fsc
        ``(shells,)`` between the two references.
    finest
        Shells that averages reach to.
    """
    both = torch.stack(maps)
    mask = density_mask(both.mean(dim=0))
    axes = find_confirmed_axes(both.mean(dim=0), both, mask, symmetry, float(agreeing_shells(fsc, RESOLVED)))
    if not by_leader(lambda: axes.found):
        return f"no {symmetry} axes found ({axes.evidence})"
    particles.symmetry = symmetry
    for half in halves:
        before = half.poses
        turned = before.rotations @ axes.rotation
        half.poses = PoseSet(turned, before.shifts - before.rotations @ axes.shift, before.scores, before.kept)
        half.sums = particles.sums(half.rows, half.poses.rotations, half.poses.shifts, finest)
    return f"{symmetry} found ({axes.evidence})"


def balanced_halves(n_particles: int, seed: int) -> Int[NDArray[np.int64], " n"]:
    """1 or 2 for each particle, at random, as many of each as can be."""
    order = torch.randperm(n_particles, generator=torch.Generator().manual_seed(seed)).numpy()
    return np.where(order % 2 == 0, 1, 2).astype(np.int64)


def median_angle(first: Tensor, second: Tensor) -> float:
    """Median angle between rotations of the same particles, degrees."""
    trace = (first * second).sum(dim=(1, 2))
    return float(torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1))).median())
