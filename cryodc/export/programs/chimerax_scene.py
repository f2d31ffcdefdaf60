"""Scenes of ChimeraX: each class's average at its particles, in Å; and the same particles for its extension ArtiaX."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.export.back_mapping import read_average
from cryodc.export.placements import Placements
from cryodc.figures import class_colour, surface_threshold
from cryodc.geometry import euler_from_matrices
from cryodc.io import file_names, write_text, write_volume
from cryodc.runs import RunFolder
from cryodc.star import number_texts, star_table
from cryodc.volumes import Volume

_MANY = 300


def write_scenes(
    folder: Path,
    run: RunFolder,
    placements: Placements,
    keep: Int[NDArray[np.int64], " k"],
    size_xyz: tuple[int, int, int] | None,
) -> tuple[list[str], list[str]]:
    """Write ``chimerax/``: a scene and an ArtiaX scene of each tomogram, maps, and a STAR of each tomogram and class.

    ``NAME.cxc`` needs ChimeraX alone: it opens a class's map once for every particle, and gives each its place with
    ``view matrix``. ``NAME_artiax.cxc`` attaches the map to the particles of a STAR, whose coordinates are in Å.

    Parameters
    ----------
    folder
        Where ``chimerax/`` is made.
    run
        Whose averages are shown, within their masks.
    placements, keep
        The particles, and which of them are shown.
    size_xyz
        The tomogram in voxels of the subtomograms. Without, positions from its centre stay so.

    Returns
    -------
    Names of the files of each scene, and what to know.
    """
    scenes = folder / "chimerax"
    scenes.mkdir()
    picks = placements.picks
    from_centre = picks.frame.from_centre and size_xyz is None
    if from_centre:
        places = placements.positions_angstrom()
    else:
        spacing = placements.image_spacing_angstrom
        places = picks.in_voxels(spacing, None if size_xyz is None else size_xyz[::-1]) * spacing
    levels, centre = {}, placements.box_size // 2 * placements.spacing_angstrom
    for number in sorted(set(placements.classes[keep].tolist())):
        voxels, spacing = read_average(run, number)
        levels[number] = surface_threshold(voxels)
        write_volume(scenes / f"class{number:03d}.mrc", Volume(voxels, spacing))
    names = file_names(placements.tomograms(), ("_artiax", *(f"_class{number:03d}" for number in levels)))
    written, largest = [], 0
    for tomogram, name in names.items():
        mine = keep[[picks.tomograms[row] == tomogram for row in keep.tolist()]]
        if not len(mine):
            continue
        bare, artiax, largest = ["close session"], ["close session", "artiax start"], max(largest, len(mine))
        first = 1
        for at, number in enumerate(sorted(set(placements.classes[mine].tolist()))):
            rows = mine[placements.classes[mine] == number]
            poses = placements.rotations[rows][:, ::-1, ::-1], places[rows][:, ::-1]
            look = f"style surface step 1 level {levels[number]:.6g} color {class_colour(number)}"
            bare += _copies(f"class{number:03d}", poses[0], poses[1], centre, first, look)
            first += len(rows)
            star = f"{name}_class{number:03d}.star"
            write_text(scenes / star, _artiax_star(tomogram, number, placements.rotations[rows], poses[1]))
            # ArtiaX is model 1, its lists of particles are 1.2.1, 1.2.2, …; the maps come after it.
            artiax += [
                f"open {star} format relion",
                f"open class{number:03d}.mrc id #{at + 2}",
                f"volume #{at + 2} {look}",
                f"artiax attach #{at + 2} toParticleList #1.2.{at + 1}",
                f"artiax show #1.2.{at + 1} surfaces",
            ]
        for ending, lines in (("", bare), ("_artiax", artiax)):
            write_text(scenes / f"{name}{ending}.cxc", "\n".join([*lines, "view"]) + "\n")
            written.append(f"chimerax/{name}{ending}.cxc")
    notes = []
    if from_centre:
        notes.append("chimerax: positions count from the centre of the tomogram, with --tomogram-size from its corner")
    if largest > _MANY:
        notes.append(f"chimerax: a scene opens up to {largest} maps; with the extension ArtiaX, open NAME_artiax.cxc")
    return written, notes


def _copies(
    map_name: str,
    rotations_xyz: Float[NDArray[np.float64], "n 3 3"],
    places_xyz: Float[NDArray[np.float64], "n 3"],
    centre_angstrom: float,
    first: int,
    look: str,
) -> Sequence[str]:
    """Commands that open a map once a particle, and turn it about its centre to where the particle is.

    ChimeraX has the first voxel of a map at 0 Å, so what turns about ``c`` moves by ``p − A c``.
    """
    moved = places_xyz - rotations_xyz.sum(axis=2) * centre_angstrom
    matrices = np.concatenate([rotations_xyz, moved[:, :, None]], axis=2).reshape(-1, 12)
    lines = []
    for model, matrix in enumerate(matrices, start=first):
        lines.append(f"open {map_name}.mrc id #{model} name {map_name}")
        lines.append(f"view matrix models #{model}," + ",".join(f"{value + 0.0:.6f}" for value in matrix))
    return [*lines, f"volume #{first}-{first + len(matrices) - 1} {look}"]


def _artiax_star(
    tomogram: str,
    number: int,
    rotations: Float[NDArray[np.float64], "n 3 3"],
    places_xyz: Float[NDArray[np.float64], "n 3"],
) -> str:
    """ArtiaX takes a unit of the coordinates as 1 Å, and angles as RELION."""
    angles = euler_from_matrices(rotations)
    columns: dict[str, Sequence[str]] = {"rlnMicrographName": [tomogram] * len(places_xyz)}
    columns |= {f"rlnCoordinate{axis}": number_texts(places_xyz[:, i]) for i, axis in enumerate("XYZ")}
    columns |= {f"rlnAngle{axis}": number_texts(angles[:, i]) for i, axis in enumerate(("Rot", "Tilt", "Psi"))}
    columns |= {
        "rlnClassNumber": [str(number)] * len(places_xyz),
        "rlnPixelSize": number_texts(np.ones(len(places_xyz))),
    }
    return f"\n{star_table('particles', columns)}\n"
