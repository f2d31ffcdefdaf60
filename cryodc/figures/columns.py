"""Columns of the STAR by which particles can be coloured, in report and viewer alike."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryodc.particles import name_label
from cryodc.runs import Clusters, RunFolder
from cryodc.star import StarBlock, find_particle_block, read_star

_MOST_GROUPS = 40


@dataclass(frozen=True)
class ColourColumn:
    """A column whose cells differ: numbers, or texts few enough to be told apart by colour.

    Parameters
    ----------
    label
        Of the STAR.
    index
        Its place among the columns, from 0.
    numeric
        Whether every cell is a finite number.
    """

    label: str
    index: int
    numeric: bool


def colour_columns(block: StarBlock) -> list[ColourColumn]:
    """Columns that can colour points: numbers that differ, and texts that are few."""
    columns = []
    for index, label in enumerate(block.labels):
        distinct = set(block.column(label))
        if len(distinct) < 2:
            continue
        try:
            numeric = bool(np.isfinite(np.array(list(distinct), dtype=np.float64)).all())
        except ValueError:
            numeric = False
        if numeric or len(distinct) <= _MOST_GROUPS:
            columns.append(ColourColumn(label, index, numeric))
    return columns


def star_of_now(run: RunFolder, clusters: Clusters | None) -> Path:
    """The run's STAR with the classes of now, and the poses where it has been averaged; in the order of the run."""
    if clusters is None:
        return run.particles
    averaged, clustered = run.averages / "particles.star", run.clusters / "clusters.star"
    if averaged.exists():
        block = find_particle_block(read_star(averaged))
        if block.n_rows == len(clusters.names) and "rlnClassNumber" in block:
            names = block.column(block.labels[name_column(block)])
            numbers = block.column("rlnClassNumber")
            if names == list(clusters.names) and numbers == [str(label + 1) for label in clusters.labels]:
                return averaged
    return clustered


def name_column(block: StarBlock) -> int:
    """Place of the column that names particles."""
    cells = block.columns([label for label in ("rlnTomoParticleName", "rlnImageName") if label in block])
    return block.labels.index(name_label(cells))
