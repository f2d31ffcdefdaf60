"""What is written of the states of a class: maps, the motion along axes, STAR files and coordinates."""

import csv
import io
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from cryodc.alignment import balanced_halves
from cryodc.device import by_leader
from cryodc.fourier import FourierBall, fourier_ball, resolution_angstrom, volume_from_ball
from cryodc.io import write_text, write_volume
from cryodc.maps import average_particles
from cryodc.particles import Poses, with_poses
from cryodc.runs import RunFolder
from cryodc.star import particle_block, read_star, write_star
from cryodc.states.conformations import Conformations
from cryodc.states.members import PosedParticles
from cryodc.volumes import Volume

STATE_LABEL = "cdcState"
"""Column of particles.star: the state, from 1; rlnClassNumber stays the class."""
AXIS_STEPS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Standard deviations at which an axis is shown."""


def write_states(
    run: RunFolder,
    folder: Path,
    members: PosedParticles,
    found: Conformations,
    average: Complex[Tensor, " p"],
    ball: FourierBall,
    reposed: bool,
) -> list[dict[str, Any]]:
    """Write all but the summary; give what it says of each state.

    Of processes that share particles each comes here, and the leader writes.

    Parameters
    ----------
    run, folder
        Of the averages, and where to write.
    members, found
        The particles, and their states.
    average, ball
        What axes are the difference from, and where it is sampled.
    reposed
        Whether the poses of ``members`` are others than those of the averages.
    """
    entries = _write_averages(folder, members, found)

    def write() -> None:
        _write_axes(folder, members, average, found.axes, ball)
        _write_star(run, folder, members, found, reposed)
        _write_coordinates(folder, members, found)

    by_leader(write)
    return entries


def _write_averages(folder: Path, members: PosedParticles, found: Conformations) -> list[dict[str, Any]]:
    """Average each state's particles at the full box, Wiener-filtered by the FSC of its own halves."""
    entries = []
    for state in range(found.n_states):
        mine = np.flatnonzero(found.labels == state)
        halves = members.half_sets[mine]
        if len(mine) > 1 and len(set(halves.tolist())) < 2:
            halves = balanced_halves(len(mine), 0)
        here = torch.from_numpy(mine).to(members.rotations.device)
        stack = members.dataset.stored(torch.from_numpy(members.rows[mine]), device=members.rotations.device)
        maps = average_particles(stack, members.rotations[here], members.origins_voxels[here], halves)
        name = f"state{state + 1:02d}.mrc"
        by_leader(partial(write_volume, folder / name, _volume(maps.average, members)))
        resolution = resolution_angstrom(maps.fsc, members.spacing_angstrom)
        entries.append(
            {
                "state": state + 1,
                "n_particles": len(mine),
                "confidence": round(float(found.confidence[mine].mean()), 4),
                "resolution_angstrom": round(resolution, 2) if math.isfinite(resolution) else None,
                "map": name,
            }
        )
    return entries


def _write_axes(
    folder: Path,
    members: PosedParticles,
    average: Complex[Tensor, " p"],
    axes: Complex[Tensor, "q p"],
    ball: FourierBall,
) -> None:
    """The average moved along each axis, at the full box."""
    box_size = members.box_size
    # The same frequencies in the same order, in a larger box.
    full = fourier_ball(box_size, float(ball.frequencies.norm(dim=1).max()) + 1e-3, average.device)
    scale = (box_size / ball.box_size) ** 3
    for q, axis in enumerate(axes, start=1):
        for frame, step in enumerate(AXIS_STEPS, start=1):
            voxels = volume_from_ball((average + step * axis) * scale, full)
            write_volume(folder / f"axis{q}_{frame:02d}.mrc", _volume(voxels, members))


def _volume(voxels: Tensor, members: PosedParticles) -> Volume:
    return Volume(voxels.cpu().numpy().astype(np.float32), members.spacing_angstrom)


def _write_star(run: RunFolder, folder: Path, members: PosedParticles, found: Conformations, reposed: bool) -> None:
    document = read_star(run.averages / "particles.star")
    name = particle_block(document).name
    mine = document.with_rows(name, members.rows)
    if reposed:
        origins = members.origins_voxels.double().cpu().numpy() * members.spacing_angstrom
        poses = Poses(members.rotations.double().cpu().numpy(), origins)
        mine = with_poses(mine, poses, members.particles)
    mine = mine.with_column(name, STATE_LABEL, [str(label + 1) for label in found.labels])
    write_star(mine, folder / "particles.star")
    for state in range(found.n_states):
        write_star(mine.with_rows(name, np.flatnonzero(found.labels == state)), folder / f"state{state + 1:02d}.star")


def _write_coordinates(folder: Path, members: PosedParticles, found: Conformations) -> None:
    axes = range(1, len(found.axes) + 1)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "state", "confidence", *(f"axis{q}" for q in axes), *(f"axis{q}_error" for q in axes)])
    for i, row in enumerate(members.rows):
        numbers = [found.confidence[i], *found.coordinates[i], *found.coordinate_errors[i]]
        table.writerow([members.particles.names[row], found.labels[i] + 1, *(f"{value:.4f}" for value in numbers)])
    write_text(folder / "coordinates.csv", text.getvalue())
