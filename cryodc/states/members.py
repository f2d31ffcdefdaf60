"""The particles of one class of an averaged run, in their poses."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import balanced_halves
from cryodc.dataset import SubtomogramDataset
from cryodc.device import own_part
from cryodc.errors import InputError
from cryodc.fourier import agreeing_shells, chunks
from cryodc.particles import ParticleSet
from cryodc.runs import (
    FSC_COLUMNS,
    AverageSummary,
    RunFolder,
    damaged,
    load_run_dataset,
    load_run_particles,
    read_table,
    require,
    require_averages,
)
from cryodc.star import particle_block, read_star, read_whole_numbers
from cryodc.states.measurements import PosedBatch


@dataclass(frozen=True)
class PosedParticles:
    """The particles of one class of an averaged run.

    Parameters
    ----------
    number
        rlnClassNumber.
    rows
        ``(n,)`` 0-based rows of the run's STAR.
    particles, dataset
        Of the whole run, with the poses of averages/particles.star.
    rotations, origins_voxels, half_sets
        ``(n, 3, 3)``, ``(n, 3)`` and ``(n,)`` of the class.
    shells
        Shells before the half maps' FSC first falls below 0.143; at least 3.
    """

    number: int
    rows: NDArray[np.int64]
    particles: ParticleSet
    dataset: SubtomogramDataset
    rotations: Tensor
    origins_voxels: Tensor
    half_sets: NDArray[np.int64]
    shells: int

    @property
    def box_size(self) -> int:
        """Of its averages, voxels."""
        return self.dataset.particles.box_size

    @property
    def spacing_angstrom(self) -> float:
        """Of its averages."""
        return self.dataset.particles.spacing_angstrom

    def batches(self) -> Iterator[PosedBatch]:
        """Those that this process keeps, a few at a time: a class may be larger than memory."""
        device, mine = self.rotations.device, own_part(len(self.rows))
        rows, rotations, origins = self.rows[mine], self.rotations[mine], self.origins_voxels[mine]
        for c in chunks(len(rows), 64):
            volumes, weights = self.dataset.batch(torch.from_numpy(rows[c]))
            yield volumes.to(device), weights.to(device), rotations[c], origins[c]


def require_aligned(run: RunFolder, class_number: int) -> AverageSummary:
    """averages/summary.json of a run in which this class is aligned.

    Raises
    ------
    InputError
        If the run has no averages of the classes it has now, no such class, or the class is not aligned.
    """
    summary, path = require_averages(run), run.averages / "summary.json"
    entry = summary.of_class(class_number)
    if entry is None:
        known = ", ".join(str(row.class_number) for row in summary.classes)
        raise InputError("there is no such class", file=path, expected=f"--class {known}", found=str(class_number))
    if not entry.aligned:
        raise InputError(
            f"class {class_number} is not aligned: without poses there are no states to tell apart",
            file=path,
            found=entry.note,
            remedy="average it with poses in the STAR, more particles or more --starts",
        )
    return summary


def load_posed_particles(run: RunFolder, number: int, fewest: int, device: torch.device) -> PosedParticles:
    """The particles of a class, at least ``fewest`` of them, in the poses of averages/particles.star.

    Parameters
    ----------
    run
        An averaged run.
    number
        rlnClassNumber.
    fewest
        Particles that are needed.
    device
        Where poses lie.

    Raises
    ------
    InputError
        If the run has no averages, they are of other particles, or the class is too small.
    """
    star = require(run.averages / "particles.star", "cryodc average")
    posed, particles = load_run_particles(run, star), load_run_particles(run)
    if posed.names != particles.names or posed.poses is None:
        raise InputError(
            "these are not the averages of the run's particles", file=star, remedy="run `cryodc average` again"
        )
    document = read_star(star)
    numbers = read_whole_numbers(document, particle_block(document), "rlnClassNumber")
    rows = np.flatnonzero(numbers == number)
    if len(rows) < fewest:
        raise InputError(
            f"class {number} has too few particles for states",
            file=star,
            expected=f"at least {fewest} particles",
            found=str(len(rows)),
            remedy="ask for fewer states, or another class",
        )
    dataset = load_run_dataset(run, particles)
    spacing = dataset.particles.spacing_angstrom
    rotations = torch.from_numpy(posed.poses.rotations[rows]).float().to(device)
    origins = torch.from_numpy(posed.poses.origins_angstrom[rows] / spacing).float().to(device)
    halves = balanced_halves(len(rows), 0) if posed.half_sets is None else posed.half_sets[rows]
    return PosedParticles(number, rows, posed, dataset, rotations, origins, halves, _supported_shells(run, number))


def _supported_shells(run: RunFolder, number: int) -> int:
    """Shells before the half maps' FSC first falls below 0.143; at least 3."""
    table = read_table(run.averages / "fsc.csv", FSC_COLUMNS, "cryodc average")
    fsc = table.loc[table["class"] == number, "fsc"].to_numpy(dtype=np.float64)
    if len(fsc) < 5:
        raise damaged(run.averages / "fsc.csv", "cryodc average", f"{len(fsc)} shells of class {number}")
    return max(3, min(agreeing_shells(fsc), len(fsc) - 2))
