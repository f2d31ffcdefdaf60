"""States of one class of an averaged run: found, judged, and written to states/classKKK/."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.cluster import KMeans
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from torch import Tensor

from cryodc.device import by_leader, choose_device, join_team, led, memory_budget, sharing
from cryodc.dry_run import Forecast, declare, particle_bytes
from cryodc.errors import InputError
from cryodc.geometry import POINT_GROUPS, symmetry_rotations
from cryodc.io import read_volume, replace_folder
from cryodc.maps import read_mask
from cryodc.runs import (
    RunFolder,
    StatesSummary,
    fingerprint_of_averages,
    identity_of_data,
    load_codes,
    require,
    write_summary,
    writing,
)
from cryodc.states.conformations import Conformations, find_conformations
from cryodc.states.files import AXIS_STEPS, write_states
from cryodc.states.measurements import measure
from cryodc.states.members import PosedParticles, load_posed_particles, require_aligned
from cryodc.states.relax import put_on_axes, relax_symmetry
from cryodc.states.storage import Storage
from cryodc.unfinished import DoneSteps, key_of, stamp


def find_states(
    run: RunFolder,
    class_number: int,
    n_states: int | None = None,
    *,
    mask: Path | None = None,
    relax: str = "C1",
    seed: int = 0,
    device: str = "auto",
    n_starts: int = 4,
    memory_bytes: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Conformations:
    """Find the states of one class and write states/classKKK/, in place of what an earlier call wrote there.

    Where a call was killed, the next with the same request goes on after the fit that was done.
    Processes that ``torchrun`` started share the particles; the first of them writes.

    Parameters
    ----------
    run
        An averaged run: poses and half sets are those of averages/particles.star.
    class_number
        From 1.
    n_states
        N, or None for the largest number that held-out particles support.
    mask
        MRC of the box and spacing of the averages, 0 to 1: where states may differ. By default the class's mask.
    relax
        Point group that the class nearly has: each particle may lie in any mate of its pose. C1: none.
    seed
        Same seed, same result.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    n_starts, memory_bytes
        Starts of each fit; what may be held of particles, by default half of what is free: more lies in a file.
    progress
        Called with a line about each step.

    Raises
    ------
    InputError
        If the run has no averages of the classes it has now, no such class, the class is not aligned or too small, the
        mask does not fit, there is no such point group, the average has no such axes, there is no such device, or
        another process writes into the run.
    """
    relax, where = _point_group(relax), choose_device(device)
    with join_team(where) as team, sharing(team), led(lambda: writing(run, "states")):
        summary, made_of = require_aligned(run, class_number), fingerprint_of_averages(run)
        tell = progress if progress and team.leads else lambda _: None
        mask_file = mask or require(run.averages / f"class{class_number:03d}_mask.mrc", "cryodc average")
        members = load_posed_particles(run, class_number, max(2, n_states or 2), where)
        inside = read_mask(mask_file, members.box_size, members.spacing_angstrom).to(where)
        n, box, told = len(members.rows), members.box_size, f"class {class_number}, {len(members.rows)} particles"
        tell(f"{told}, to shell {members.shells}")
        plan = particle_bytes(n, box), 40.0 * box**3, (box,) * 3, {"states": n * n_starts}, 4 * n
        declare(Forecast(run.states, f"{told}, box {box}", *plan))
        n_moved, place = 0, run.states / f"class{class_number:03d}"
        if relax != "C1":
            members, inside = _on_axes(run, members, inside, relax)
        if place.exists():
            tell(f"replacing the states in {place}")
        request = (class_number, n_states, relax, seed, n_starts, where, stamp(mask_file))
        key = key_of(request, made_of, identity_of_data(run, members.particles))
        with led(lambda: replace_folder(place, key)) as folder:
            done = DoneSteps.within(folder, tell)
            kept = Storage(n, memory_budget(where) if memory_bytes is None else memory_bytes, run.path)
            measured, average = measure(members.batches, inside, members.shells, kept)
            if relax != "C1":
                measured, average, mates = relax_symmetry(measured, average, members.half_sets, relax, seed, done)
                members = replace(members, rotations=members.rotations @ mates)
                n_moved = int((mates.diagonal(dim1=1, dim2=2).sum(dim=1) < 2.999).sum())
                tell(f"{relax} relaxed: {n_moved} particles in another mate of their pose")
            found = find_conformations(
                measured, members.half_sets, n_states, seed=seed, n_starts=n_starts, done=done, progress=tell
            )
            states = write_states(run, folder, members, found, average, measured.ball, relax != "C1")

            def describe() -> None:
                described = StatesSummary(
                    made_of=made_of,
                    class_number=class_number,
                    n_particles=len(members.rows),
                    n_states=found.n_states,
                    requested="auto" if n_states is None else n_states,
                    verdict=found.verdict,
                    stability=round(found.stability, 4),
                    states=states,
                    trials=[asdict(trial) for trial in found.trials],
                    axes=len(found.axes),
                    axes_supported=found.axes_supported,
                    axis_steps=list(AXIS_STEPS),
                    transformation_codes=_code_agreement(run, members, found, seed),
                    finest_angstrom=round(members.box_size * members.spacing_angstrom / members.shells, 2),
                    mask=str(mask_file),
                    relaxed_symmetry=relax,
                    moved_to_a_mate=n_moved,
                    half_sets=summary.half_sets,
                    seed=seed,
                )
                write_summary(folder, described)

            by_leader(describe)
    return found


def _point_group(symbol: str) -> str:
    try:
        symmetry_rotations(symbol)
    except ValueError as error:
        raise InputError(
            f"--relax-symmetry {symbol}: {error}", expected=POINT_GROUPS, remedy="give the group the class nearly has"
        ) from error
    return symbol.strip().upper()


def _on_axes(run: RunFolder, members: PosedParticles, inside: Tensor, symmetry: str) -> tuple[PosedParticles, Tensor]:
    """The class, and the mask, in the frame of the group's axes, which are looked for in its average."""
    average = read_volume(require(run.averages / f"class{members.number:03d}.mrc", "cryodc average"))
    voxels = torch.from_numpy(average.voxels).float().to(inside.device)
    poses = (members.rotations, members.origins_voxels)

    def place() -> list[Tensor]:
        moved, mask = put_on_axes(voxels, inside, poses, symmetry, float(members.shells))
        return [values.cpu() for values in (*moved, mask)]

    rotations, origins, mask = (values.to(inside.device) for values in by_leader(place))
    return replace(members, rotations=rotations, origins_voxels=origins), mask


