"""Averages back in their tomograms: each class's map at the positions and in the poses of its particles.

Where two maps overlap the larger value stands (a maximum): a sum would draw density there that neither class has, and
would count a particle that was picked twice as one of twice the mass. So in every voxel stands one particle, and the
label volume names its class.
"""

import csv
import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, spline_filter

from cryodc.dry_run import Forecast, declare
from cryodc.errors import InputError
from cryodc.export.placements import Placements, load_placements
from cryodc.export.planned_volumes import PlannedTomogram, plan_volume, require_room
from cryodc.figures import surface_threshold
from cryodc.fourier import low_pass
from cryodc.io import (
    Tomogram,
    file_names,
    new_folder,
    read_volume,
    require_empty,
    tomogram_stem,
    write_array,
    write_text,
)
from cryodc.picks import match_tomograms
from cryodc.runs import RunFolder, given_summary, write_summary
from cryodc.volumes import Volume


@dataclass(frozen=True)
class MappedTomogram:
    """What was written of one tomogram, the lines of the STAR that lie outside it, and how many have no class."""

    name: str
    density: Path
    labels: Path
    points: tuple[Path, ...]
    n_placed: int
    outside: tuple[int, ...]
    n_unassigned: int

    def within(self, folder: Path) -> "MappedTomogram":
        """The same, its files in another folder."""
        density, labels, *points = (folder / path.name for path in (self.density, self.labels, *self.points))
        return replace(self, density=density, labels=labels, points=tuple(points))


@dataclass(frozen=True)
class Template:
    """A class's average, ready to be placed.

    Parameters
    ----------
    coefficients
        ``(d, h, w)`` of its cubic spline; 0 outside its mask.
    threshold
        Its surface.
    spacing_angstrom
        Of its voxels.
    """

    coefficients: Float[NDArray[np.float64], "d h w"]
    threshold: float
    spacing_angstrom: float


