"""Splits of a class that holds two proteins: parts that its members fall into, and the evidence for two references.

Two kinds of parts are tried. First, members in their poses differ from their average along a few axes, and on these
axes the particles of a second protein lie together, also where they are few. Second, the reference explains some
members better than others; the better and the worse half are each aligned from nothing. That serves where poses on
the reference say little, because it is a lump of two proteins.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from scipy.stats import fisher_exact
from torch import Tensor

from cryodc.alignment import FEWEST, SIGNIFICANT, References, gain_of_two
from cryodc.averaging.loop import SEARCH_SHELLS, ClassLoop
from cryodc.averaging.valleys import lie_apart
from cryodc.clustering import fit_mixture
from cryodc.device import by_leader
from cryodc.fourier import density_mask
from cryodc.states import PosedBatch, fit_axes, measure
from cryodc.unfinished import on_device

_SAMPLE = 160
_TEMPERATURES = (2.0, 2.0, 1.0, 1.0)
_AXES = 4
_PARTS = (2, 3)
_MOST_MEASURED = 2000
_AT_ONCE = 32
_CHANCE = 1e-3
"""Two classes whose half sets are so uneven by chance at most are no two proteins."""


def split_classes(loop: ClassLoop) -> bool:
    """Put two references in the place of one that holds two proteins; whether any does."""
    found = {}
    for label in range(loop.steps.do("rounds", lambda: len(loop.references))):
        pair = loop.steps.do(f"splits of class {label + 1}", partial(_try_to_split, loop, label))
        if pair is not None:
            found[label] = References(**on_device(pair, loop.halves.device))
    return bool(found) and bool(loop.steps.do("the search for split classes", partial(loop.split, found)))


def _try_to_split(loop: ClassLoop, label: int) -> References | None:
    rows = torch.nonzero((loop.labels == label) & ~loop.idle)[:, 0]
    return None if loop.whole[label] else _split_class(loop, rows, label)


def _split_class(loop: ClassLoop, rows: Tensor, label: int) -> References | None:
    """Two references that explain members better than one; None if there are none."""
    if len(rows) < 4 * FEWEST:
        return None
    return _split_along_axes(loop, rows, label) or _split_by_score(loop, rows, label)


def _split_along_axes(loop: ClassLoop, rows: Tensor, label: int) -> References | None:
    """From the parts that members fall into along the axes they differ on, in the poses they have."""
    for part in axis_parts(loop, rows, label):
        # A small part whole, and of the rest as many as make a reference.
        chosen = [own[torch.randperm(len(own), generator=loop.generator)[:_SAMPLE].to(own.device)] for own in part]
        members = torch.cat(chosen)
        labels = (torch.arange(len(members), device=members.device) >= len(chosen[0])).long()
        sub = _loop_of(loop, members, labels, label)
        sub.particles.noise = loop.particles.noise
        sub.begin(loop.poses.select([label, label]).rows(members), labels)
        pair = _pair_of(sub)
        if pair is not None:
            return pair
    return None


def axis_parts(loop: ClassLoop, rows: Tensor, label: int) -> list[tuple[Tensor, Tensor]]:
    """Parts of a class along its axes of variation, each beside the rest: rows of both, the part first.

    Parameters
    ----------
    loop
        The classification.
    rows
        ``(m,)`` members of the class.
    label
        Of the class.
    """
    rows = rows[torch.randperm(len(rows), generator=loop.generator)[:_MOST_MEASURED].to(rows.device)].sort().values
    poses, stack = loop.poses.of(rows, label), loop.stack.select(rows)
    mask = density_mask(loop.references.maps[label].mean(dim=0))

    def posed() -> Iterator[PosedBatch]:
        for b, part in stack.batches(_AT_ONCE):
            yield part.volumes, part.own_weights, poses.rotations[b], poses.shifts[b]

    measured, average = measure(posed, mask, int(min(SEARCH_SHELLS, loop.start_shells or SEARCH_SHELLS)))
    generator = torch.Generator().manual_seed(loop.seed)
    axes, _ = fit_axes(measured.relative_to(torch.zeros_like(average)), _AXES, generator)
    coordinates = axes.posterior(measured)[0].double().cpu().numpy()
    found: list[tuple[Tensor, Tensor]] = []
    for n_parts in _PARTS:
        labels = by_leader(partial(_mixture, coordinates, n_parts, loop.seed))
        for part in range(n_parts if n_parts > 2 else 1):
            inside = torch.from_numpy(labels == part).to(rows.device)
            pair = rows[inside], rows[~inside]
            if min(len(own) for own in pair) >= 2 * FEWEST:
                found.append(pair if len(pair[0]) <= len(pair[1]) else pair[::-1])
    return found


def _mixture(coordinates: NDArray[np.float64], n_parts: int, seed: int) -> NDArray[np.int64]:
    found: NDArray[np.int64] = fit_mixture(coordinates, n_parts, seed).predict(coordinates)
    return found


def _split_by_score(loop: ClassLoop, rows: Tensor, label: int) -> References | None:
    """From the members best and worst explained, each aligned from nothing."""
    scores = loop.poses.scores[rows, label]
    chosen = torch.randperm(len(rows), generator=loop.generator)[:_SAMPLE].to(rows.device)
    worse = (scores[chosen] < scores[chosen].median()).long()
    sub = _loop_of(loop, rows[chosen], worse, label)
    if not sub.start(torch.ones(len(chosen), device=rows.device), n_starts=2) or len(sub.references) < 2:
        return None
    return _pair_of(sub)


def _loop_of(loop: ClassLoop, rows: Tensor, labels: Tensor, label: int) -> ClassLoop:
    """A classification of some particles alone."""
    seed = loop.seed + 100 * (label + 1)
    return ClassLoop(loop.stack.select(rows), labels, loop.halves[rows], seed, lambda _: None, loop.start_shells)


def _pair_of(sub: ClassLoop) -> References | None:
    """The two references that a classification of two ends with, if they are two proteins."""
    sub.run(len(_TEMPERATURES) + 2, _TEMPERATURES, ())
    labels, scores = sub.labels, sub.poses.scores
    if len(sub.references) < 2 or follow_half_sets(labels, sub.halves) or not lie_apart(scores):
        return None
    radius = sub.references.radius(sub.finest)
    gain = gain_of_two(sub.particles, sub.halves, sub.references, sub.poses, labels, (0, 1), radius)
    return sub.references if gain >= SIGNIFICANT else None


def follow_half_sets(labels: Int[Tensor, " n"], halves: Int[Tensor, " n"]) -> bool:
    """Whether two classes are half sets rather than proteins.

    A particle is compared with references of the other half set. Of two references of one protein, each half set can
    come to prefer another one: the one of more particles. Half sets are drawn at random, so proteins lie alike in both.

    Parameters
    ----------
    labels, halves
        Class 0 or 1, and half set 1 or 2, of each particle.
    """
    counts = [[int(((labels == label) & (halves == half)).sum()) for half in (1, 2)] for label in (0, 1)]
    return float(fisher_exact(np.array(counts)).pvalue) < _CHANCE
