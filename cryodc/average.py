"""Averages of a run's classes: maps, half maps, FSC, resolution, and poses where none were known."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.align import align_class, balanced_halves
from cryodc.cluster import Clusters, load_clusters
from cryodc.distributed import choose_device
from cryodc.errors import InputError
from cryodc.final_classes import classify_run, shrink, write_assignments
from cryodc.io.mrc import write_volume
from cryodc.io.run import RunFolder, write_json, write_text
from cryodc.io.star import read_star, with_classes, with_half_sets, with_poses, write_star
from cryodc.ops.correlate import (
    FourierBall,
    ball_spectra,
    ball_weights,
    chunks,
    fine_spectrum,
    fourier_ball,
    phase_ramps,
    sample_spectrum,
)
from cryodc.ops.fsc import fourier_shell_correlation, resolution_angstrom, shell_frequencies
from cryodc.ops.masks import density_mask
from cryodc.ops.reconstruct import accumulate, volume_from_ball
from cryodc.ops.symmetry import find_axes, symmetrise
from cryodc.particles import ParticleSet, Poses
from cryodc.volumes import Volume
from cryodc.workflow import load_run_dataset, load_run_particles

FOUND_AXES = 0.75
"""Correlation of a map with its mates from which the axes of a point group count as found."""

MIN_PARTICLES_TO_ALIGN = 8
"""Below this a class is averaged as it stands and marked as not aligned."""


@dataclass(frozen=True)
class HalfMaps:
    """An average, its two halves, and how well they agree.

    Parameters
    ----------
    average
        ``(d, h, w)``: of every particle, Wiener-filtered by the FSC.
    halves
        ``(2, d, h, w)``: of each half set, unfiltered.
    mask
        ``(d, h, w)``: soft, what the FSC is computed within.
    fsc
        Between the halves.
    score
        Mean correlation of a particle with the half map it is not in, where its weight measures, to the resolution.
    """

    average: Float[Tensor, "d h w"]
    halves: Float[Tensor, "2 d h w"]
    mask: Float[Tensor, "d h w"]
    fsc: Float[NDArray[np.float64], " shells"]
    score: float


@dataclass(frozen=True)
class ClassAverage:
    """What ``summary.json`` says of one class; see docs/alignment.md."""

    class_number: int
    n_particles: int
    resolution_angstrom: float | None
    aligned: bool
    score: float
    note: str


@dataclass(frozen=True)
class _Placed:
    """Poses of a class: final, and those that each half set found without the other."""

    rotations: Tensor
    origins_voxels: Tensor
    independent: tuple[Tensor, Tensor]
    half_sets: NDArray[np.int64]
    aligned: bool
    note: str


@torch.no_grad()
def average_particles(
    volumes: Float[Tensor, "n d h w"],
    weights: Float[Tensor, "m d h hw"],
    weight_index: Int[Tensor, " n"],
    rotations: Float[Tensor, "n 3 3"],
    origins_voxels: Float[Tensor, "n 3"],
    half_sets: Int[NDArray[np.int64], " n"],
    independent: tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]] | None = None,
    symmetry: str = "C1",
) -> HalfMaps:
    """Average particles in given poses, and in two halves.

    Half maps are regularised by one average particle in each shell. The average is Wiener-filtered by the
    signal-to-noise their FSC shows: ``r = mean(Σ H²) · (1 − FSC) / (2 FSC)`` in each shell.

    Parameters
    ----------
    volumes
        ``(n, d, h, w)``.
    weights, weight_index
        ``(m, d, h, w // 2 + 1)`` transfers, and which of them each particle has.
    rotations, origins_voxels
        Poses as in :class:`cryodc.particles.Poses`, origins in voxels.
    half_sets
        ``(n,)`` 1 or 2.
    independent
        Rotations and origins for the half maps, where they differ.
    symmetry
        Point group imposed on every map; poses must have its axes where :func:`symmetry_rotations` has them.
    """
    box_size = volumes.shape[-1]
    ball = fourier_ball(box_size, box_size / 2, volumes.device)
    first_turn, first_move = independent or (rotations, origins_voxels)
    sums = []
    for half in (1, 2):
        rows = torch.from_numpy(np.flatnonzero(half_sets == half)).to(volumes.device)
        half_sums = accumulate(volumes[rows], weights, weight_index[rows], first_turn[rows], first_move[rows], ball)
        sums.append(symmetrise(*half_sums, ball, symmetry))
    used = weights[torch.unique(weight_index)]
    one = ball.shell_mean(ball_weights(used, ball).square().mean(dim=0))[ball.shells].clamp_min(1e-9)
    halves = torch.stack([volume_from_ball(top / (bottom + one), ball) for top, bottom in sums])
    mask = density_mask(halves.mean(dim=0))
    fsc = fourier_shell_correlation(halves[0] * mask, halves[1] * mask)
    if independent is None:
        top, bottom = sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]
    else:
        whole = accumulate(volumes, weights, weight_index, rotations, origins_voxels, ball)
        top, bottom = symmetrise(*whole, ball, symmetry)
    known = torch.from_numpy(fsc).float().to(volumes.device).clamp(0.02, 0.99)
    damping = ball.shell_mean(bottom)[ball.shells] * ((1 - known) / (2 * known))[ball.shells.clamp_max(len(fsc) - 1)]
    average = volume_from_ball(top / (bottom + damping + 1e-3 * one), ball)
    below = np.flatnonzero(fsc[1:] < 0.143)
    finest = float(max(3, below[0] if len(below) else box_size // 2 - 1))
    score = _mean_correlation(
        volumes, weights, weight_index, (first_turn, first_move), half_sets, halves * mask, ball.within(finest)
    )
    return HalfMaps(average, halves, mask, fsc, score)


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
        Before that, sort particles anew: the clusters are only where :mod:`cryodc.classify` starts.
    n_rounds, junk
        As :func:`cryodc.classify.classify_particles` takes them.
    symmetries
        Point group by class number; under None, of all others. Where poses are aligned from nothing, the axes are
        looked for in the average first, and nothing is imposed where they are not found.
    progress
        Told what is being done, a line at a time.

    Raises
    ------
    InputError
        If the run is not clustered, its clusters are of other particles, a symmetry is of no class, or there is no
        such device.
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
    unknown = [number for number in symmetries or {} if number is not None and number > clusters.n_clusters]
    if unknown and not classify:
        raise InputError(
            "a symmetry is given for a class that is not there",
            expected=f"classes 1 to {clusters.n_clusters}",
            found=str(unknown[0]),
        )
    dataset = load_run_dataset(run, particles)
    # A pack may be coarser than the images.
    spacing, box_size = dataset.particles.spacing_angstrom, dataset.particles.box_size
    use_star = particles.poses is not None and not ignore_poses
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
            device=where,
            progress=_prefixed(progress, "classification"),
        )
    for stale in (*run.averages.glob("class*.mrc"), run.averages / "assignments.csv"):
        stale.unlink(missing_ok=True)
    run.averages.mkdir(parents=True, exist_ok=True)
    if final is not None:
        write_assignments(run, final, clusters)
        clusters = final.clusters
    results: list[ClassAverage] = []
    table = ["class,shell,frequency_inverse_angstrom,fsc"]
    for label in range(clusters.n_clusters):
        rows = np.flatnonzero(clusters.labels == label)
        number = label + 1
        tell = _prefixed(progress, f"class {number} of {clusters.n_clusters}, {len(rows)} particles")
        volumes, weights, local = (tensor.to(where) for tensor in dataset.gather(torch.from_numpy(rows)))
        given = _given(poses[rows], spacing, where)
        wanted = None if particles.half_sets is None else half_sets[rows]
        start = None if final is None else final.starts[label]
        placed = _place(volumes, weights, local, given, wanted, use_star, seed + label, n_starts, start, tell)
        half_sets[rows] = placed.half_sets
        wished = symmetry_of(number, symmetries)
        placed, symmetry = _on_axes((volumes, weights, local), placed, wished, use_star)
        maps = average_particles(
            volumes,
            weights,
            local,
            placed.rotations,
            placed.origins_voxels,
            placed.half_sets,
            placed.independent,
            symmetry,
        )
        rotations[rows] = placed.rotations.double().cpu().numpy()
        origins[rows] = placed.origins_voxels.double().cpu().numpy() * spacing
        results.append(_summarise(number, maps, placed, spacing))
        _write_maps(run, number, maps, spacing)
        frequencies = shell_frequencies(box_size, spacing)
        table += [f"{number},{s},{frequencies[s]:.6f},{maps.fsc[s]:.6f}" for s in range(len(maps.fsc))]
        tell(results[-1].note)
    write_text(run.averages / "fsc.csv", "\n".join(table) + "\n")
    _write_star(run, clusters, particles, None if use_star else Poses(rotations, origins), half_sets)
    summary = _summary(results, use_star, particles.half_sets is not None, seed)
    if classify:
        failed = {"verdict": "no cluster could be aligned: classes are the clusters"}
        summary["classification"] = failed if final is None else final.summary
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
    start: Tensor | None,
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
    small, small_weights = shrink(volumes, weights)
    found = align_class(
        small,
        small_weights,
        weight_index,
        seed=seed,
        n_starts=n_starts,
        half_sets=halves,
        start=start,
        progress=tell,
    )
    scale = volumes.shape[-1] / small.shape[-1]
    note += (
        ("aligned from nothing" if start is None else "aligned from the classification's map")
        if found.aligned
        else f"halves aligned independently do not agree (FSC {found.evidence:.2f} beyond their common start)"
    )
    turn, move = found.independent
    return _Placed(
        found.rotations, found.origins_voxels * scale, (turn, move * scale), found.half_sets, found.aligned, note
    )


def _on_axes(
    inputs: tuple[Tensor, Tensor, Tensor], placed: _Placed, symmetry: str, use_star: bool
) -> tuple[_Placed, str]:
    """Poses whose reference has its axes in the group's place, and the group; C1 where no such axes are found."""
    if symmetry == "C1" or use_star or not placed.aligned:
        return placed, symmetry if use_star else "C1"
    poses = (placed.rotations, placed.origins_voxels)
    maps = average_particles(*inputs, *poses, placed.half_sets, placed.independent)
    below = np.flatnonzero(maps.fsc[1:] < 0.5)
    radius = float(max(5, below[0] if len(below) else len(maps.fsc) - 2))
    turn, move, agreement = find_axes(maps.average * maps.mask, symmetry, radius)
    if agreement < FOUND_AXES:
        note = f"; no {symmetry} axes found (correlation {agreement:.2f}): not imposed"
        return replace(placed, note=placed.note + note), "C1"
    turn, move = turn.to(poses[0].device), move.to(poses[0].device)
    (rotations, origins), independent = ((r @ turn, o - r @ move) for r, o in (poses, placed.independent))
    note = f"{placed.note}; {symmetry} imposed (correlation {agreement:.2f})"
    return _Placed(rotations, origins, independent, placed.half_sets, placed.aligned, note), symmetry


def symmetry_of(number: int, symmetries: Mapping[int | None, str] | None) -> str:
    """The point group of a class."""
    given = symmetries or {}
    return given.get(number, given.get(None, "C1")).upper()


def _given(poses: Poses, spacing_angstrom: float, device: torch.device) -> tuple[Tensor, Tensor]:
    rotations = torch.from_numpy(poses.rotations).float().to(device)
    return rotations, torch.from_numpy(poses.origins_angstrom / spacing_angstrom).float().to(device)


def _mean_correlation(
    volumes: Tensor,
    weights: Tensor,
    weight_index: Tensor,
    poses: tuple[Tensor, Tensor],
    half_sets: NDArray[np.int64],
    halves: Tensor,
    ball: FourierBall,
) -> float:
    transfer = ball_weights(weights, ball)
    total = 0.0
    for half in (1, 2):
        rows = torch.from_numpy(np.flatnonzero(half_sets == half)).to(volumes.device)
        fine = fine_spectrum(halves[2 - half][None])
        for c in chunks(len(rows), max(1, 400_000 // len(ball))):
            part = rows[c]
            points = (ball.frequencies @ poses[0][part]).reshape(1, -1, 3)
            values = sample_spectrum(fine, points)[0].reshape(2, len(part), len(ball))
            model = torch.complex(values[0], values[1]) * transfer[weight_index[part]]
            model = model * phase_ramps(ball, poses[1][part])
            measured = (transfer[weight_index[part]].abs() > 1e-3).float()
            spectra = ball_spectra(volumes[part], ball) * measured
            norm = (model.abs().square().sum(dim=1) * spectra.abs().square().sum(dim=1)).sqrt().clamp_min(1e-20)
            total += float(((spectra * model.conj()).real.sum(dim=1) / norm).sum())
    return total / len(volumes)


def _summarise(number: int, maps: HalfMaps, placed: _Placed, spacing_angstrom: float) -> ClassAverage:
    resolution = resolution_angstrom(maps.fsc, spacing_angstrom)
    # Shells that two noise averages share by chance are no resolution.
    known = placed.aligned and math.isfinite(resolution)
    return ClassAverage(
        number,
        len(placed.half_sets),
        round(resolution, 2) if known else None,
        placed.aligned,
        round(maps.score, 4),
        placed.note,
    )


def _write_maps(run: RunFolder, number: int, maps: HalfMaps, spacing_angstrom: float) -> None:
    named = {"": maps.average, "_half1": maps.halves[0], "_half2": maps.halves[1], "_mask": maps.mask}
    for suffix, voxels in named.items():
        volume = Volume(voxels.cpu().numpy().astype(np.float32), spacing_angstrom)
        write_volume(run.averages / f"class{number:03d}{suffix}.mrc", volume)


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


def _summary(results: list[ClassAverage], use_star: bool, star_halves: bool, seed: int) -> dict[str, object]:
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
        "classes": [
            {
                "class": result.class_number,
                "n_particles": result.n_particles,
                "resolution_angstrom": result.resolution_angstrom,
                "aligned": result.aligned,
                "score": result.score,
                "note": result.note,
            }
            for result in results
        ],
    }


def _prefixed(progress: Callable[[str], None] | None, prefix: str) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if progress is not None:
            progress(f"{prefix}: {text}")

    return tell
