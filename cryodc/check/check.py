"""Check particles before any training: what the STAR and its files say, and everything wrong with them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cryodc.check.contrast import Contrast, contrast_sign
from cryodc.check.duplicates import check_duplicates, check_pixels
from cryodc.check.poses import check_poses
from cryodc.check.report import CheckReport
from cryodc.check.sample import Sample, draw_sample, read_sample, read_usable
from cryodc.check.wedge import check_wedge
from cryodc.dataset import InputOptions
from cryodc.errors import InputError
from cryodc.io import LAYOUTS, Problem, find_by_name, weight_layout
from cryodc.particles import (
    Inspection,
    ParticleSet,
    Positions,
    has_coordinates,
    inspect_particles,
    read_positions,
)
from cryodc.star import particle_block

DUPLICATE_SHARE = 0.1
"""Of the box edge: what two particles are apart at least, unless a distance is given."""


@dataclass(frozen=True)
class CheckSettings:
    """How to check.

    Parameters
    ----------
    data_dir
        As for :func:`cryodc.particles.read.read_particles`.
    options
        What training will be given: the wedge where the STAR names no weights, and whether to invert.
    n_sample, seed
        Read the voxels of at most this many particles, drawn at random.
    duplicate_distance_angstrom
        Particles of a tomogram nearer than this are pointed out; a tenth of the box edge if None, none if 0.
    """

    data_dir: Path | None = None
    options: InputOptions = field(default_factory=InputOptions)
    n_sample: int = 300
    seed: int = 0
    duplicate_distance_angstrom: float | None = None


def check_particles(star: Path, settings: CheckSettings | None = None) -> CheckReport:
    """Check a particle STAR; faults are collected, not raised.

    What the files say is checked for every row; contrast, wedge and poses on the sample, of particles whose files
    are in order.
    """
    settings = settings or CheckSettings()
    try:
        inspection = inspect_particles(star, settings.data_dir)
    except InputError as error:
        return CheckReport(star, problems=(Problem(error.row, error),))
    report = replace(_describe(inspection), seed=settings.seed)
    particles = inspection.readable
    report, positions = _positions(report, inspection)
    if particles is None:
        return report
    report = _add(report, warnings=_duplicates(inspection, particles, positions, settings))
    chosen = draw_sample(len(particles), settings.n_sample, settings.seed)
    sample = read_sample(particles, chosen, settings.options)
    report = _add(report, problems=[*sample.problems, *_flat_volumes(inspection, particles, chosen.tolist(), settings)])
    report = _add(report, problems=_missing_ranges(particles, settings.options))
    fractions = sample.fractions
    report = replace(
        report,
        n_sampled=len(sample),
        measured_fraction=(min(fractions), float(np.mean(fractions)), max(fractions)) if fractions else None,
    )
    return _measure(report, sample, settings) if len(sample) else report


def _measure(report: CheckReport, sample: Sample, settings: CheckSettings) -> CheckReport:
    contrast = contrast_sign(sample.volumes)
    wedge, problems, warnings = check_wedge(sample)
    poses, pose_problems = check_poses(sample, wedge, settings.seed)
    notes = list(report.notes)
    if sample.particles.weight_images is not None and (settings.options.tilt_range or settings.options.tilt_ranges):
        notes.append("the STAR names weight volumes: --tilt-range is not used")
    report = replace(report, contrast=contrast, wedge=wedge, poses=poses, notes=tuple(notes))
    problems = [*_contrast_problem(contrast, settings.options.invert), *problems, *pose_problems]
    return _add(report, problems=problems, warnings=warnings)


def _add(report: CheckReport, problems: Sequence[Problem] = (), warnings: Sequence[Problem] = ()) -> CheckReport:
    def ordered(*parts: Sequence[Problem]) -> tuple[Problem, ...]:
        return tuple(sorted((problem for part in parts for problem in part), key=lambda problem: problem.row or 0))

    return replace(
        report,
        problems=ordered(report.problems, problems),
        warnings=ordered(report.warnings, warnings),
    )


def _describe(inspection: Inspection) -> CheckReport:
    box, halves = inspection.box_size, inspection.half_sets
    layouts = {layout for shape in inspection.weight_shapes if box and (layout := weight_layout(shape, box))}
    return CheckReport(
        inspection.document.source,
        layout=inspection.layout,
        n_particles=inspection.n_particles,
        tomograms=dict(Counter(inspection.tomograms)),
        optics_groups=inspection.optics_groups,
        box_size=box,
        spacing_angstrom=inspection.spacing_angstrom,
        has_poses=inspection.poses is not None,
        has_weights=inspection.has_weights,
        half_sets=None if halves is None else (int((halves == 1).sum()), int((halves == 2).sum())),
        weight_layout=" and ".join(LAYOUTS[layout] for layout in sorted(layouts)) or None,
        found_in=inspection.found_in,
        notes=inspection.notes,
        problems=inspection.problems,
    )


def _positions(report: CheckReport, inspection: Inspection) -> tuple[CheckReport, Positions | None]:
    """Read where particles lie, and say in which unit and from where."""
    document, block = inspection.document, particle_block(inspection.document)
    try:
        report = _add(report, warnings=check_pixels(document, block))
        if not has_coordinates(block):
            return report, None
        positions = read_positions(document, block)
    except InputError as error:
        return _add(report, warnings=[Problem(error.row, error, unreadable=False)]), None
    return replace(report, coordinates=positions.frame.describe(inspection.spacing_angstrom)), positions


def _duplicates(
    inspection: Inspection, particles: ParticleSet, positions: Positions | None, settings: CheckSettings
) -> list[Problem]:
    distance = settings.duplicate_distance_angstrom
    if distance is None:
        distance = DUPLICATE_SHARE * particles.box_size * particles.spacing_angstrom
    if distance <= 0 or positions is None:
        return []
    block = particle_block(inspection.document)
    kept = positions.angstrom(particles.spacing_angstrom)[np.isin(block.line_numbers, particles.rows)]
    return check_duplicates(particles, kept, distance)


def _flat_volumes(
    inspection: Inspection, particles: ParticleSet, chosen: Sequence[int], settings: CheckSettings
) -> list[Problem]:
    """Read particles beyond the sample whose headers promise no image, unless so many do that headers say nothing."""
    others = sorted(set(inspection.flat) - set(chosen))
    if len(others) > settings.n_sample:
        return []
    return [problem for i in others if isinstance(problem := read_usable(particles, i), Problem)]


def _missing_ranges(particles: ParticleSet, options: InputOptions) -> list[Problem]:
    if particles.weight_images is not None or not options.tilt_ranges or options.tilt_range:
        return []
    missing = sorted(name for name in set(particles.tomograms) if find_by_name(options.tilt_ranges, name) is None)
    if not missing:
        return []
    error = InputError(
        "some tomograms have no tilt range",
        expected="every tomogram in --tilt-ranges, or --tilt-range for the others",
        found=f"none for {', '.join(missing[:5])}" + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
        remedy="add them, or give --tilt-range too",
    )
    return [Problem(None, error)]


def _contrast_problem(contrast: Contrast, invert: bool) -> list[Problem]:
    wrong = {"black": not invert, "white": invert}.get(contrast.sign, False)
    if not wrong:
        return []
    error = InputError(
        "protein is black" if contrast.sign == "black" else "protein is white, and --invert would make it black",
        expected="protein white (positive), or --invert" if contrast.sign == "black" else "no --invert",
        found=f"the middle of the boxes is {'darker' if contrast.sign == 'black' else 'brighter'} than what surrounds "
        f"it by {abs(contrast.score):.1f} standard errors, {contrast.n_particles} particles",
        remedy="train with --invert" if contrast.sign == "black" else "train without --invert",
    )
    return [Problem(None, error)]
