"""Poses of one class: those of the STAR, or aligned from nothing or from a map, on the axes of its point group."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import align_class, balanced_halves
from cryodc.averaging.final_classes import shrink, shrink_mask
from cryodc.device import by_leader
from cryodc.fourier import Particles
from cryodc.geometry import RESOLVED, find_confirmed_axes
from cryodc.maps import average_particles
from cryodc.unfinished import DoneSteps

MIN_PARTICLES_TO_ALIGN = 8
"""Below this a class is averaged as it stands and marked as not aligned."""


@dataclass(frozen=True)
class PlacedClass:
    """Final poses of a class, the poses that each half set found by itself, and the point group of their axes."""

    rotations: Float[Tensor, "n 3 3"]
    origins_voxels: Float[Tensor, "n 3"]
    independent: tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]
    half_sets: Int[NDArray[np.int64], " n"]
    aligned: bool
    note: str
    symmetry: str = "C1"


def place_class(
    stack: Particles,
    given: tuple[Tensor, Tensor],
    *,
    half_sets: NDArray[np.int64] | None,
    use_star: bool,
    seed: int,
    n_starts: int,
    start: Tensor | None,
    mask: Tensor | None,
    start_shells: float,
    symmetry: str,
    done: DoneSteps,
    tell: Callable[[str], None],
) -> PlacedClass:
    """Poses of one class.

    Parameters
    ----------
    stack
        The particles of the class.
    given
        Rotations and origins (voxels) of the STAR, or identities.
    half_sets
        Of the STAR; None to split at random.
    use_star
        Take the given poses, align nothing.
    seed, n_starts, start, start_shells
        As :func:`cryodc.alignment.align.align_class` takes them; ``start`` at the box of
        :func:`cryodc.averaging.final_classes.shrink`.
    mask
        ``(d, h, w)`` at the box of the particles, what references are multiplied by while they are aligned; or None.
    symmetry
        Point group; as :func:`cryodc.alignment.align.align_class` takes it.
    done
        Steps of the alignment.
    tell
        Called with a line about each step.
    """
    n, note = len(stack), ""
    halves = balanced_halves(n, seed) if half_sets is None else half_sets
    fewest = min(int((halves == 1).sum()), int((halves == 2).sum()))
    if half_sets is not None and fewest < min(2, n // 2):
        halves, note = balanced_halves(n, seed), "the STAR's half sets leave one half empty: split anew. "
        fewest = n // 2
    if use_star:
        note += "poses of the STAR"
        few = n < MIN_PARTICLES_TO_ALIGN or fewest < 2
        if few:
            note += f"; too few particles to judge: {n}, at least {MIN_PARTICLES_TO_ALIGN} are needed"
        return PlacedClass(*given, given, halves, not few, note)
    if n < MIN_PARTICLES_TO_ALIGN or fewest < 2:
        note += f"too few particles to align: {n}, at least {MIN_PARTICLES_TO_ALIGN} are needed"
        return PlacedClass(*given, given, halves, False, note)
    small = shrink(stack)
    found = align_class(
        small,
        seed=seed,
        n_starts=n_starts,
        half_sets=halves,
        start=start,
        mask=None if mask is None else shrink_mask(mask),
        start_shells=start_shells,
        symmetry=symmetry,
        done=done,
        progress=tell,
    )
    scale = stack.box_size / small.box_size
    note += (
        ("aligned from nothing" if start is None else "aligned from the classification's map")
        if found.aligned
        else f"halves aligned independently do not agree (FSC {found.evidence:.2f} beyond their common start)"
    )
    if found.symmetry != "C1":
        note += f"; {found.symmetry_note}; searched and imposed"
    turn, move = found.independent
    return PlacedClass(
        found.rotations,
        found.origins_voxels * scale,
        (turn, move * scale),
        found.half_sets,
        found.aligned,
        note,
        found.symmetry,
    )


def on_axes(
    stack: Particles, placed: PlacedClass, symmetry: str, use_star: bool, mask: Tensor | None = None
) -> tuple[PlacedClass, str]:
    """Turn poses so that the reference's axes are those of the group; return them and the group, C1 if none is found.

    Parameters
    ----------
    stack
        The particles of the class.
    placed
        Their poses.
    symmetry
        Point group that was asked for.
    use_star
        Whether the poses are those of the STAR, which are taken as they are.
    mask
        ``(d, h, w)`` that the FSC is computed within; by default the surroundings of the density.
    """
    if symmetry == "C1" or use_star or not placed.aligned:
        return placed, symmetry if use_star else "C1"
    if placed.symmetry == symmetry:
        return placed, symmetry
    poses = (placed.rotations, placed.origins_voxels)
    maps = average_particles(stack, *poses, placed.half_sets, placed.independent, mask=mask)
    below = np.flatnonzero(maps.fsc[1:] < RESOLVED)
    radius = float(max(5, below[0] if len(below) else len(maps.fsc) - 2))
    axes = find_confirmed_axes(maps.average * maps.mask, maps.halves, maps.mask, symmetry, radius)
    if not by_leader(lambda: axes.found):
        return replace(placed, note=f"{placed.note}; no {symmetry} axes found ({axes.evidence}): not imposed"), "C1"
    (rotations, origins), independent = (
        (r @ axes.rotation, o - r @ axes.shift) for r, o in (poses, placed.independent)
    )
    note = f"{placed.note}; {symmetry} imposed ({axes.evidence})"
    return PlacedClass(rotations, origins, independent, placed.half_sets, placed.aligned, note, symmetry), symmetry


def symmetry_of(number: int, symmetries: Mapping[int | None, str] | None) -> str:
    """The point group of a class."""
    given = symmetries or {}
    return given.get(number, given.get(None, "C1")).upper()
