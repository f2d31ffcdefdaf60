"""Everything a particle STAR says and everything wrong with it: one path for reading and for checking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.geometry import matrices_from_euler
from cryodc.io import ImageFinder, ImageReference, Problem, resolve_images
from cryodc.particles.grids import check_files, odd_box, stated_grids
from cryodc.particles.names import name_label, repeated_images, repeated_names, unwritable_names
from cryodc.particles.table import ParticleSet, Poses
from cryodc.star import (
    OpticsGroup,
    StarBlock,
    StarDocument,
    describe_layout,
    half_sets_of,
    particle_block,
    read_numbers,
    read_optics,
    read_star,
    spacing_of_old_layout,
    without_collection,
)

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGINS = {unit: tuple(f"rlnOrigin{axis}{unit}" for axis in "ZYX") for unit in ("Angst", "")}
_READ = (
    "rlnImageName", "rlnCtfImage", "rlnTomoName", "rlnMicrographName", "rlnTomoParticleName", "rlnOpticsGroup",
    "rlnRandomSubset", "rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification",
    *_ANGLES, *_ORIGINS["Angst"], *_ORIGINS[""],
)  # fmt: skip
_NO_FILE = ("", "none", "null")


@dataclass(frozen=True)
class Inspection:
    """A particle STAR as found.

    Parameters
    ----------
    document, layout
        The text, and the program generation it comes from.
    optics_groups
        Those that particles use.
    n_particles, box_size, spacing_angstrom
        None where neither the STAR nor the headers say.
    tomograms, poses, half_sets, has_weights
        Of every row, whether or not its files can be read.
    readable
        The particles no fault keeps from being read; None where there are none, or box or spacing is unknown.
    flat
        Positions in ``readable`` whose header states one grey value, or none that is a number.
    weight_shapes
        How many weight files have each shape.
    found_in
        How many images were found in which folder.
    notes
        What was noticed and is no fault.
    problems
        Every fault, in the order of its row.
    """

    document: StarDocument
    layout: str
    optics_groups: tuple[OpticsGroup, ...]
    n_particles: int
    box_size: int | None
    spacing_angstrom: float | None
    tomograms: tuple[str, ...]
    poses: Poses | None
    half_sets: Int[NDArray[np.int64], " n"] | None
    has_weights: bool
    readable: ParticleSet | None
    flat: tuple[int, ...]
    weight_shapes: Mapping[tuple[int, int, int], int]
    found_in: Mapping[str, int]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def particles(self) -> ParticleSet | None:
        """The whole particle set, or None where there is any problem."""
        return None if self.problems else self.readable


@without_collection()
def inspect_particles(
    path: Path, data_dir: Path | None = None, check_images: bool = True, finder: ImageFinder | None = None
) -> Inspection:
    """Read a particle STAR and, with ``check_images``, the header of every file it names.

    Parameters
    ----------
    path, data_dir, check_images
        As :func:`cryodc.particles.read_particles` takes them.
    finder
        Where images are looked for, instead of beside the STAR.

    Raises
    ------
    InputError
        If it is no particle STAR or its metadata contradict themselves: nothing beyond that can be checked.
    """
    document = read_star(path)
    block = particle_block(document)
    cells = block.columns([label for label in _READ if label in block])
    notes: list[str] = []
    groups = read_optics(document, block, cells)
    stated = stated_grids(document, block, groups)
    if stated.spacing_angstrom is None:
        stated = replace(stated, spacing_angstrom=spacing_of_old_layout(document, block, cells))
    if stated.of_rows is not None:
        notes.append(stated.describe())
    rows = block.line_numbers.astype(np.int64)
    row_list: list[int] = rows.tolist()
    label = name_label(cells)
    names = cells[label]
    if label == "rlnImageName" and "rlnTomoParticleName" in cells:
        notes.append("rlnTomoParticleName repeats with other images, as in joined jobs: rlnImageName names particles")
    named = [label, "rlnImageName", "rlnTomoName" if "rlnTomoName" in cells else "rlnMicrographName"]
    problems = repeated_names(path, names, row_list)
    problems += unwritable_names(path, {name: cells[name] for name in named if name in cells}, row_list)

    finder = finder or ImageFinder.beside(path, data_dir)
    images, missing = resolve_images(finder, cells["rlnImageName"], row_list, path, check_images, "image")
    found_in = dict(finder.found_in)
    problems += missing
    problems += repeated_images(path, names, images, row_list)
    weights, missing = _resolve_weights(finder, cells, row_list, path, check_images)
    problems += missing
    box, spacing = None if stated.box_size is None else round(stated.box_size), stated.spacing_angstrom
    if box is not None and box % 2:
        raise odd_box(document, groups[0].row if groups else None, box)
    shapes: Mapping[tuple[int, int, int], int] = {}
    flat: list[int] = []
    if check_images:
        headers = check_files(images, weights, row_list, stated)
        box, spacing, flat, shapes = headers.box_size, headers.spacing_angstrom, headers.flat, headers.weight_shapes
        problems += headers.problems
        if headers.n_spacing_unset:
            notes.append(f"{headers.n_spacing_unset} image headers state no voxel spacing: the STAR's is used")
        if spacing is None and box is not None:
            problems.append(Problem(None, _no_spacing(path)))
    problems.sort(key=lambda problem: problem.row or 0)
    pixels = np.array([grid.spacing_angstrom for grid in stated.of_rows]) if stated.of_rows else spacing or 1.0
    poses = _read_poses(document, block, cells, pixels, notes)
    half_sets = _read_half_sets(cells, notes)
    tomograms = tuple(cells.get("rlnTomoName", cells.get("rlnMicrographName", [""] * len(names))))
    unreadable = {problem.row for problem in problems if problem.unreadable and problem.row is not None}
    keep = [i for i, row in enumerate(row_list) if row not in unreadable]
    readable = None
    if keep and ((box and spacing) or not check_images):
        kept = np.array(keep)
        readable = ParticleSet(
            source=path,
            names=tuple(names[i] for i in keep),
            rows=rows[kept],
            images=tuple(images[i] for i in keep),
            weight_images=None if weights is None else tuple(weights[i] for i in keep),
            tomograms=tuple(tomograms[i] for i in keep),
            box_size=box or 0,
            spacing_angstrom=spacing or 0.0,
            poses=None if poses is None else poses[kept],
            half_sets=None if half_sets is None else half_sets[kept],
            grids=None if stated.of_rows is None else tuple(stated.of_rows[i] for i in keep),
        )
    return Inspection(
        document=document,
        layout=describe_layout(document),
        optics_groups=groups,
        n_particles=len(names),
        box_size=box,
        spacing_angstrom=spacing,
        tomograms=tomograms,
        poses=poses,
        half_sets=half_sets,
        has_weights=weights is not None,
        readable=readable,
        flat=tuple(np.flatnonzero(np.isin(keep, flat)).tolist()),
        weight_shapes=shapes,
        found_in=found_in,
        notes=tuple(notes),
        problems=tuple(problems),
    )


def raise_first(inspection: Inspection) -> None:
    """Raise the first problem, saying which other rows have the same one and how many others there are.

    Raises
    ------
    InputError
        If there is any problem.
    """
    if not inspection.problems:
        return
    source = inspection.document.source
    first = inspection.problems[0]
    same = [p for p in inspection.problems if p.error.problem == first.error.problem]
    found = first.error.found
    if first.row is not None and first.error.file != source:
        found = f"{found}, " if found else ""
        found += f"in line {first.row} of {source}"
    if len(same) > 1:
        listed = ", ".join(str(p.row) for p in same[1:5])
        more = f" and {len(same) - 5} more" if len(same) > 5 else ""
        found = f"{found or 'this'}; the same in line{'s' if len(same) > 2 else ''} {listed}{more}"
    n_others = len(inspection.problems) - len(same)
    remedy = first.error.remedy
    if n_others:
        remedy = f"{remedy}; " if remedy else ""
        remedy += f"`cryodc check {source}` lists {n_others} other problems too"
    raise InputError(
        first.error.problem,
        file=first.error.file,
        row=first.error.row,
        expected=first.error.expected,
        found=found,
        remedy=remedy,
    )


def _resolve_weights(
    finder: ImageFinder, cells: Mapping[str, Sequence[str]], rows: list[int], path: Path, check_images: bool
) -> tuple[list[ImageReference] | None, list[Problem]]:
    names = cells.get("rlnCtfImage")
    if names is None:
        return None, []
    absent = [row for name, row in zip(names, rows, strict=True) if name.lower() in _NO_FILE]
    if len(absent) == len(rows):
        return None, []
    if absent:
        raise InputError(
            "some particles have no weight volume and some have one",
            file=path,
            row=absent[0],
            expected="rlnCtfImage in every row, or in none",
            found=f"{len(absent)} of {len(rows)} rows without one",
            remedy="name the missing ones, or remove the column and give --tilt-range",
        )
    return resolve_images(finder, names, rows, path, check_images, "weight (rlnCtfImage)")


def _read_poses(
    document: StarDocument,
    block: StarBlock,
    cells: Mapping[str, Sequence[str]],
    pixels_angstrom: Float[NDArray[np.float64], " n"] | float,
    notes: list[str],
) -> Poses | None:
    present = [label for label in _ANGLES if label in cells]
    if len(present) < len(_ANGLES):
        if present:
            notes.append(f"{', '.join(present)} without the other angles: poses count as unknown")
        return None
    angles = np.stack([read_numbers(document, block, label, cells[label]) for label in _ANGLES], axis=1)
    if len(angles) > 1 and not angles.any():
        notes.append("every angle is 0: if the poses are unknown, average with --ignore-poses")
    unit = "Angst" if any(label in cells for label in _ORIGINS["Angst"]) else ""
    scale = 1.0 if unit else pixels_angstrom
    origins = np.zeros((len(angles), 3))
    for axis, label in enumerate(_ORIGINS[unit]):
        if label in cells:
            origins[:, axis] = scale * read_numbers(document, block, label, cells[label])
    return Poses(matrices_from_euler(angles), origins)


def _read_half_sets(cells: Mapping[str, Sequence[str]], notes: list[str]) -> Int[NDArray[np.int64], " n"] | None:
    texts = cells.get("rlnRandomSubset")
    if texts is None:
        return None
    half_sets, others = half_sets_of(texts)
    if half_sets is None:
        notes.append(f"rlnRandomSubset holds {others} where 1 or 2 is expected: half sets count as unknown")
    return half_sets


def _no_spacing(path: Path) -> InputError:
    return InputError(
        "the voxel spacing is not known",
        file=path,
        expected="rlnImagePixelSize in data_optics, rlnPixelSize, or a voxel size in the MRC headers",
        found="none of them",
        remedy="add rlnImagePixelSize to data_optics",
    )
