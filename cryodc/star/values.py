"""What the text of a STAR cell says: which spellings are a number, a half set, a class.

A number is written as C writes one: ``1``, ``+1``, ``1.0``, ``2.000000``, ``1e0``. What only Python reads as a number
is none: ``1_000``, digits of other scripts, ``nan``, ``inf``.

:func:`read_numbers` and :func:`read_whole_numbers` read a column that a verb needs. They name the first cell that is no
number. :func:`half_sets_of` and :func:`class_numbers` read a column that may be missing. They say what they could not
read.
"""

import json
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import number_of
from cryodc.star.blocks import StarBlock
from cryodc.star.document import StarDocument

_LARGEST_WHOLE = 2**31 - 1


def whole_number_of(text: str) -> int | None:
    """Give the whole number that a text writes, of 32 bits as in RELION; None where the text is no such number.

    Examples
    --------
    >>> [whole_number_of(text) for text in ("3", "3.0", "-1.000000", "3.5", "")]
    [3, 3, -1, None, None]
    """
    value = number_of(text)
    if value is None or not value.is_integer() or abs(value) > _LARGEST_WHOLE:
        return None
    return int(value)


def numbers_of(texts: Sequence[str]) -> Float[NDArray[np.float64], " n"]:
    """Give the numbers of a column, NaN where a cell is no finite number."""
    joined = "".join(texts)
    if joined.isascii() and "_" not in joined:
        try:
            values = np.array(texts, dtype=np.float64)
        except ValueError:
            pass
        else:
            values[~np.isfinite(values)] = np.nan
            return values
    found = map(number_of, texts)
    return np.array([math.nan if value is None else value for value in found], dtype=np.float64)


def vector_of(text: str) -> list[float] | None:
    """Give the numbers of a cell ``[1,0,2.5]``; None where it holds anything else.

    Examples
    --------
    >>> vector_of("[1,0,2.5]"), vector_of("[1,[2]]"), vector_of("[1e999]")
    ([1.0, 0.0, 2.5], None, None)
    """
    try:
        values = json.loads(text)
        numbers = [float(value) for value in values] if isinstance(values, list) else [math.nan]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def read_numbers(
    document: StarDocument, block: StarBlock, label: str, texts: Sequence[str]
) -> Float[NDArray[np.float64], " n"]:
    """Read a column that is needed as float64.

    Parameters
    ----------
    document, block
        The STAR, and a block of it.
    label
        Of the column.
    texts
        Cells of it; by default all.

    Raises
    ------
    InputError
        At the first cell that is no finite number.
    """
    values = numbers_of(texts)
    _require(~np.isnan(values), document, block, label, texts, "a finite number")
    return values


def read_whole_numbers(document: StarDocument, block: StarBlock, label: str) -> Int[NDArray[np.int64], " n"]:
    """Read a column that is needed as whole numbers.

    Raises
    ------
    InputError
        If there is no such column, or at the first cell that is no whole number.
    """
    if label not in block:
        raise InputError(
            f"there is no column {label}",
            file=document.source,
            row=block.header_line + 1,
            expected=f"{label}, a whole number in every row",
            found="no such column",
        )
    texts = block.column(label)
    values = numbers_of(texts)
    _require(_is_whole(values), document, block, label, texts, "a whole number")
    return values.astype(np.int64)


def half_sets_of(texts: Sequence[str]) -> tuple[Int[NDArray[np.int64], " n"] | None, str]:
    """Read half sets, 1 and 2 in any spelling; where a row is in neither, none, and what is written there.

    Examples
    --------
    >>> half_sets_of(["1.0", "2", "+1"])[0].tolist(), half_sets_of(["1", "0"])
    ([1, 2, 1], (None, '0'))
    """
    values = numbers_of(texts)
    is_half = (values == 1) | (values == 2)
    if is_half.all() and len(values):
        return values.astype(np.int64), ""
    others = sorted({text for text, known in zip(texts, is_half, strict=True) if not known})
    return None, ", ".join(other or '""' for other in others[:3])


def class_numbers(
    numbers: Float[NDArray[np.float64], " n"],
) -> tuple[Int[NDArray[np.int64], " n"] | None, Bool[NDArray[np.bool_], " n"]]:
    """Take numbers as classes. Whole numbers are kept, also 0 and below, which are RELION's unassigned particles.

    Returns
    -------
    The classes, 0 where a number is not whole, or None if no number is whole; and which rows are not whole.
    """
    is_class = _is_whole(numbers)
    if not is_class.any():
        return None, ~is_class
    return np.where(is_class, numbers, 0).astype(np.int64), ~is_class


def _is_whole(values: NDArray[np.float64]) -> Bool[NDArray[np.bool_], " n"]:
    # A comparison with NaN is false.
    return np.asarray((values == np.floor(values)) & (np.abs(values) <= _LARGEST_WHOLE))


def _require(
    fits: NDArray[np.bool_], document: StarDocument, block: StarBlock, label: str, texts: Sequence[str], expected: str
) -> None:
    bad = np.flatnonzero(~fits)
    if len(bad):
        raise InputError(
            f"{label} is not {'a number' if expected == 'a finite number' else expected}",
            file=document.source,
            row=int(block.line_numbers[bad[0]]),
            expected=expected,
            found=f"{texts[bad[0]]!r}" + (f", and {len(bad) - 1} more rows" if len(bad) > 1 else ""),
        )
