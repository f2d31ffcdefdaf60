"""Averages of a run's classes: maps, half maps, FSC, resolution, and poses if the STAR has none."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from cryodc.alignment import START_SHELLS, balanced_halves
from cryodc.averaging.files import CURVE_COLUMNS, ClassAverage, curve_rows, describe_class, write_class
from cryodc.averaging.final_classes import FinalClasses, classify_run, final_classes_of, write_assignments
from cryodc.averaging.place import on_axes, place_class, symmetry_of
from cryodc.averaging.request import AverageInputs, AverageRequest, half_set_statement, plan_average, prepare_average
from cryodc.clustering import content_features
from cryodc.device import by_leader, choose_device, join_team, led, share, sharing, sum_over_team
from cryodc.dry_run import declare
from cryodc.io import replace_folder, write_text
from cryodc.maps import average_particles, class_fractions, fractions_table, judge_class, mask_of, peak_of
from cryodc.particles import Poses, with_classes, with_half_sets, with_poses, with_verdicts
from cryodc.runs import (
    AverageSummary,
    ClassificationSummary,
    Clusters,
    RunFolder,
    identity_of_data,
    load_codes,
    write_summary,
    writing,
)
from cryodc.star import read_star, write_star
from cryodc.unfinished import DoneSteps, key_of, stamp

Tell = Callable[[str], None]
_AT_ONCE = 64


def average_run(
    run: RunFolder, request: AverageRequest | None = None, progress: Tell | None = None
) -> list[ClassAverage]:
    """Average every class of a run and write averages/; align each from nothing if there are no poses.

    What an earlier call wrote is replaced as a whole, in one step, when all is done. Where a call was killed, the next
    with the same request goes on after the class, or the round of sorting, that was done. Processes that ``torchrun``
    started share the particles; the first of them writes.

    Parameters
    ----------
    run
        A clustered run.
    request
        The settings; by default those of :class:`AverageRequest`.
    progress
        Called with a line about each step.

    Raises
    ------
    InputError
        As :func:`cryodc.averaging.request.prepare_average`; or if another process writes into the run, or it cannot
        be written.
    """
    request = request or AverageRequest()
    device = choose_device(request.device)
    with join_team(device) as team, sharing(team), led(lambda: writing(run, "average")):
        progress = progress if team.leads else None
        inputs = prepare_average(run, request)
        declare(plan_average(run, inputs))
        with led(lambda: replace_folder(run.averages, _key(run, inputs))) as folder:
            done = DoneSteps.within(folder, progress)
            final = _classify(run, inputs, done, progress) if inputs.classify else None
            classes = inputs.clusters if final is None else final.clusters
            found = _Averages.begin(inputs, done)
            for label in range(classes.n_clusters):
                tell = _prefixed(progress, f"class {label + 1} of {classes.n_clusters}")
                start = None if final is None else final.starts[label]
                average = partial(_average_class, folder, inputs, found, classes, label, start, tell)
                found.add(np.flatnonzero(classes.labels == label), done.once(f"class{label + 1:03d}", average))
            by_leader(lambda: _write_tables(folder, run, inputs, found, classes, final))
        for begun in run.states.glob(".class*.begun.*") if team.leads else []:
            # States of the averages before, which nobody can go on with.
            shutil.rmtree(begun, ignore_errors=True)
    return found.results


def _key(run: RunFolder, inputs: AverageInputs) -> str:
    masks = [stamp(path) for path in inputs.request.masks.values()]
    # How much is held changes nothing of the result.
    request = replace(inputs.request, memory_bytes=None)
    return key_of(request, inputs.made_of, identity_of_data(run, inputs.particles), masks, inputs.device)


@dataclass
class _Averages:
    """What is known so far: poses, half sets and peaks of every particle; results and fsc.csv lines of the classes."""

    rotations: NDArray[np.float64]
    origins_angstrom: NDArray[np.float64]
    half_sets: NDArray[np.int64]
    peaks: NDArray[np.float64]
    results: list[ClassAverage] = field(default_factory=list)
    curves: list[str] = field(default_factory=lambda: [CURVE_COLUMNS])

    @classmethod
    def begin(cls, inputs: AverageInputs, done: DoneSteps) -> "_Averages":
        """With poses and half sets of the STAR, or none and a random split."""
        n, poses, halves = len(inputs.particles), inputs.particles.poses, inputs.particles.half_sets
        half_sets = np.array(balanced_halves(n, inputs.request.seed) if halves is None else halves)

        def find_peaks(_: DoneSteps) -> dict[str, Tensor]:
            highest, own = torch.zeros(n, dtype=torch.float64), list(share(n, _AT_ONCE))
            batches = inputs.dataset.batches([torch.arange(n)[rows] for rows in own])
            for rows, (volumes, _weights) in zip(own, batches, strict=True):
                highest[rows] = peak_of(volumes).double()
            highest = highest.to(inputs.device)
            sum_over_team(highest)
            return {"peaks": highest}

        peaks = done.once("peaks", find_peaks)["peaks"].numpy()
        if poses is None:
            return cls(np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3)), half_sets, peaks)
        return cls(poses.rotations.copy(), poses.origins_angstrom.copy(), half_sets, peaks)

    def add(self, rows: NDArray[np.int64], known: dict[str, Any]) -> None:
        """What :func:`_average_class` found of a class of these particles."""
        self.rotations[rows], self.origins_angstrom[rows] = known["rotations"].numpy(), known["origins"].numpy()
        self.half_sets[rows] = known["half_sets"].numpy()
        self.results.append(TypeAdapter(ClassAverage).validate_python(known["result"]))
        self.curves += known["curves"]

    def poses(self, rows: NDArray[np.int64], spacing_angstrom: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rotations, and origins in voxels, of some particles."""
        rotations = torch.from_numpy(self.rotations[rows]).float().to(device)
        return rotations, torch.from_numpy(self.origins_angstrom[rows] / spacing_angstrom).float().to(device)


