"""Alignment of one class of particles from nothing: no poses, no reference.

1. *Starts.* From one random particle each: stochastic EM over a grid of rotations × shifts. Poses are drawn from
   the posterior at a temperature that lowers the number of poses a particle is spread over; radius grows.
   The start with the best score is kept.
2. *Halves.* Its map, low-passed to ``start_shells``, is the only thing the two half sets share. Each is
   then aligned to its own average: global searches, then continuous refinement. The FSC between the half maps
   weights each new reference (Wiener) and sets how far in Fourier space the next round looks.
3. *Verdict.* Beyond the shared shells the halves know nothing of each other, so they agree only if there is
   something to agree on. Noise aligned to a reference agrees inside them and nowhere else.
4. *Symmetry.* If a point group is asked for, its axes are looked for as soon as the halves agree beyond their common
   start, and both halves are turned to have them in place. From then on references have the group, and of all mates
   one is searched.
5. *Together.* Half maps are registered, and all poses refined once more against the joint average, within the
   resolution the independent halves have shown.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment.ab_initio import centred, random_start
from cryodc.alignment.halves import Half, balanced_halves, halves_in_steps, join_halves, median_angle, turn_onto_axes
from cryodc.alignment.register import register_map
from cryodc.alignment.spectra import ClassSpectra, PoseSet
from cryodc.fourier import ParticleStack, agreeing_shells, low_pass, shift_lattice, soft_sphere
from cryodc.unfinished import DoneSteps, Sequence
from cryodc.volumes import Volume

START_SHELLS = 5.0
"""Shells that the half sets' common start fills, unless asked otherwise."""
FEWEST_START_SHELLS = 3
"""With fewer shells a map has no features to find poses by."""
JUDGED_SHELLS = 3
"""Shells beyond the start in which halves must agree."""
EVIDENCE_THRESHOLD = 0.35
"""Mean FSC of independently aligned halves, just beyond the shared shells, from which a class counts as aligned."""
_SEARCH_STEPS = (16.0, 14.0, 14.0, 12.0)
_MAX_ROUNDS = 8
_SETTLED = 0.95
_FINEST = 0.8
_STILL_DEGREES = 0.3


@dataclass(frozen=True)
class Alignment:
    """Poses of the particles of one class, and the evidence for them.

    Parameters
    ----------
    rotations, origins_voxels
        ``(n, 3, 3)`` and ``(n, 3)`` zyx, as in :class:`cryodc.particles.table.Poses`.
    independent
        Rotations and origins before the halves were brought together: each half by itself.
    half_sets
        ``(n,)`` 1 or 2: particles of one half were aligned without the other's.
    scores
        ``(n,)`` normalised correlation with the final reference, in units of the noise.
    fsc
        Between the averages of the independently aligned halves, masked.
    evidence
        Mean FSC over the three shells beyond those that both halves shared at the start.
    aligned
        Whether the evidence reaches the threshold.
    symmetry
        The point group of the final references, with its axes in place; C1 if it was not found.
    symmetry_note
        Whether the requested group was found, and how well.
    """

    rotations: Float[Tensor, "n 3 3"]
    origins_voxels: Float[Tensor, "n 3"]
    independent: tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]
    half_sets: Int[NDArray[np.int64], " n"]
    scores: Float[Tensor, " n"]
    fsc: Float[NDArray[np.float64], " shells"]
    evidence: float
    aligned: bool
    symmetry: str = "C1"
    symmetry_note: str = ""


