"""Columns of picks that may be missing or hold no number: tomogram numbers, classes, half sets."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.star import StarBlock, class_numbers, half_sets_of, numbers_of


def no_picks(file: Path | str, row: int | None = None) -> InputError:
    """The error for a file that holds none."""
    return InputError(
        "the file holds no picks",
        file=file,
        row=row,
        expected="at least one pick",
        remedy="give the file that picking, or the last round of refinement, wrote",
    )


def read_classes(block: StarBlock, label: str) -> tuple[Int[NDArray[np.int64], " n"] | None, tuple[str, ...]]:
    """Read the classes of a STAR, None where it has none; and, in words, what could not be read."""
    if label not in block:
        return None, ()
    return classes_of(numbers_of(block.column(label)), block.line_numbers, label)


def classes_of(
    numbers: Float[NDArray[np.float64], " n"], rows: Int[NDArray[np.int64], " n"], label: str
) -> tuple[Int[NDArray[np.int64], " n"] | None, tuple[str, ...]]:
    """Take numbers as classes, 0 where one is none; and, in words, what could not be taken so.

    Parameters
    ----------
    numbers, rows
        The numbers (NaN where there is none), and their lines in the file.
    label
        What the column is called.
    """
    classes, unread = class_numbers(numbers)
    if not unread.any():
        return classes, ()
    if classes is None:
        return None, (f"{label}, which holds no class numbers",)
    return classes, (f"{label} of {_lines(rows[unread])}, no whole number: class 0",)


def read_half_sets(block: StarBlock, label: str) -> tuple[Int[NDArray[np.int64], " n"] | None, tuple[str, ...]]:
    """Read the half sets of a STAR, None where it has none; and, in words, what could not be read.

    RELION's are 1 and 2, STOPGAP's A and B.
    """
    if label not in block:
        return None, ()
    letters = {"A": "1", "B": "2"}
    texts = block.column(label)
    half_sets, others = half_sets_of([letters.get(text.strip().upper(), text) for text in texts])
    return half_sets, () if half_sets is not None else (f"{label}, which holds {others} beside the two half sets",)


def tomogram_numbers(
    numbers: Float[NDArray[np.float64], " n"], rows: Int[NDArray[np.int64], " n"], source: Path
) -> tuple[str, ...]:
    """Take numbers as the names of tomograms.

    Raises
    ------
    InputError
        If one is no whole number.
    """
    is_whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 1e15)
    bad = np.flatnonzero(~is_whole)
    if len(bad):
        raise InputError(
            "the number of a tomogram is not whole",
            file=source,
            row=int(rows[bad[0]]),
            expected="a whole number",
            found=f"{numbers[bad[0]]:g}",
        )
    return tuple(f"{number:.0f}" for number in numbers)


def _lines(rows: NDArray[np.int64]) -> str:
    first = ", ".join(str(row) for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"line{'s' if len(rows) > 1 else ''} {first}{more}"
