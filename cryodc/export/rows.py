"""Particles of a run that were chosen one by one, as a STAR of their own."""

from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.export.image_paths import write_chosen
from cryodc.runs import RunFolder, current_averages, require
from cryodc.star import particle_block, read_star


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
