"""Export a run to RELION, Warp and M, Dynamo or ChimeraX: particles with poses, and the maps beside them."""

import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryodc.dry_run import Forecast, declare
from cryodc.errors import InputError
from cryodc.export.placements import Placements, load_placements
from cryodc.export.programs import read_copick_config, write_copick, write_scenes
from cryodc.geometry import euler_from_matrices
from cryodc.io import atomic_path, new_folder, read_header, require_empty, tomogram_stem, write_text
from cryodc.picks import Picks, PickText, dynamo_table, tomogram_numbers_table
from cryodc.runs import NAME_LABEL, NO_NAME, RunFolder, current_names, given_summary, write_summary
from cryodc.star import StarDocument, number_texts, particle_block, read_star, star_table, write_star

Program = Literal["relion", "warp", "dynamo", "chimerax"]
_MAPS = ("", "_postprocess", "_half1", "_half2", "_mask")


@dataclass(frozen=True)
class Export:
    """What was written: the files of particles, the maps, how many particles, and what to know."""

    files: tuple[Path, ...]
    maps: tuple[Path, ...]
    n_particles: int
    notes: tuple[str, ...]


def export_run(
    run: RunFolder,
    out: Path,
    programs: Collection[Program],
    *,
    classes: Collection[int] = (),
    tomogram_size_xyz: tuple[int, int, int] | None = None,
    coordinate_spacing_angstrom: float | None = None,
    copick: Path | None = None,
) -> Export:
    """Write particles with their final poses for other programs, and copy the maps of their classes beside them.

    Parameters
    ----------
    run
        An averaged run.
    out
        Folder to make; it may not hold anything. It appears whole, when all is written.
    programs
        ``relion``: rows of averages/particles.star, every other character kept. ``warp``: a STAR for WarpTools and M,
        the origins in the coordinates. ``dynamo``: a table in voxels of the subtomograms. ``chimerax``: scenes.
    classes
        Class numbers; empty exports all, but not the unassigned (class 0), which have no pose.
    tomogram_size_xyz
        Voxels of the subtomograms' spacing; needed by ``warp`` and ``dynamo`` where coordinates count from the centre.
        With it ``chimerax`` counts from the corner too.
    coordinate_spacing_angstrom
        Å per unit of the coordinates, over what the STAR says.
    copick
        The config of a copick project, to write the classes as its picks.

    Raises
    ------
    InputError
        If ``out`` is not empty, there are no averages, a class is not there, or positions cannot be converted.
    """
    require_empty(out)
    if copick is not None:
        read_copick_config(copick)
    placements = load_placements(run, coordinate_spacing_angstrom)
    keep = np.flatnonzero(placements.of_classes(classes))
    notes = [] if not placements.n_unassigned else [f"{placements.n_unassigned} unassigned particles are left out"]
    if copick is not None or not {"warp", "dynamo", "chimerax"}.isdisjoint(programs):
        notes.append(f"coordinates of your STAR were read as {placements.coordinates}")
    texts: dict[str, str] = {}
    if "warp" in programs:
        texts["warp.star"], told = _warp(placements, keep, tomogram_size_xyz)
        notes += told
    if "dynamo" in programs:
        table = _dynamo(placements, keep, tomogram_size_xyz)
        texts["dynamo.tbl"] = table.text
        if table.tomogram_numbers:
            texts["dynamo.tomograms.csv"] = tomogram_numbers_table(table.tomogram_numbers)
        notes += table.notes
    files = []
    n_bytes = 4.0 * len(_MAPS) * len(set(placements.classes[keep].tolist())) * placements.box_size**3
    declare(Forecast(out, f"{len(keep)} particles and the maps of their classes", n_bytes, n_bytes + 500 * len(keep)))
    with new_folder(out) as folder:
        if "relion" in programs:
            write_star(_with_names(run, placements, keep), folder / "particles.star")
            files.append("particles.star")
            notes.append("particles.star names images as your STAR does: start RELION where those names are found")
        for name, text in texts.items():
            write_text(folder / name, text)
            files.append(name)
        if "chimerax" in programs:
            scenes, told = write_scenes(folder, run, placements, keep, tomogram_size_xyz)
            files += scenes
            notes += told
        if copick is not None:
            files += write_copick(folder, out, run, placements, keep, copick, tomogram_size_xyz)
        maps = _copy_maps(run, folder, placements.classes[keep])
        settings = {"programs": sorted(programs), "classes": sorted(classes), "tomogram_size_xyz": tomogram_size_xyz}
        settings["coordinate_spacing_angstrom"] = coordinate_spacing_angstrom
        write_summary(folder, given_summary(run, "export", **settings))
    return Export(tuple(out / name for name in files), tuple(out / name for name in maps), len(keep), tuple(notes))


