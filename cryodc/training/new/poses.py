"""Poses of particles that a run does not hold, on the averages of its classes."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import START_SHELLS, ClassSpectra
from cryodc.averaging import shrink
from cryodc.dataset import SubtomogramDataset
from cryodc.fourier import agreeing_shells, fourier_crop, low_pass, shift_lattice, soft_sphere
from cryodc.io import read_array, read_volume
from cryodc.particles import Poses
from cryodc.runs import FSC_COLUMNS, RunFolder, read_table, require, require_averages

_SEARCHES = ((16.0, START_SHELLS), (14.0, 9.0))
"""Searches of all rotations: degrees apart, and shells that are looked at. Beyond them poses are only refined."""
_REACH_VOXELS, _SPACED_VOXELS = 2.6, 1.5
_FINEST = 0.8


@dataclass(frozen=True)
class ReadyAverage:
    """A class average that particles are aligned to.

    Parameters
    ----------
    volume
        ``(d, h, w)`` within its mask, at the box of the particles.
    shells
        In which its halves agree.
    """

    volume: Float[Tensor, "d h w"]
    shells: int


def ready_averages(run: RunFolder) -> dict[int, ReadyAverage]:
    """The averages of a run that are aligned, by 0-based class.

    Raises
    ------
    InputError
        If the run has no averages of the classes it has now, or their files are missing or damaged.
    """
    summary = require_averages(run)
    table = read_table(run.averages / "fsc.csv", FSC_COLUMNS, "cryodc average")
    found = {}
    for entry in summary.classes:
        if not entry.aligned:
            continue
        number = entry.class_number
        files = (run.averages / f"class{number:03d}{what}.mrc" for what in ("", "_mask"))
        average, mask = (require(file, "cryodc average") for file in files)
        inside = torch.from_numpy(read_volume(average).voxels * read_array(mask))
        curve = table["fsc"][table["class"] == number].to_numpy(dtype=np.float64, copy=True)
        found[number - 1] = ReadyAverage(inside.float(), agreeing_shells(curve))
    return found


@torch.no_grad()
def poses_on_averages(
    dataset: SubtomogramDataset,
    labels: Int[NDArray[np.int64], " n"],
    averages: dict[int, ReadyAverage],
    seed: int,
    device: torch.device,
) -> Poses:
    """The pose of each particle on the average of its class.

    Parameters
    ----------
    dataset
        The particles, at the box of the averages.
    labels
        ``(n,)`` 0-based class of each.
    averages
        Of classes that are aligned. Particles of others keep the pose of their STAR; where it has none, they lie as
        recorded.
    seed, device
        Of the searches; and where to compute.
    """
    n, given = len(dataset), dataset.particles.poses
    rotations = np.tile(np.eye(3), (n, 1, 1)) if given is None else given.rotations.copy()
    origins = np.zeros((n, 3)) if given is None else given.origins_angstrom.copy()
    for label, average in averages.items():
        rows = np.flatnonzero(labels == label)
        if len(rows):
            turned, moved = _align(dataset, torch.from_numpy(rows), average, seed, device)
            rotations[rows] = turned.double().cpu().numpy()
            origins[rows] = moved.double().cpu().numpy() * dataset.particles.spacing_angstrom
    return Poses(rotations, origins)


def join_poses(parts: list[Poses]) -> Poses | None:
    """Poses of all parts, in order; None of none."""
    if not parts:
        return None
    return Poses(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("rotations", "origins_angstrom")))


def _align(
    dataset: SubtomogramDataset, rows: Int[Tensor, " b"], average: ReadyAverage, seed: int, device: torch.device
) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 3"]]:
    """Rotations, and origins in voxels: searches of all rotations that see few shells, then refinement."""
    stack = shrink(dataset.gather(rows).to(device))
    box, every = stack.box_size, torch.arange(len(rows), device=device)
    reference = fourier_crop(average.volume[None], box)[0].to(device)
    finest = _FINEST * (box // 2)
    last = min(finest, max(START_SHELLS, average.shells + 1.0))
    particles = ClassSpectra(stack.masked(soft_sphere(box, 0.375 * box, 3.0, device)), finest)
    generator, lattice = torch.Generator().manual_seed(seed), shift_lattice(_REACH_VOXELS, _SPACED_VOXELS, device)
    pose = None
    for step, shells in _SEARCHES:
        radius = min(shells, last)
        seen = low_pass(reference, radius - 1.0, 1.0)
        pose = particles.search(every, seen, radius, step, lattice, generator, pose)
        particles.estimate_noise(every, reference, pose)
    assert pose is not None
    for shells in (0.5 * (radius + last), last):
        pose = particles.refine(every, reference, shells, pose)
    return pose.rotations, pose.shifts * (dataset.box_size / box)
