"""Averages of a run's classes: maps, half maps, FSC, resolution, and poses where none were known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryodc.align import align_class, balanced_halves
from cryodc.average_files import CURVE_COLUMNS, ClassAverage, curve_rows, describe_class, write_class
from cryodc.cluster import Clusters, load_clusters
from cryodc.distributed import choose_device
from cryodc.errors import InputError
from cryodc.fractions import ClassFractions, class_fractions, fractions_table
from cryodc.half_maps import average_particles
from cryodc.io.run import RunFolder, write_json, write_text
from cryodc.io.star import read_star, with_classes, with_half_sets, with_poses, write_star
from cryodc.ops.filters import crop_weights, fourier_crop
from cryodc.particles import ParticleSet, Poses
from cryodc.workflow import load_run_dataset, load_run_particles

MIN_PARTICLES_TO_ALIGN = 8
"""Below this a class is averaged as it stands and marked as not aligned."""

ALIGNMENT_BOX = 48
"""Larger boxes are Fourier-cropped to this while poses are searched for; averages keep the full box."""


@dataclass(frozen=True)
class _Placed:
    """Poses of a class: final, and those that each half set found without the other."""

    rotations: Tensor
    origins_voxels: Tensor
    independent: tuple[Tensor, Tensor]
    half_sets: NDArray[np.int64]
    aligned: bool
    note: str


def average_run(
    run: RunFolder,
    *,
    ignore_poses: bool = False,
    seed: int = 0,
    device: str = "auto",
    n_starts: int = 2,
    progress: Callable[[str], None] | None = None,
) -> list[ClassAverage]:
    """Average every class of a run and write averages/; align each from nothing if there are no poses.

    Parameters
    ----------
    run
        A clustered run.
    ignore_poses
        Align from nothing even where the STAR has poses.
    seed
        Of the split into halves and of the alignment.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    n_starts
        Random starts of each class's alignment.
    progress
        Told what is being done, a line at a time.

    Raises
    ------
    InputError
        If the run is not clustered, its clusters are of other particles, or there is no such device.
    """
    clusters = load_clusters(run)
    where = choose_device(device)
    particles = load_run_particles(run)
    if particles.names != clusters.names:
        raise InputError(
            "the clusters are of other particles than the run's STAR",
            file=run.clusters / "summary.json",
            remedy="run `cryodc cluster` again",
        )
    dataset = load_run_dataset(run, particles)
    # A pack may be coarser than the images.
    spacing = dataset.particles.spacing_angstrom
    use_star = particles.poses is not None and not ignore_poses
    n = len(particles)
    poses = Poses(np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3))) if particles.poses is None else particles.poses
    rotations, origins = poses.rotations.copy(), poses.origins_angstrom.copy()
    half_sets = np.array(balanced_halves(n, seed) if particles.half_sets is None else particles.half_sets)
    for pattern in ("class*.mrc", "class*.png"):
        for stale in run.averages.glob(pattern):
            stale.unlink()
    run.averages.mkdir(parents=True, exist_ok=True)
    results: list[ClassAverage] = []
    table = [CURVE_COLUMNS]
    for label in range(clusters.n_clusters):
        rows = np.flatnonzero(clusters.labels == label)
        number = label + 1
        tell = _prefixed(progress, f"class {number} of {clusters.n_clusters}, {len(rows)} particles")
        volumes, weights, local = (tensor.to(where) for tensor in dataset.gather(torch.from_numpy(rows)))
        given = _given(poses[rows], spacing, where)
        wanted = None if particles.half_sets is None else half_sets[rows]
        placed = _place(volumes, weights, local, given, wanted, use_star, seed + label, n_starts, tell)
        half_sets[rows] = placed.half_sets
        maps = average_particles(
            volumes, weights, local, placed.rotations, placed.origins_voxels, placed.half_sets, placed.independent
        )
        rotations[rows] = placed.rotations.double().cpu().numpy()
        origins[rows] = placed.origins_voxels.double().cpu().numpy() * spacing
        results.append(write_class(run, number, maps, rotations[rows], spacing, placed.aligned, placed.note))
        table += curve_rows(number, maps, spacing)
        tell(results[-1].note)
    write_text(run.averages / "fsc.csv", "\n".join(table) + "\n")
    _write_star(run, clusters, particles, None if use_star else Poses(rotations, origins), half_sets)
    fractions = class_fractions(clusters.labels, particles.tomograms, clusters.n_clusters, seed)
    write_text(run.averages / "fractions.csv", fractions_table(fractions))
    summary = _summary(results, fractions[0], use_star, particles.half_sets is not None, seed)
    write_json(run.averages / "summary.json", summary)
    return results


def _place(
    volumes: Tensor,
    weights: Tensor,
    weight_index: Tensor,
    given: tuple[Tensor, Tensor],
    half_sets: NDArray[np.int64] | None,
    use_star: bool,
    seed: int,
    n_starts: int,
    tell: Callable[[str], None],
) -> _Placed:
    n, note = len(volumes), ""
    halves = balanced_halves(n, seed) if half_sets is None else half_sets
    fewest = min(int((halves == 1).sum()), int((halves == 2).sum()))
    if half_sets is not None and fewest < min(2, n // 2):
        halves, note = balanced_halves(n, seed), "the STAR's half sets leave one half empty: split anew. "
        fewest = n // 2
    if use_star:
        return _Placed(*given, given, halves, fewest > 0, note + "poses of the STAR")
    if n < MIN_PARTICLES_TO_ALIGN or fewest < 2:
        note += f"too few particles to align: {n}, at least {MIN_PARTICLES_TO_ALIGN} are needed"
        return _Placed(*given, given, halves, False, note)
    box = volumes.shape[-1]
    small = min(box, ALIGNMENT_BOX)
    found = align_class(
        volumes if small == box else fourier_crop(volumes, small),
        weights if small == box else crop_weights(weights, small),
        weight_index,
        seed=seed,
        n_starts=n_starts,
        half_sets=halves,
        progress=tell,
    )
    scale = box / small
    note += (
        "aligned from nothing"
        if found.aligned
        else f"halves aligned independently do not agree (FSC {found.evidence:.2f} beyond their common start)"
    )
    turn, move = found.independent
    return _Placed(
        found.rotations, found.origins_voxels * scale, (turn, move * scale), found.half_sets, found.aligned, note
    )


def _given(poses: Poses, spacing_angstrom: float, device: torch.device) -> tuple[Tensor, Tensor]:
    rotations = torch.from_numpy(poses.rotations).float().to(device)
    return rotations, torch.from_numpy(poses.origins_angstrom / spacing_angstrom).float().to(device)


def _write_star(
    run: RunFolder,
    clusters: Clusters,
    particles: ParticleSet,
    poses: Poses | None,
    half_sets: NDArray[np.int64],
) -> None:
    document = with_classes(read_star(run.particles), [int(label) + 1 for label in clusters.labels])
    if poses is not None:
        document = with_poses(document, poses, particles)
    if particles.half_sets is None or bool((particles.half_sets != half_sets).any()):
        document = with_half_sets(document, half_sets)
    write_star(document, run.averages / "particles.star")


def _summary(
    results: list[ClassAverage], fractions: ClassFractions, use_star: bool, star_halves: bool, seed: int
) -> dict[str, object]:
    if not use_star:
        halves = (
            "halves were aligned independently, from a start they share up to shell 5; resolutions beyond it are "
            "gold standard"
        )
    elif star_halves:
        halves = "rlnRandomSubset of the STAR; gold standard if its poses were refined in these halves"
    else:
        halves = "a random split of particles whose poses were given: not gold standard"
    return {
        "poses": "star" if use_star else "aligned",
        "half_sets": halves,
        "seed": seed,
        "classes": [describe_class(result, fractions) for result in results],
    }


def _prefixed(progress: Callable[[str], None] | None, prefix: str) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if progress is not None:
            progress(f"{prefix}: {text}")

    return tell