def most_start_shells(box_size: int) -> int:
    """Shells that a start must stay below, for the shells that halves are judged by to lie within what is looked at."""
    return int(_FINEST * (box_size // 2)) + 1 - JUDGED_SHELLS


@torch.no_grad()
def align_class(
    stack: ParticleStack,
    *,
    seed: int = 0,
    n_starts: int = 4,
    half_sets: Int[NDArray[np.int64], " n"] | None = None,
    start: Float[Tensor, "d h w"] | None = None,
    mask: Float[Tensor, "d h w"] | None = None,
    start_shells: float = START_SHELLS,
    symmetry: str = "C1",
    done: DoneSteps | None = None,
    progress: Callable[[str], None] | None = None,
) -> Alignment:
    """Align the particles of one class from scratch.

    Parameters
    ----------
    stack
        The particles, standardised; at least 4.
    seed
        Same seed, same result.
    n_starts
        Random starts, of which the best is kept.
    half_sets
        ``(n,)`` 1 or 2, or None for a random split.
    start
        A map to start from instead of at random; only its first ``start_shells`` are used.
    mask
        What references are multiplied by, and the FSC computed within: 0 to 1, the same from all sides, as poses end
        in an arbitrary frame. By default the sphere that fits the box.
    start_shells
        Shells that poses are first searched in, and that the halves' common start fills; at most
        :func:`most_start_shells`. Later rounds look as far as the halves agree.
    symmetry
        Point group that references have once its axes are found, see
        :func:`cryodc.geometry.axes.find_confirmed_axes`. Whether halves agree is judged without it: it would
        make noise agree more often.
    done
        Starts and rounds of an alignment that was stopped, and where they are kept.
    progress
        Called with a line about each step.

    Raises
    ------
    ValueError
        If there are fewer than 4 particles, a half has fewer than 2, or no shells are left beyond the start.
    """
    n, device, box_size = len(stack), stack.device, stack.box_size
    if n < 4:
        raise ValueError(f"expected at least 4 particles to align, found {n}")
    if start_shells >= max(most_start_shells(box_size), START_SHELLS + 1):
        raise ValueError(f"no shells are left to judge halves by beyond a start of {start_shells:g}")
    generator = torch.Generator().manual_seed(seed)
    if half_sets is None:
        half_sets = balanced_halves(n, seed)
    row_sets = [torch.from_numpy(np.flatnonzero(half_sets == h)).to(device) for h in (1, 2)]
    if min(len(rows) for rows in row_sets) < 2:
        raise ValueError(f"expected at least 2 particles in each half, found {[len(rows) for rows in row_sets]}")
    finest = _FINEST * (box_size // 2)
    # Neighbours and noise outside the sphere that every rotation keeps only mislead.
    sphere = soft_sphere(box_size, 0.375 * box_size, 3.0, device)
    particles = ClassSpectra(stack.masked(sphere), finest, mask)

    def tell(text: str) -> None:
        if progress is not None:
            progress(text)

    halves: list[Half] = []
    steps = halves_in_steps(done or DoneSteps(), particles, halves, generator)
    reference = _best_start(particles, n_starts, start_shells, generator, steps, tell) if start is None else start
    reference = centred(reference) * particles.mask

    # One global search of everybody at low resolution, then halves that never meet again.
    common = low_pass(reference, start_shells - 1.0, 1.0)
    first_pose = partial(_first_pose, particles, common, start_shells, finest, generator)
    steps.do("the first search", lambda: halves.extend(map(first_pose, row_sets)))
    note = _settle(particles, halves, start_shells, finest, symmetry, generator, steps, tell)
    return replace(_finish(particles, halves, half_sets, start_shells, finest), symmetry_note=note)


def _best_start(
    particles: ClassSpectra,
    n_starts: int,
    start_shells: float,
    generator: torch.Generator,
    steps: Sequence,
    tell: Callable[[str], None],
) -> Tensor:
    starts = []
    for s in range(n_starts):
        start = partial(random_start, particles, generator, finest_shells=start_shells + 1.0)
        starts.append(steps.do(f"start {s + 1}", start))
        tell(f"start {s + 1} of {n_starts}: score {starts[-1][1]:.2f}")
    best: Tensor = max(starts, key=lambda start: start[1])[0]
    return best.to(particles.device)


def _first_pose(
    particles: ClassSpectra,
    reference: Tensor,
    start_shells: float,
    finest: float,
    generator: torch.Generator,
    rows: Tensor,
) -> Half:
    poses = particles.search(rows, reference, start_shells, _SEARCH_STEPS[0], _lattice(rows), generator)
    return Half(rows, poses, particles.sums(rows, poses.rotations, poses.shifts, finest), reference)


def _settle(
    particles: ClassSpectra,
    halves: list[Half],
    start_shells: float,
    finest: float,
    symmetry: str,
    generator: torch.Generator,
    steps: Sequence,
    tell: Callable[[str], None],
) -> str:
    """Rounds of new references and new poses, each half by itself, until poses rest; what was found of a symmetry.

    Poses are searched for everywhere until hardly any is bettered by that, then only refined.
    """

    def one_round(i: int, settled: bool) -> tuple[str, bool, bool]:
        note = ""
        first, second, fsc = particles.reference(halves[0].sums, halves[1].sums)
        beyond = agreeing_shells(fsc) >= start_shells + JUDGED_SHELLS
        if particles.symmetry != symmetry and beyond and i < len(_SEARCH_STEPS):
            note = turn_onto_axes(particles, halves, (first, second), symmetry, fsc, finest)
            tell(note)
            if particles.symmetry == symmetry:
                first, second, fsc = particles.reference(halves[0].sums, halves[1].sums)
        halves[0].reference, halves[1].reference = first, second
        joined = join_halves(halves)
        particles.estimate_noise(joined[0], 0.5 * (first + second), joined[1])
        good = agreeing_shells(fsc)
        tell(f"round {i}: halves agree to shell {good}")
        if i == _MAX_ROUNDS:
            return note, settled, True
        radius = float(min(finest, max(start_shells, good + 2.0), start_shells - 0.5 + 1.5 * i))
        moved, search = 0.0, i < len(_SEARCH_STEPS) and not settled
        for half in halves:
            before = half.poses
            if search:
                step = _SEARCH_STEPS[i]
                half.poses = particles.search(
                    half.rows, half.reference, radius, step, _lattice(half.rows), generator, before
                )
            else:
                half.poses = particles.refine(half.rows, half.reference, radius, before)
            moved = max(moved, median_angle(before.rotations, half.poses.rotations))
            half.sums = particles.sums(half.rows, half.poses.rotations, half.poses.shifts, finest)
        settled = settled or min(half.poses.kept for half in halves) > _SETTLED
        return note, settled, not search and moved < _STILL_DEGREES

    settled, rests, note, i = False, False, "", 0
    while not rests:
        i += 1
        said, settled, rests = steps.do(f"round {i}", partial(one_round, i, settled))
        note = said or note
    return note


def _finish(
    particles: ClassSpectra, halves: list[Half], half_sets: NDArray[np.int64], start_shells: float, finest: float
) -> Alignment:
    """Bring the halves together, judge them, and refine everybody on the joint average."""
    # The halves may have drifted apart: register the second on the first, and turn its poses along.
    first, second = halves
    turn, move, _ = register_map(*(Volume(half.reference.cpu().numpy(), 1.0) for half in (second, first)))
    rotation = torch.from_numpy(turn).float().to(second.rows.device)
    shift = torch.from_numpy(move).float().to(second.rows.device)
    drifted = second.poses
    second.poses = PoseSet(drifted.rotations @ rotation, drifted.shifts - drifted.rotations @ shift, drifted.scores)
    second.sums = particles.sums(second.rows, second.poses.rotations, second.poses.shifts, finest)
    fsc = particles.reference(first.sums, second.sums)[2]
    judged, shared = fsc, int(start_shells)
    if particles.symmetry != "C1":
        plain = [particles.sums(h.rows, h.poses.rotations, h.poses.shifts, finest, symmetric=False) for h in halves]
        judged = particles.reference(plain[0], plain[1])[2]
    evidence = float(judged[shared + 1 : shared + 1 + JUDGED_SHELLS].mean())
    rows, joined = join_halves(halves)
    independent = (joined.rotations, joined.shifts)
    radius = float(min(finest, max(start_shells, agreeing_shells(fsc) + 1.0)))
    known = fsc.clamp(0.02, 0.98)
    total = (first.sums[0] + second.sums[0], first.sums[1] + second.sums[1])
    for step in range(2):
        if step > 0:
            total = particles.sums(rows, joined.rotations, joined.shifts, finest)
        joined = particles.refine(rows, particles.volume(*total, (1 - known) / (2 * known)), radius, joined)
    return Alignment(
        joined.rotations,
        joined.shifts,
        independent,
        half_sets,
        joined.scores,
        fsc.double().cpu().numpy(),
        evidence,
        evidence >= EVIDENCE_THRESHOLD,
        particles.symmetry,
    )


def _lattice(like: Tensor) -> Tensor:
    return shift_lattice(2.6, 1.5, like.device)