def _code_agreement(run: RunFolder, members: PosedParticles, found: Conformations, seed: int) -> dict[str, Any] | None:
    """What the transformation codes say of the same particles; None where there are none."""
    if not run.codes.exists():
        return None
    names = [members.particles.names[row] for row in members.rows]
    codes = load_codes(run).select(names).transformation_told
    if codes.shape[1] == 0:
        return None
    return compare_with_codes(codes, found.labels, found.coordinates, seed)


def compare_with_codes(
    transformation: Float[NDArray[np.float32], "n c"],
    labels: Int[NDArray[np.int64], " n"],
    coordinates: Float[NDArray[np.float64], "n q"],
    seed: int = 0,
) -> dict[str, Any]:
    """How far transformation codes tell what the aligned particles tell.

    Parameters
    ----------
    transformation
        ``(n, z)`` transformation codes.
    labels
        ``(n,)`` states.
    coordinates
        ``(n, a)`` along axes.
    seed
        Of folds.

    Returns
    -------
    ``ari_of_states``: between the states and k-means of the codes (None for one state); ``r2_of_axes``: of each axis's
    coordinates predicted from the codes by ridge regression, cross-validated, 0 or less by chance; None where an axis
    vanished.
    """
    n_states = int(labels.max()) + 1
    ari = None
    if n_states > 1:
        grouped = KMeans(n_states, n_init=10, random_state=seed).fit_predict(transformation)
        ari = round(float(metrics.adjusted_rand_score(labels, grouped)), 4)
    r2: list[float | None] = []
    for axis in coordinates.T if len(labels) >= 10 else []:
        if axis.std() < 1e-3:
            # An axis that vanished has no coordinates to predict.
            r2.append(None)
            continue
        predicted = cross_val_predict(RidgeCV(np.logspace(-2, 4, 7)), transformation, axis, cv=5)
        r2.append(round(float(1 - ((axis - predicted) ** 2).mean() / axis.var()), 4))
    return {"ari_of_states": ari, "r2_of_axes": r2}