def _with_names(run: RunFolder, placements: Placements, keep: NDArray[np.int64]) -> StarDocument:
    """The rows, and as cdcName what `cryodc identify` says each class is, if it was asked."""
    document, known = read_star(placements.picks.source), current_names(run)
    block = particle_block(document).name
    if known:
        names = [known.get(number, NO_NAME) for number in placements.classes.tolist()]
        document = document.with_column(block, NAME_LABEL, names)
    return document.with_rows(block, keep)


def _copy_maps(run: RunFolder, folder: Path, classes: NDArray[np.int64]) -> list[str]:
    copied = []
    for number in sorted(set(classes.tolist())):
        for suffix in _MAPS:
            source = run.averages / f"class{number:03d}{suffix}.mrc"
            if source.exists():
                # A map that was cut short must not go out under its name.
                read_header(source)
                with atomic_path(folder / source.name) as temporary:
                    shutil.copyfile(source, temporary)
                copied.append(source.name)
    return copied


def _warp(
    placements: Placements, keep: NDArray[np.int64], size_xyz: tuple[int, int, int] | None
) -> tuple[str, list[str]]:
    picks = placements.picks
    # Where the STAR states one pixel, coordinates stay in it; else they are given voxels of the subtomograms.
    units = np.unique(picks.frame.units(len(picks), placements.image_spacing_angstrom)[keep]).tolist()
    pixel = placements.image_spacing_angstrom if picks.frame.from_centre or len(units) > 1 else units[0]
    voxels = picks.in_voxels(pixel, None if size_xyz is None else size_xyz[::-1], keep)
    series = _tilt_series(picks, keep)
    columns: dict[str, list[str]] = {"rlnMicrographName": [series[picks.tomograms[row]] for row in keep]}
    columns |= {f"rlnCoordinate{axis}": number_texts(voxels[:, 2 - i]) for i, axis in enumerate("XYZ")}
    angles = euler_from_matrices(placements.rotations[keep])
    columns |= {f"rlnAngle{name}": number_texts(angles[:, i]) for i, name in enumerate(("Rot", "Tilt", "Psi"))}
    columns["rlnClassNumber"] = [str(number) for number in placements.classes[keep].tolist()]
    if picks.half_sets is not None:
        columns["rlnRandomSubset"] = [str(half) for half in picks.half_sets[keep].tolist()]
    columns["rlnPixelSize"] = number_texts(np.full(len(keep), pixel))
    note = f"warp.star counts in pixels of {pixel:g} Å: give WarpTools --coords_angpix {pixel:g}"
    return f"\n{star_table('', columns)}\n", [note]


def _tilt_series(picks: Picks, keep: NDArray[np.int64]) -> dict[str, str]:
    """Names of tilt series in Warp; two tomograms cannot have one."""
    series: dict[str, str] = {}
    owners: dict[str, str] = {}
    for row in keep.tolist():
        tomogram = picks.tomograms[row]
        series[tomogram] = _tomostar(tomogram)
        first = owners.setdefault(series[tomogram], tomogram)
        if first != tomogram:
            raise InputError(
                "two tomograms would be one tilt series in Warp, which leaves folders out",
                file=picks.source,
                row=int(picks.rows[row]),
                expected=f"one tomogram for {series[tomogram]}",
                found=f"{first}, {tomogram}",
                remedy="rename one of them, or export each on its own: cryodc select --tomogram",
            )
    return series


def _tomostar(tomogram: str) -> str:
    """Name of a tilt series in Warp, whose reconstructions add the pixel size: TS_01_10.00Apx is TS_01.tomostar."""
    return (re.sub(r"_\d+\.\d+Apx$", "", tomogram_stem(tomogram)) or "tomogram") + ".tomostar"


def _dynamo(placements: Placements, keep: NDArray[np.int64], size_xyz: tuple[int, int, int] | None) -> PickText:
    picks, spacing = placements.picks, placements.image_spacing_angstrom
    offsets = np.zeros((len(picks), 3)) if picks.shifts_angstrom is None else picks.shifts_angstrom
    # Dynamo keeps where a box was cut apart from how far its particle lies off the middle.
    cut = replace(picks, shifts_angstrom=None)
    voxels = cut.in_voxels(spacing, None if size_xyz is None else size_xyz[::-1], keep)
    return dynamo_table(picks.select(keep), voxels, offsets[keep] / spacing)
