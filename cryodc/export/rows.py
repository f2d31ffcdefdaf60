"""Particles of a run that were chosen one by one, as a STAR of their own."""

from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.runs import RunFolder, current_averages, load_config, require
from cryodc.star import StarDocument, keep_images_found, particle_block, read_star, write_star


def write_rows(run: RunFolder, rows: Int[NDArray[np.int64], " k"], out: Path) -> None:
    """Write some rows with the classes the run has now, and with their half sets and poses where it has averages.

    All else of the text stays. Images that would not be found from where ``out`` lies are named relative to it.

    Parameters
    ----------
    run
        A trained run; clustered or not.
    rows
        Of the particles, in the order of the run's STAR.
    out
        The STAR to write; it must not exist.

    Raises
    ------
    InputError
        If ``out`` exists, or no row is chosen.
    """
    if out.exists():
        raise InputError("refusing to overwrite", file=out, remedy="choose another name, or remove this file")
    if len(rows) == 0:
        raise InputError("no particle is chosen", remedy="draw a line round some codes first")
    document = read_star(current_star(run))
    write_chosen(run, document, particle_block(document).name, np.unique(rows), out)


def current_star(run: RunFolder) -> Path:
    """The STAR of all particles that says most: with poses, else with classes, else as it was given."""
    if current_averages(run) is not None:
        return require(run.averages / "particles.star", "cryodc average")
    clustered = run.clusters / "clusters.star"
    return clustered if clustered.exists() else require(run.particles, "cryodc train")


def write_chosen(
    run: RunFolder, document: StarDocument, block_name: str, rows: Int[NDArray[np.int64], " k"], out: Path
) -> int:
    """Write some rows of a run's STAR, with images that are found from where it lies; how many have a new name.

    Parameters
    ----------
    run
        Whose config.yaml says where images are.
    document, block_name
        The STAR, and its block of particles.
    rows
        Those to write, in the order of the STAR.
    out
        The STAR to write.
    """
    folders = [Path(folder) for folder in load_config(run).get("image_folders", [])]
    written, n_renamed = keep_images_found(document.with_rows(block_name, rows), block_name, folders, out)
    write_star(written, out)
    return n_renamed
