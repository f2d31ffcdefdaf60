"""Where measurements are kept: one table for each set of particles, with one row for each method and seed.

A measurement is nested: what it tells of a factor stands under ``disentanglement`` or ``leakage``. A column of the
table has the path to a value as its name, for example ``disentanglement.protein.content.corrected``.
"""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.command import hardware
from cryodc.io import write_text

Cell = str | int | float
Row = dict[str, Cell]
"""Cells by their column; an empty cell is left out."""

RESULTS = Path(__file__).parent / "results"

_NAMES = ("set", "method")
_NOT_KEPT = {"seeds", "reason", "measure", "n_labels", "chance", "sap", "sap_low", "sap_high", "shuffled_95"}
"""No table and no text shows these; they are printed only."""


def read_results(folder: Path, set_name: str) -> list[Row]:
    """All results of one set, by method and seed; none where no table is."""
    file = _table(folder, set_name)
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as text:
        return [
            {column: cell if column in _NAMES else _read_cell(cell) for column, cell in row.items() if cell}
            for row in csv.DictReader(text)
        ]


def find_result(folder: Path, set_name: str, method: str, seed: int) -> Row | None:
    """The result of a method with a seed, if it was measured."""
    return next((row for row in read_results(folder, set_name) if _key(row) == (method, seed)), None)


def save_result(folder: Path, result: dict[str, Any]) -> None:
    """Keep a measurement in the table of its set, with the hardware it was made on, and print it.

    A row of the same method and seed is replaced. Several benchmarks may write at the same time.

    Parameters
    ----------
    folder
        Of the tables.
    result
        The measurement, with its ``set``, ``method`` and ``seed``.
    """
    result = result | {"hardware": hardware()}
    row = as_row(result)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        others = [kept for kept in read_results(folder, result["set"]) if _key(kept) != _key(row)]
        rows = sorted([*others, row], key=_key)
        columns = list(dict.fromkeys(column for kept in rows for column in kept))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(_table(folder, result["set"]), text.getvalue())
    print(json.dumps(result))


def as_row(result: dict[str, Any]) -> Row:
    """A measurement as a row of the table of its set.

    Examples
    --------
    >>> told = [{"factor": "pose", "content": {"corrected": 0.5, "seeds": [0.4, 0.6]}, "sap": None}]
    >>> as_row({"seed": 3, "disentanglement": told, "auto_counts": {"1bxn": [0, 99]}})
    {'seed': 3, 'disentanglement.pose.content.corrected': 0.5, 'auto_counts.1bxn': '0 99'}
    """
    return dict(_cells("", result))


def _cells(path: str, value: Any) -> Iterator[tuple[str, Cell]]:
    """Columns and cells of what stands at a path."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in _NOT_KEPT:
                yield from _cells(f"{path}.{key}" if path else key, part)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for part in value:
            yield from _cells(f"{path}.{part['factor']}", {key: each for key, each in part.items() if key != "factor"})
    elif isinstance(value, list):
        yield path, " ".join(map(str, value))
    elif value is not None:
        yield path, value


def _read_cell(text: str) -> Cell:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _table(folder: Path, set_name: str) -> Path:
    return folder / f"{set_name}.csv"


def _key(row: Row) -> tuple[str, int]:
    return str(row["method"]), int(row["seed"])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other benchmark writes into the folder meanwhile."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