def map_back(
    run: RunFolder,
    out: Path,
    *,
    tomograms: Sequence[str] = (),
    classes: Collection[int] = (),
    binning: int = 1,
    size_xyz: tuple[int, int, int] | None = None,
    tomogram_file: Path | None = None,
    coordinate_spacing_angstrom: float | None = None,
    on_plan: Callable[[Sequence[PlannedTomogram], str], None] = lambda planned, coordinates: None,
) -> list[MappedTomogram]:
    """Write for each tomogram ``NAME.mrc``, ``NAME_classes.mrc`` and the points of each class.

    Parameters
    ----------
    run
        An averaged run. Classes that could not be aligned are placed like all others; their maps show no protein.
    out
        Folder to make; it may not hold anything.
    tomograms
        Names; empty takes all.
    classes
        Class numbers; empty takes all. Unassigned particles (class 0) have no map and are never placed.
    binning
        Voxels of the output are so many times those of the averages.
    size_xyz
        Voxels of the output. By default as large as the particles need.
    tomogram_file
        A tomogram whose size and spacing are taken; only its particles are placed.
    coordinate_spacing_angstrom
        Å per unit of the coordinates, over what the STAR says.
    on_plan
        Called before anything is written, with what will be written and how coordinates were read.

    Raises
    ------
    InputError
        If ``out`` is not empty, a class or tomogram is not there, positions cannot be converted, or the volumes do
        not fit in memory or on the disk.
    """
    require_empty(out)
    placements = load_placements(run, coordinate_spacing_angstrom)
    of_class = placements.of_classes(classes)
    if placements.picks.frame.from_centre and size_xyz is None and tomogram_file is None:
        raise InputError(
            "these positions count from the centre of the tomogram, whose size is not known",
            file=placements.picks.source,
            remedy="give it: --size X Y Z in voxels of the output, or --tomogram-file",
        )
    spacing, names = placements.spacing_angstrom * binning, placements.tomograms(tomograms)
    members = {name: np.flatnonzero(_is(placements, name)) for name in names}
    if tomogram_file is not None:
        tomogram = Tomogram(tomogram_file)
        spacing, size_xyz = tomogram.spacing_angstrom, (tomogram.shape[2], tomogram.shape[1], tomogram.shape[0])
        mine = match_tomograms(placements.picks, [tomogram_file], skip_others=True)[0]
        members = {tomogram_stem(tomogram_file.name): mine}
    members = {name: rows for name, rows in members.items() if of_class[rows].any()}
    files = file_names(list(members), ("_classes", *(f"_class{number:03d}" for number in set(placements.classes))))
    planned = [
        plan_volume(placements, name, files[name], rows[of_class[rows]], spacing, size_xyz)
        for name, rows in members.items()
    ]
    require_room(planned, out, run)
    on_plan(planned, placements.coordinates)
    n_bytes, voxels = sum(plan.n_bytes for plan in planned), max((math.prod(plan.shape) for plan in planned), default=0)
    box, n_placed = max(8, placements.box_size // binning), int(of_class.sum())
    work, told = {"box": n_placed}, f"{n_placed} positions and the maps of their classes"
    declare(Forecast(out, told, 0, n_bytes, (box,) * 3, work, 3 * voxels / box**3))
    templates = {
        number: load_template(run, number, spacing) for number in sorted(set(placements.classes[of_class].tolist()))
    }
    given = {
        "tomograms": [*tomograms],
        "classes": sorted(classes),
        "binning": binning,
        "size_xyz": size_xyz,
        "tomogram_file": None if tomogram_file is None else str(tomogram_file.resolve()),
        "coordinate_spacing_angstrom": coordinate_spacing_angstrom,
    }
    with new_folder(out) as folder:
        write_summary(folder, given_summary(run, "map-back", **given))
        return [
            replace(
                _map_one(placements, templates, plan, spacing, folder).within(out),
                n_unassigned=int((placements.classes[members[plan.name]] == 0).sum()),
            )
            for plan in planned
        ]


def load_template(run: RunFolder, number: int, spacing_angstrom: float) -> Template:
    """A class's average within its mask, 0 outside, without what voxels of this spacing cannot hold."""
    average, mask = _average_and_mask(run, number)
    return make_template(average, mask.voxels, spacing_angstrom)


def read_average(run: RunFolder, number: int) -> tuple[Float[NDArray[np.float32], "d h w"], float]:
    """A class's average within its mask, 0 outside, and its voxel spacing in Å."""
    average, mask = _average_and_mask(run, number)
    return within_mask(average.voxels, mask.voxels), average.spacing_angstrom


def within_mask(
    voxels: Float[NDArray[np.float32], "d h w"], mask: Float[NDArray[np.float32], "d h w"]
) -> Float[NDArray[np.float32], "d h w"]:
    """What is solvent is 0: outside the mask nothing is drawn."""
    outside = mask < 0.01
    ground = voxels[outside].mean(dtype=np.float64) if outside.any() else 0.0
    return ((voxels - np.float32(ground)) * mask).astype(np.float32)


def make_template(average: Volume, mask: Float[NDArray[np.float32], "d h w"], spacing_angstrom: float) -> Template:
    """As :func:`load_template`, of a map and its mask."""
    voxels = torch.from_numpy(within_mask(average.voxels.astype(np.float32), mask.astype(np.float32)))
    if spacing_angstrom > 1.001 * average.spacing_angstrom:
        voxels = low_pass(voxels, average.box_size / 2 * average.spacing_angstrom / spacing_angstrom)
    array = voxels.numpy()
    return Template(
        spline_filter(array.astype(np.float64), order=3), surface_threshold(array), average.spacing_angstrom
    )


def place(
    density: Float[NDArray[np.float32], "d h w"],
    template: Template,
    rotation: Float[NDArray[np.float64], "3 3"],
    position_voxels: Float[NDArray[np.float64], "3"],
    spacing_angstrom: float,
) -> tuple[tuple[slice, ...], NDArray[np.bool_]] | None:
    """Put one particle into a volume, where it is larger than what is there; changes ``density``.

    A voxel at ``x`` takes the average at ``Aᵀ (x − p) · spacing / average's spacing`` from its centre, by cubic
    splines: positions are not rounded.

    Parameters
    ----------
    density
        The volume, any shape.
    template
        Of the particle's class.
    rotation
        ``A``, zyx, reference → tomogram.
    position_voxels
        ``p``, zyx, 0-based.
    spacing_angstrom
        Of the volume.

    Returns
    -------
    The box, and where in it the particle stands above its surface; None if no voxel of it lies inside.
    """
    edge = len(template.coefficients)
    scale = spacing_angstrom / template.spacing_angstrom
    reach = edge / 2 / scale
    low = np.maximum(0, np.ceil(position_voxels - reach)).astype(int)
    high = np.minimum(density.shape, np.floor(position_voxels + reach).astype(int) + 1)
    if (low >= high).any():
        return None
    matrix = rotation.T * scale
    offset = matrix @ (low - position_voxels) + edge // 2
    found = affine_transform(
        template.coefficients, matrix, offset, output_shape=tuple(high - low), order=3, prefilter=False
    ).astype(np.float32)
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    larger = found > density[box]
    density[box] = np.where(larger, found, density[box])
    return box, larger & (found > template.threshold)


def _average_and_mask(run: RunFolder, number: int) -> tuple[Volume, Volume]:
    stem = f"class{number:03d}"
    return read_volume(run.averages / f"{stem}.mrc"), read_volume(run.averages / f"{stem}_mask.mrc")


def _map_one(
    placements: Placements, templates: Mapping[int, Template], plan: PlannedTomogram, spacing: float, out: Path
) -> MappedTomogram:
    rows, positions, shape, stem = plan.rows, plan.positions, plan.shape, plan.file_name
    density: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)
    labels: NDArray[np.uint16] = np.zeros(shape, dtype=np.uint16)
    inside = ((positions > -0.5) & (positions < np.array(shape) - 0.5)).all(axis=1)
    for row, position in zip(rows[inside], positions[inside], strict=True):
        number = int(placements.classes[row])
        placed = place(density, templates[number], placements.rotations[row], position, spacing)
        if placed is not None:
            box, above = placed
            labels[box][above] = number
    paths = out / f"{stem}.mrc", out / f"{stem}_classes.mrc"
    write_array(paths[0], density, spacing)
    write_array(paths[1], labels.astype(np.float32), spacing)
    points = []
    for number in sorted(set(placements.classes[rows[inside]].tolist())):
        points.append(out / f"{stem}_class{number:03d}.csv")
        write_text(points[-1], _points(positions[inside & (placements.classes[rows] == number)]))
    outside = tuple(placements.picks.rows[rows[~inside]].tolist())
    return MappedTomogram(plan.name, *paths, tuple(points), int(inside.sum()), outside, 0)


def _is(placements: Placements, name: str) -> NDArray[np.bool_]:
    return np.array([tomogram == name for tomogram in placements.picks.tomograms], dtype=bool)


def _points(positions: NDArray[np.float64]) -> str:
    """Points as napari reads them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "axis-0", "axis-1", "axis-2"])
    writer.writerows([i, *(f"{value:.4f}" for value in position)] for i, position in enumerate(positions))
    return text.getvalue()
