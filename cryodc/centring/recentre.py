"""Recentre subtomograms: move each particle to the middle of its box, and say so in the STAR.

Boxes are moved by whole voxels, and what leaves a box at one side comes in at the other. So nothing is interpolated,
and noise and missing wedge stay as they are. Coordinates go where the particles are. Poses keep their meaning: origins
change by as much as the boxes move, so that coordinates less origins, the positions in the tomogram, stay the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.centring.mass import find_mass
from cryodc.dataset import InputOptions, ParticleReader
from cryodc.dry_run import Forecast, declare, particle_bytes
from cryodc.errors import InputError
from cryodc.io import new_folder, read_volume, require_empty, write_text, write_volume
from cryodc.particles import ParticleSet, read_particles, with_coordinates_moved, with_origins
from cryodc.star import StarDocument, keep_images_found, particle_block, read_star, write_star
from cryodc.volumes import Volume

_DIAMETER_OF_BOX, _FARTHEST_OF_BOX = 0.625, 0.25


@dataclass(frozen=True)
class RecentreRequest:
    """What a user asks of ``cryodc recentre``.

    Parameters
    ----------
    star
        Particles, read-only.
    out
        A folder that does not exist yet, or is empty.
    on
        ``mass``: where the density near the centre lies; ``origins``: where the STAR's poses say.
    diameter_angstrom
        About, of the particles; five eighths of the box by default. Only for ``mass``.
    farthest_angstrom
        Particles that seem to lie farther off stay where they are; a quarter of the box by default. Only for ``mass``.
    input
        Wedge of particles without weight volumes, and contrast. Only for ``mass``.
    data_dir
        Where images are looked for after the current folder and the STAR's.
    """

    star: Path
    out: Path
    on: Literal["mass", "origins"] = "mass"
    diameter_angstrom: float | None = None
    farthest_angstrom: float | None = None
    input: InputOptions = field(default_factory=InputOptions)
    data_dir: Path | None = None


@dataclass(frozen=True)
class Recentred:
    """What was moved.

    Parameters
    ----------
    star
        The STAR that was written.
    found_angstrom
        ``(n, 3)`` zyx: where each particle was found, from the middle of its box.
    moved
        ``(n,)`` whether it was moved from there; others seem to lie too far off.
    """

    star: Path
    found_angstrom: Float[NDArray[np.float64], "n 3"]
    moved: Bool[NDArray[np.bool_], " n"]


def recentre_particles(
    request: RecentreRequest, on_particle: Callable[[int, int], None] = lambda n_done, n_total: None
) -> Recentred:
    """Write recentred/, particles.star and shifts.csv, with every particle in the middle of its box.

    One box is in memory at a time. The folder appears when all of it is written.

    Parameters
    ----------
    request
        What the user asks.
    on_particle
        Called with the number of particles that are done, and of all.

    Raises
    ------
    InputError
        If the STAR or an image is bad, the folder holds anything, or there are no poses to recentre by.
    """
    require_empty(request.out)
    particles, document = read_particles(request.star, request.data_dir), read_star(request.star)
    if request.on == "origins" and particles.poses is None:
        raise InputError(
            "these particles have no poses to be recentred by",
            file=request.star,
            expected="rlnAngleRot, rlnAngleTilt, rlnAnglePsi and the origins beside them",
            found=", ".join(particle_block(document).labels),
            remedy="recentre by mass: leave --on origins out",
        )
    n, box, extent = len(particles), particles.box_size, particles.box_size * particles.spacing_angstrom
    reader = ParticleReader(particles, request.input) if request.on == "mass" else None
    described, size = f"{n} particles of box {box}", particle_bytes(n, box)
    declare(Forecast(request.out, described, size, size, (box,) * 3, {"box": n}, 8))
    star = request.out / "particles.star"
    with new_folder(request.out) as folder:
        if reader is not None:
            diameter = request.diameter_angstrom or _DIAMETER_OF_BOX * extent
            found = _find_masses(reader, diameter, lambda i: on_particle(i, 2 * n))
            moved = np.linalg.norm(found, axis=1) <= (request.farthest_angstrom or _FARTHEST_OF_BOX * extent)
        elif particles.poses is not None:
            found, moved = -particles.poses.origins_angstrom, np.ones(n, dtype=bool)
        shifts = np.zeros((n, 3))
        names = _file_names(particles)
        for i, (image, name) in enumerate(zip(particles.images, names, strict=True)):
            spacing = particles.grid(i).spacing_angstrom
            whole = np.round(found[i] * moved[i] / spacing).astype(int)
            voxels = np.roll(read_volume(image).voxels, tuple(-whole), axis=(0, 1, 2))
            write_volume(folder / name, Volume(voxels, spacing))
            shifts[i] = whole * spacing
            on_particle(n + i + 1, 2 * n)
        write_star(_moved_document(document, particles, shifts, names, request), folder / star.name)
        _write_shifts(folder / "shifts.csv", particles, found, shifts)
    return Recentred(star, found, moved)


def _file_names(particles: ParticleSet) -> list[str]:
    """Those of the images, where no two are alike; in a folder of which no other set has the name."""
    stems = [Path(image.file).name.removesuffix(".gz").removesuffix(".mrc") for image in particles.images]
    if len(set(stems)) < len(stems):
        stems = [f"{number:06d}" for number in range(1, len(stems) + 1)]
    return [f"recentred/{stem}.mrc" for stem in stems]


def _find_masses(
    reader: ParticleReader, diameter_angstrom: float, on_particle: Callable[[int], None]
) -> Float[NDArray[np.float64], "n 3"]:
    """Where every particle lies, Å from the middle of its box; a weight is held while particles of it come."""
    particles, latest = reader.particles, {int(place): i for i, place in enumerate(reader.weight_index)}
    found, weights = np.zeros((len(particles), 3)), dict[int, Tensor]()
    for i, place in enumerate(reader.weight_index.tolist()):
        volumes, new = reader.read(i, i + 1)
        if len(new):
            weights[place] = new[0]
        mass = find_mass(volumes[0], weights[place], diameter_angstrom, particles.spacing_angstrom)
        found[i] = mass * particles.spacing_angstrom
        if latest[place] == i:
            del weights[place]
        on_particle(i + 1)
    return found


def _moved_document(
    document: StarDocument,
    particles: ParticleSet,
    shifts_angstrom: Float[NDArray[np.float64], "n 3"],
    names: list[str],
    request: RecentreRequest,
) -> StarDocument:
    """The STAR of boxes that were moved: weights found from where it lies, coordinates and origins moved along."""
    block = particle_block(document)
    folders = [Path(), request.star.parent, *([] if request.data_dir is None else [request.data_dir])]
    document, _ = keep_images_found(document, block.name, folders, request.out / "particles.star")
    document = with_coordinates_moved(document, shifts_angstrom, particles.spacing_angstrom)
    if particles.poses is not None:
        document = with_origins(document, particles.poses.origins_angstrom + shifts_angstrom, particles)
    return document.with_columns(block.name, {"rlnImageName": names})


def _write_shifts(path: Path, particles: ParticleSet, found: NDArray[np.float64], moved: NDArray[np.float64]) -> None:
    """Where each particle was found, and by how much its box was moved, x, y, z in Å."""
    columns = {
        f"{what}_{axis}": values[:, 2 - i]
        for what, values in (("found", found), ("moved", moved))
        for i, axis in enumerate("xyz")
    }
    table = pd.DataFrame({"name": particles.names} | columns)
    write_text(path, table.to_csv(index=False, float_format="%.3f", lineterminator="\n"))
