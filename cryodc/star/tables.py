"""New STAR tables, written by starfile; files that users gave are edited by :mod:`cryodc.star.document` instead."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.star.lexer import quote

# Characters that end a line or a cell for some reader.
_ENDS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


def star_table(name: str, columns: Mapping[str, Sequence[str]], numbered: bool = True) -> str:
    """Write a ``loop_`` block as starfile does; no line end behind the last row.

    starfile is given texts, which it leaves as they are: a number keeps the decimals it was written with.

    Parameters
    ----------
    name
        What follows ``data_``.
    columns
        Cells by label, as many in each.
    numbered
        Whether labels carry their number, as in ``_rlnImageName #1``.

    Raises
    ------
    InputError
        If a text cannot stand in a cell: it has a tab or a line end, or both kinds of quotes.
    """
    import pandas as pd
    import starfile

    table = pd.DataFrame({label: [_cell(text) for text in cells] for label, cells in columns.items()}, dtype=object)
    # In front of the block starfile writes the time, and files of the same content would differ.
    text = starfile.to_string({name: table}).partition(f"data_{name}\n")[2].rstrip("\n")
    if not numbered:
        head, loop, body = text.partition("loop_\n")
        lines = body.split("\n")
        labels = [line.partition(" #")[0] for line in lines[: len(columns)]]
        text = head + loop + "\n".join([*labels, *lines[len(columns) :]])
    return f"data_{name}\n{text}"


def number_texts(values: NDArray[np.float64]) -> list[str]:
    """Write numbers with six decimals."""
    # Adding 0 turns a rounded −0 into 0.
    return [f"{value:.6f}" for value in np.round(values, 6) + 0.0]


def _cell(text: str) -> str:
    """Give a text as starfile must have it: quoted, but where starfile itself sees the need."""
    try:
        quoted = None if _ENDS.search(text) else quote(text)
    except ValueError:
        quoted = None
    if quoted is None or (" " in text and quoted[0] != '"'):
        raise InputError(
            "this text cannot be a cell of a STAR table",
            expected="one line without tabs, and no quotes beside spaces",
            found=repr(text),
            remedy="rename it",
        )
    return text if " " in text or not text else quoted
