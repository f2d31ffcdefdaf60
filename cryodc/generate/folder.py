"""Decoded volumes on disk: ``grid/`` and ``class001/`` … of ``generated/``, and whether they are of today's codes."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.codes import Codes
from cryodc.generate.decode import FIRST_QUANTILE, LAST_QUANTILE, TransferGrid, Traversal
from cryodc.io import write_array, write_text
from cryodc.runs import (
    GridSummary,
    RunFolder,
    TraversalSummary,
    TraversedAxis,
    fingerprint_of_decoded,
    read_summary,
    write_summary,
)


@dataclass(frozen=True)
class TraversalFolder:
    """A traversal as it was written.

    Parameters
    ----------
    class_number
        Of whose members.
    series
        Files along each axis, in order.
    current
        Whether it is of the codes and classes that the run has today.
    """

    class_number: int
    series: tuple[tuple[Path, ...], ...]
    current: bool


def class_folder(folder: Path, class_number: int) -> Path:
    """Where the traversal of a class lies."""
    return folder / f"class{class_number:03d}"


def write_grid(
    folder: Path,
    grid: TransferGrid,
    codes: Codes,
    class_numbers: Sequence[int],
    spacing_angstrom: float,
    described: Mapping[str, Any],
) -> None:
    """Write ``row01_column01.mrc`` …, grid.csv and summary.json.

    Parameters
    ----------
    folder
        The folder of the grid.
    grid, codes
        The decoded volumes, and the codes they are of.
    spacing_angstrom
        Of the volumes.
    class_numbers
        Of each row's particle; 0 for none.
    described
        What else summary.json says.
    """
    lines: list[list[object]] = []
    for i, row in enumerate(grid.rows):
        for j, column in enumerate(grid.columns):
            name = f"row{i + 1:02d}_column{j + 1:02d}.mrc"
            _write_cell(folder / name, grid.cells[i, j], spacing_angstrom)
            lines.append([name, i + 1, j + 1, codes.names[row], codes.names[column], class_numbers[i]])
    head = ["file", "row", "column", "content_of", "transformation_of", "class_of_content"]
    _write_table(folder / "grid.csv", head, lines)
    by_content, by_transformation, rest = grid.shares
    summary = GridSummary(
        content_of=[codes.names[row] for row in grid.rows],
        transformation_of=[codes.names[column] for column in grid.columns],
        variance_by_content=round(by_content, 4),
        variance_by_transformation=round(by_transformation, 4),
        variance_by_both_together=round(rest, 4),
        **described,
    )
    write_summary(folder, summary)


def write_traversal(
    folder: Path, traversal: Traversal, class_number: int, spacing_angstrom: float, described: Mapping[str, Any]
) -> None:
    """Write ``axis1_01.mrc`` …, traversal.csv and summary.json.

    Parameters
    ----------
    folder
        Where the class has its own folder.
    traversal
        The decoded volumes.
    class_number
        rlnClassNumber.
    spacing_angstrom
        Of the volumes.
    described
        What they were decoded from.
    """
    lines: list[list[object]] = []
    for a, axis in enumerate(traversal.axes, start=1):
        quantiles = np.linspace(FIRST_QUANTILE, LAST_QUANTILE, len(axis.positions))
        for step, (cell, position, quantile) in enumerate(zip(axis.cells, axis.positions, quantiles, strict=True), 1):
            name = f"axis{a}_{step:02d}.mrc"
            _write_cell(folder / name, cell, spacing_angstrom)
            lines.append([name, a, step, f"{quantile:.4f}", f"{position:.6f}"])
    _write_table(folder / "traversal.csv", ["file", "axis", "step", "quantile", "position"], lines)
    axes = [
        TraversedAxis(
            variance_share=round(axis.variance_share, 4),
            change=round(axis.change, 4),
            direction=[round(float(value), 6) for value in axis.axis],
        )
        for axis in traversal.axes
    ]
    write_summary(folder, TraversalSummary(class_number=class_number, axes=axes, **described))


def read_traversals(
    run: RunFolder, codes: Codes, labels: Int[NDArray[np.int64], " n"] | None
) -> tuple[TraversalFolder, ...]:
    """Traversals in a run's generated/, those of earlier codes or classes marked.

    Raises
    ------
    InputError
        If a summary.json is damaged.
    """
    found = []
    today = fingerprint_of_decoded(codes, labels)
    for path in sorted(run.generated.glob("class*/summary.json")):
        summary = read_summary(path.parent, TraversalSummary, "cryodc generate")
        numbers = range(1, len(summary.axes) + 1)
        series = tuple(tuple(sorted(path.parent.glob(f"axis{a}_*.mrc"))) for a in numbers)
        current = summary.made_of == today
        found.append(TraversalFolder(summary.class_number, tuple(files for files in series if files), current))
    return tuple(found)


def _write_cell(path: Path, cell: NDArray[np.float32], spacing_angstrom: float) -> None:
    write_array(path, cell if cell.ndim == 3 else cell[None], spacing_angstrom)


def _write_table(path: Path, head: list[str], lines: list[list[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    write_text(path, text.getvalue())