def _classify(run: RunFolder, inputs: AverageInputs, done: DoneSteps, progress: Tell | None) -> FinalClasses | None:
    """Final classes; None if no cluster could be aligned."""
    request, stated = inputs.request, inputs.particles.half_sets
    halves = balanced_halves(len(inputs.particles), request.seed)
    if stated is not None and min((stated == 1).sum(), (stated == 2).sum()) >= min(2, len(stated) // 2):
        halves = stated

    def classify(inner: DoneSteps) -> dict[str, Any]:
        found = classify_run(
            inputs.dataset,
            inputs.clusters,
            np.array(halves),
            seed=request.seed,
            n_starts=request.n_starts,
            n_rounds=request.n_rounds,
            junk=request.junk,
            start_shells=inputs.start_shells,
            device=inputs.device,
            memory_bytes=inputs.memory_bytes,
            most=request.most_sorted,
            points=content_features(load_codes(run).content_points),
            done=inner,
            progress=_prefixed(progress, "classification"),
        )
        return {"found": found}

    found = done.once("classification", classify)["found"]
    return None if found is None else final_classes_of(found, inputs.clusters, inputs.device)


def _average_class(
    folder: Path,
    inputs: AverageInputs,
    found: _Averages,
    classes: Clusters,
    label: int,
    start: Tensor | None,
    progress: Tell,
    done: DoneSteps,
) -> dict[str, Any]:
    """Place and average one class, write its maps, and say what was found.

    Parameters
    ----------
    folder
        Where maps are written.
    inputs, found, classes
        Of all particles.
    label
        0-based.
    start
        Map that its alignment starts from; None to start from nothing.
    progress
        Called with a line about each step.
    done
        Rounds of its alignment.
    """
    request, spacing, use_star = inputs.request, inputs.spacing_angstrom, inputs.use_star
    rows, number = np.flatnonzero(classes.labels == label), label + 1
    tell = _prefixed(progress, f"{len(rows)} particles")
    stack = inputs.dataset.stored(torch.from_numpy(rows), inputs.memory_bytes, inputs.device)
    mask = mask_of(number, inputs.masks)
    mask = None if mask is None else mask.to(inputs.device)
    symmetry = symmetry_of(number, request.symmetries)
    placed = place_class(
        stack,
        found.poses(rows, spacing, inputs.device),
        half_sets=None if inputs.particles.half_sets is None else found.half_sets[rows],
        use_star=use_star,
        seed=request.seed + label,
        n_starts=request.n_starts,
        start=start,
        mask=mask,
        start_shells=inputs.start_shells or START_SHELLS,
        symmetry=symmetry,
        done=done,
        tell=tell,
    )
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
    rotations = placed.rotations.double().cpu().numpy()

    def judge_and_write() -> ClassAverage:
        verdict = judge_class(maps, stack, placed.aligned, placed.note, found.peaks[rows], found.peaks)
        return write_class(folder, number, maps, rotations, spacing, placed.aligned, placed.note, verdict)

    result = by_leader(judge_and_write)
    tell(result.note)
    return {
        "rotations": rotations,
        "origins": placed.origins_voxels.double() * spacing,
        "half_sets": placed.half_sets,
        "result": result,
        "curves": curve_rows(number, maps, spacing),
    }


def _write_tables(
    folder: Path,
    run: RunFolder,
    inputs: AverageInputs,
    found: _Averages,
    classes: Clusters,
    final: FinalClasses | None,
) -> None:
    """Write everything that is of all classes: curves, the STAR, shares, the summary, and assignments."""
    request, particles = inputs.request, inputs.particles
    write_text(folder / "fsc.csv", "\n".join(found.curves) + "\n")
    document = with_classes(read_star(run.particles), [int(label) + 1 for label in classes.labels])
    if not inputs.use_star:
        document = with_poses(document, Poses(found.rotations, found.origins_angstrom), particles)
    if particles.half_sets is None or bool((particles.half_sets != found.half_sets).any()):
        document = with_half_sets(document, found.half_sets)
    document = with_verdicts(document, classes.labels, [result.verdict.kind for result in found.results])
    write_star(document, folder / "particles.star")
    fractions = class_fractions(classes.labels, particles.tomograms, classes.n_clusters, request.seed)
    write_text(folder / "fractions.csv", fractions_table(fractions))
    classification = None
    if final is not None:
        write_assignments(folder, final, inputs.clusters)
        confidence = [round(float(value), 4) for value in classes.confidence]
        classification = ClassificationSummary(**final.summary, labels=classes.labels.tolist(), confidence=confidence)
    elif inputs.classify:
        classification = ClassificationSummary(verdict="no cluster could be aligned: classes are the clusters")
    summary = AverageSummary(
        made_of=inputs.made_of,
        poses="star" if inputs.use_star else "aligned",
        half_sets=half_set_statement(inputs, classes, found.half_sets, inputs.start_shells or START_SHELLS),
        seed=request.seed,
        classes=[describe_class(result, fractions[0]) for result in found.results],
        masks={"all" if number is None else str(number): str(path) for number, path in request.masks.items()},
        classification=classification,
    )
    write_summary(folder, summary)


def _prefixed(progress: Tell | None, prefix: str) -> Tell:
    def tell(text: str) -> None:
        if progress is not None:
            progress(f"{prefix}: {text}")

    return tell
