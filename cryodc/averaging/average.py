"""Averages of a run's classes: maps, half maps, FSC, resolution, and poses where none were known."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import FEWEST_START_SHELLS, JUDGED_SHELLS, START_SHELLS, balanced_halves, most_start_shells
from cryodc.averaging.files import CURVE_COLUMNS, ClassAverage, curve_rows, describe_class, write_class
from cryodc.averaging.final_classes import ALIGNMENT_BOX, classify_run, write_assignments
from cryodc.averaging.place import on_axes, place_class, symmetry_of
from cryodc.clustering import Clusters, content_features, load_clusters
from cryodc.device import choose_device
from cryodc.errors import InputError
from cryodc.io import write_json, write_text
from cryodc.maps import ClassFractions, average_particles, class_fractions, fractions_table, mask_of, read_masks
from cryodc.particles import ParticleSet, Poses, with_classes, with_half_sets, with_poses
from cryodc.runs import RunFolder, load_codes, load_run_dataset, load_run_particles
from cryodc.star import read_star, write_star


def average_run(
    run: RunFolder,
    *,
    ignore_poses: bool = False,
    seed: int = 0,
    device: str = "auto",
    n_starts: int = 2,
    classify: bool = False,
    n_rounds: int = 6,
    junk: bool = True,
    symmetries: Mapping[int | None, str] | None = None,
    masks: Mapping[int | None, Path] | None = None,
    low_pass_angstrom: float | None = None,
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
    classify
        Before that, sort particles anew: the clusters are only where :mod:`cryodc.averaging.classify` starts.
    n_rounds, junk
        As :func:`cryodc.averaging.classify.classify_particles` takes them.
    symmetries
        Point group by class number; under None, of all others. Where poses are aligned from nothing, the axes are
        looked for in the average first, and nothing is imposed where they are not found.
    masks
        MRC of the averages' box and spacing by class number; under None, of all others. The FSC is computed within it,
        and references are multiplied by it where poses are aligned from nothing. There it must be the same from all
        sides. By default the surroundings of the density, and the sphere that fits the box.
    low_pass_angstrom
        Resolution up to which poses are first searched for; by default five shells.
    progress
        Told what is being done, a line at a time.

    Raises
    ------
    InputError
        If the run is not clustered, its clusters are of other particles, a symmetry or mask is of no class, a mask
        does not fit, the low-pass is of nothing or leaves nothing to judge by, or there is no such device.
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
    if not classify:
        _require_classes(clusters, {"symmetry": symmetries or {}, "mask": masks or {}})
    dataset = load_run_dataset(run, particles)
    # A pack may be coarser than the images.
    spacing = dataset.particles.spacing_angstrom
    use_star = particles.poses is not None and not ignore_poses
    inside = read_masks(masks or {}, dataset.particles.box_size, spacing, any_frame=not use_star)
    if low_pass_angstrom is not None and use_star and not classify:
        raise InputError(
            "--low-pass is where the search for poses starts, but those of the STAR are taken as they are",
            file=run.particles,
            remedy="add --ignore-poses, or leave --low-pass out",
        )
    start_shells = _start_shells(low_pass_angstrom, dataset.particles.box_size, spacing)
    n = len(particles)
    poses = Poses(np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3))) if particles.poses is None else particles.poses
    rotations, origins = poses.rotations.copy(), poses.origins_angstrom.copy()
    half_sets = np.array(balanced_halves(n, seed) if particles.half_sets is None else particles.half_sets)
    final = None
    if classify:
        final = classify_run(
            dataset,
            clusters,
            half_sets,
            seed=seed,
            n_starts=n_starts,
            n_rounds=n_rounds,
            junk=junk,
            start_shells=start_shells,
            device=where,
            points=content_features(load_codes(run).content_points),
            progress=_prefixed(progress, "classification"),
        )
    for pattern in ("class*.mrc", "class*.png", "assignments.csv"):
        for stale in run.averages.glob(pattern):
            stale.unlink()
    run.averages.mkdir(parents=True, exist_ok=True)
    if final is not None:
        write_assignments(run, final, clusters)
        clusters = final.clusters
    results: list[ClassAverage] = []
    table = [CURVE_COLUMNS]
    for label in range(clusters.n_clusters):
        rows = np.flatnonzero(clusters.labels == label)
        number = label + 1
        tell = _prefixed(progress, f"class {number} of {clusters.n_clusters}, {len(rows)} particles")
        stack = dataset.gather(torch.from_numpy(rows)).to(where)
        given = _given(poses[rows], spacing, where)
        wanted = None if particles.half_sets is None else half_sets[rows]
        start = None if final is None else final.starts[label]
        symmetry = symmetry_of(number, symmetries)
        mask = mask_of(number, inside)
        mask = None if mask is None else mask.to(where)
        placed = place_class(
            stack,
            given,
            wanted,
            use_star,
            seed + label,
            n_starts,
            start,
            mask,
            start_shells or START_SHELLS,
            symmetry,
            tell,
        )
        half_sets[rows] = placed.half_sets
        placed, symmetry = on_axes(stack, placed, symmetry, use_star, mask)
        maps = average_particles(
            stack,
            placed.rotations,
            placed.origins_voxels,
            placed.half_sets,
            placed.independent,
            symmetry,
            mask,
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
    summary = _summary(
        results, fractions[0], use_star, particles.half_sets is not None, seed, start_shells or START_SHELLS
    )
    summary["masks"] = {"all" if number is None else str(number): str(path) for number, path in (masks or {}).items()}
    if classify:
        failed = {"verdict": "no cluster could be aligned: classes are the clusters"}
        summary["classification"] = failed if final is None else final.summary
    write_json(run.averages / "summary.json", summary)
    return results


def _start_shells(low_pass_angstrom: float | None, box_size: int, spacing_angstrom: float) -> float | None:
    """Shells of a box up to this resolution; None for the default."""
    if low_pass_angstrom is None:
        return None
    box_angstrom = box_size * spacing_angstrom
    below = most_start_shells(min(box_size, ALIGNMENT_BOX))
    shells = box_angstrom / low_pass_angstrom
    if not FEWEST_START_SHELLS <= shells < below:
        raise InputError(
            "the search for poses cannot start at this resolution",
            expected=f"--low-pass from {box_angstrom / FEWEST_START_SHELLS:.1f} Å to just above "
            f"{box_angstrom / below:.1f} Å: {FEWEST_START_SHELLS} shells at least, and {JUDGED_SHELLS} left before "
            f"the finest that poses are searched at, by which halves are judged",
            found=f"{low_pass_angstrom:g} Å; Nyquist is {2 * spacing_angstrom:g} Å",
        )
    return shells


def _require_classes(clusters: Clusters, given: Mapping[str, Mapping[int | None, object]]) -> None:
    for what, by_class in given.items():
        unknown = [number for number in by_class if number is not None and number > clusters.n_clusters]
        if unknown:
            raise InputError(
                f"a {what} is given for a class that is not there",
                expected=f"classes 1 to {clusters.n_clusters}",
                found=str(unknown[0]),
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
    results: list[ClassAverage],
    fractions: ClassFractions,
    use_star: bool,
    star_halves: bool,
    seed: int,
    start_shells: float,
) -> dict[str, object]:
    if not use_star:
        halves = (
            f"halves were aligned independently, from a start they share up to shell {start_shells:.3g}; resolutions "
            "beyond it are gold standard"
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
