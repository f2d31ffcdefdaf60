"""New STAR tables from columns: for files this package makes rather than edits."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cryodc.io.star_lexer import quote


def star_table(name: str, columns: Mapping[str, Sequence[str]], numbered: bool = True) -> str:
    """Write a ``loop_`` block, cells separated by tabs and quoted where needed; no line end behind the last row."""
    labels = [f"_{label} #{i}" if numbered else f"_{label}" for i, label in enumerate(columns, start=1)]
    rows = ["\t".join(map(quote, row)) for row in zip(*columns.values(), strict=True)]
    return "\n".join([f"data_{name}", "", "loop_", *labels, *rows])


def number_texts(values: NDArray[np.float64]) -> list[str]:
    """Write numbers with six decimals."""
    # Adding 0 turns a rounded −0 into 0.
    return [f"{value:.6f}" for value in np.round(values, 6) + 0.0]
