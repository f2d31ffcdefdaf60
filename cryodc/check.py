"""Check particles before any training: what the STAR and its files say, and everything wrong with them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.errors import InputError
from cryodc.io.images import Problem
from cryodc.io.inspection import Inspection, inspect_particles
from cryodc.io.mrc import read_volume
from cryodc.io.optics import OpticsGroup
from cryodc.io.weights import LAYOUTS, read_weight, weight_layout
from cryodc.ops.contrast import Contrast, contrast_sign
from cryodc.ops.filters import hermitian_count, shell_radius
from cryodc.ops.wedge import TiltAxis, wedge_from_tilt_range
from cryodc.particles import ParticleSet

_MEASURED = 0.01


@dataclass(frozen=True)
class CheckReport:
    """What was found. A field is None where a problem, or missing information, leaves it unknown.

    Parameters
    ----------
    source, layout
        The STAR, and which program generation wrote it.
    tomograms
        Particles of each.
    weight_layout
        In words; None where the STAR names no weight volumes.
    measured_fraction
        Smallest, mean and largest share of Fourier space (within Nyquist) that a particle's weight measures.
    half_sets
        Particles in half 1 and half 2.
    n_voxels_read
        Particles whose voxels were read; headers are read for all.
    found_in
        Images found in each folder.
    notes, problems
        What was noticed, and every fault.
    """

    source: Path
    layout: str | None = None
    n_particles: int | None = None
    tomograms: Mapping[str, int] | None = None
    optics_groups: tuple[OpticsGroup, ...] = ()
    box_size: int | None = None
    spacing_angstrom: float | None = None
    has_poses: bool | None = None
    half_sets: tuple[int, int] | None = None
    weight_layout: str | None = None
    measured_fraction: tuple[float, float, float] | None = None
    contrast: Contrast | None = None
    n_voxels_read: int = 0
    found_in: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        contrast = self.contrast
        fraction = self.measured_fraction
        return {
            "source": str(self.source),
            "layout": self.layout,
            "n_particles": self.n_particles,
            "tomograms": None if self.tomograms is None else dict(self.tomograms),
            "optics_groups": [vars(group) for group in self.optics_groups],
            "box_size": self.box_size,
            "spacing_angstrom": self.spacing_angstrom,
            "has_poses": self.has_poses,
            "half_sets": None if self.half_sets is None else list(self.half_sets),
            "weight_layout": self.weight_layout,
            "measured_fraction": None if fraction is None else dict(zip(("min", "mean", "max"), fraction, strict=True)),
            "contrast": None if contrast is None else vars(contrast),
            "n_voxels_read": self.n_voxels_read,
            "found_in": None if self.found_in is None else dict(self.found_in),
            "notes": list(self.notes),
            "problems": [_problem_as_dict(problem) for problem in self.problems],
        }


def check_particles(
    path: Path,
    data_dir: Path | None = None,
    tilt_range: tuple[float, float] | None = None,
    tilt_axis: TiltAxis = "y",
    n_voxels: int = 200,
) -> CheckReport:
    """Check a particle STAR; faults are collected, not raised.

    Parameters
    ----------
    path, data_dir
        As for :func:`cryodc.io.star.read_particles`.
    tilt_range, tilt_axis
        What training will be given where the STAR names no weight volumes.
    n_voxels
        Read the voxels of at most this many particles, spread evenly over the file.
    """
    try:
        inspection = inspect_particles(path, data_dir)
    except InputError as error:
        return CheckReport(path, problems=(Problem(error.row, error),))
    report = _describe(inspection)
    particles = inspection.particles
    if particles is None:
        return report
    volumes, problems = _read_sample(particles, n_voxels)
    report = replace(
        report,
        contrast=None if volumes is None else contrast_sign(volumes),
        n_voxels_read=0 if volumes is None else len(volumes),
        problems=tuple(problems),
    )
    return _check_weights(report, particles, tilt_range, tilt_axis, n_voxels)


def measured_fraction(transfer: Float[Tensor, "d h hw"]) -> float:
    """Give the share of Fourier voxels within Nyquist whose weight exceeds 1 % of the largest."""
    box = transfer.shape[0]
    counted = hermitian_count(box) * (shell_radius(box) <= box // 2)
    magnitude = transfer.abs()
    return float((counted * (magnitude > _MEASURED * magnitude.max())).sum() / counted.sum())


def _describe(inspection: Inspection) -> CheckReport:
    report = CheckReport(
        inspection.document.source,
        layout=inspection.layout,
        n_particles=inspection.n_particles,
        optics_groups=inspection.optics_groups,
        found_in=inspection.found_in,
        notes=inspection.notes,
        problems=inspection.problems,
    )
    layouts = {
        layout
        for shape in inspection.weight_shapes
        if inspection.box_size and (layout := weight_layout(shape, inspection.box_size))
    }
    report = replace(
        report,
        box_size=inspection.box_size,
        spacing_angstrom=inspection.spacing_angstrom,
        weight_layout=" and ".join(LAYOUTS[layout] for layout in sorted(layouts)) or None,
    )
    particles = inspection.particles
    if particles is None:
        return report
    halves = particles.half_sets
    return replace(
        report,
        tomograms=dict(Counter(particles.tomograms)),
        has_poses=particles.poses is not None,
        half_sets=None if halves is None else (int((halves == 1).sum()), int((halves == 2).sum())),
    )


def _read_sample(particles: ParticleSet, n_voxels: int) -> tuple[Tensor | None, list[Problem]]:
    chosen = np.unique(np.linspace(0, len(particles) - 1, min(n_voxels, len(particles))).round().astype(int))
    volumes: list[Tensor] = []
    problems: list[Problem] = []
    for i in chosen.tolist():
        row = int(particles.rows[i])
        image = particles.images[i]
        try:
            voxels = read_volume(image).voxels
        except InputError as error:
            problems.append(Problem(row, error))
            continue
        if voxels.min() == voxels.max():
            constant = InputError(
                "this particle is constant: it holds no image",
                file=image.path,
                found=f"{voxels.flat[0]:g} in every voxel",
                remedy="write this volume again, or remove its row from the STAR",
            )
            problems.append(Problem(row, constant))
            continue
        volumes.append(torch.from_numpy(voxels))
    return (torch.stack(volumes) if volumes else None), problems


def _check_weights(
    report: CheckReport,
    particles: ParticleSet,
    tilt_range: tuple[float, float] | None,
    tilt_axis: TiltAxis,
    n_weights: int,
) -> CheckReport:
    notes, problems = list(report.notes), list(report.problems)
    fractions: list[float] = []
    if particles.weight_images is not None:
        if tilt_range is not None:
            notes.append("the STAR names weight volumes: --tilt-range is not used")
        first_row = dict(reversed(list(zip(particles.weight_images, particles.rows.tolist(), strict=True))))
        distinct = list(dict.fromkeys(particles.weight_images))
        step = max(1, math.ceil(len(distinct) / max(1, n_weights)))
        for image in distinct[::step]:
            try:
                weight = read_weight(image, particles.box_size)
            except InputError as error:
                problems.append(Problem(first_row[image], error))
                continue
            fractions.append(measured_fraction(torch.from_numpy(weight.transfer)))
    elif tilt_range is not None:
        try:
            wedge = wedge_from_tilt_range(particles.box_size, *tilt_range, tilt_axis)
        except ValueError as error:
            problems.append(Problem(None, InputError(f"the tilt range cannot be used: {error}")))
        else:
            fractions.append(measured_fraction(wedge))
    contrast = report.contrast
    if contrast is not None and contrast.sign == "black":
        notes.append("protein is black: train with --invert")
    return replace(
        report,
        measured_fraction=_summary(fractions),
        notes=tuple(notes),
        problems=tuple(sorted(problems, key=lambda problem: problem.row or 0)),
    )


def _summary(values: Sequence[float]) -> tuple[float, float, float] | None:
    return (min(values), sum(values) / len(values), max(values)) if values else None


def _problem_as_dict(problem: Problem) -> dict[str, Any]:
    error = problem.error
    return {
        "row": problem.row,
        "problem": error.problem,
        "file": None if error.file is None else str(error.file),
        "expected": error.expected,
        "found": error.found,
        "remedy": error.remedy,
    }
