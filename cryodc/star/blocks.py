"""The grammar of STAR: blocks, labels and rows, found in the lines of a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.star.lexer import cells_of, shorten, tokens_of, without_collection

# Rows split before their cells are handed to the columns: a million rows of cells would not fit beside the columns.
_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True, eq=False)
class StarBlock:
    """One ``data_`` block: a table (``loop_``) or a list of single values.

    Parameters
    ----------
    name
        What follows ``data_``; may be empty.
    labels
        Column names, without the leading underscore.
    is_loop
        Whether it is a table. A block that is not has one row.
    header_line, label_lines
        0-based lines of ``data_…`` (or ``loop_``) and of each label.
    row_lines
        ``(n,)`` 0-based line of each row of a table.
    lines
        All lines of the document.
    """

    name: str
    labels: tuple[str, ...]
    is_loop: bool
    header_line: int
    label_lines: tuple[int, ...]
    row_lines: Int[NDArray[np.int64], " n"]
    lines: list[str]

    def __contains__(self, label: str) -> bool:
        return label in self.labels

    @property
    def n_rows(self) -> int:
        """Rows of a table; 1 where the block is not one."""
        return len(self.row_lines) if self.is_loop else 1

    @cached_property
    def line_numbers(self) -> Int[NDArray[np.int64], " n"]:
        """``(n,)`` line of each row, 1-based as a text editor counts."""
        first = self.label_lines[0] if self.label_lines else self.header_line
        return self.row_lines + 1 if self.is_loop else np.array([first + 1])

    def column(self, label: str) -> list[str]:
        """Give the text of every cell of a column, without quotes."""
        return self.columns([label])[label]

    @without_collection()
    def columns(self, labels: Sequence[str]) -> dict[str, list[str]]:
        """Give several columns in one pass over the file.

        Raises
        ------
        KeyError
            If the block has no such column.
        """
        missing = [label for label in labels if label not in self.labels]
        if missing:
            raise KeyError(f"block {self.name!r} has no column {', '.join(missing)}")
        if not self.is_loop:
            places = [self.label_lines[self.labels.index(label)] for label in labels]
            return {label: (cells_of(self.lines[line])[1:] or [""]) for label, line in zip(labels, places, strict=True)}
        if not labels or not len(self.row_lines):
            return {label: [] for label in labels}
        # With two indices itemgetter gives a tuple whatever the number of labels.
        pick = itemgetter(*(self.labels.index(label) for label in labels), 0)
        columns: dict[str, list[str]] = {label: [] for label in labels}
        rows = self.row_lines.tolist()
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            picked = zip(
                *(pick(cells_of(self.lines[row])) for row in rows[start : start + _ROWS_AT_A_TIME]), strict=True
            )
            for column, cells in zip(columns.values(), picked, strict=False):
                column.extend(cells)
        return columns


@without_collection()
def parse_blocks(source: Path, lines: list[str]) -> list[StarBlock]:
    """Find the blocks, labels and rows of a STAR file.

    Raises
    ------
    InputError
        With its line: text before the first block, a second table in a block, a label that comes twice, a row
        with the wrong number of cells, a quote that is not closed.
    """
    blocks: list[StarBlock] = []
    name: str | None = None
    header = 0
    is_loop = False
    labels: dict[str, int] = {}
    rows: list[int] = []

    def finish() -> None:
        if name is not None:
            row_lines = np.array(rows, dtype=np.int64)
            blocks.append(StarBlock(name, tuple(labels), is_loop, header, tuple(labels.values()), row_lines, lines))

    def add_label(token: str, line: int) -> None:
        label = token[1:]
        if label in labels:
            raise InputError(
                f"the label _{label} comes twice in data_{name}",
                file=source,
                row=line + 1,
                expected="each label once",
                found=f"lines {labels[label] + 1} and {line + 1}",
                remedy="remove one of the two columns",
            )
        labels[label] = line

    for number, line in enumerate(lines):
        tokens = tokens_of(line, source, number)
        if not tokens:
            continue
        first = tokens[0]
        if len(tokens) == len(labels) and is_loop and rows and len(tokens) > 1:
            rows.append(number)
        elif len(tokens) == 1 and first.lstrip("\ufeff")[:5].lower() == "data_":
            finish()
            name, header, is_loop, labels, rows = first.lstrip("\ufeff")[5:], number, False, {}, []
        elif name is None:
            raise InputError(
                "this is not a STAR file: there is text before the first data_ block",
                file=source,
                row=number + 1,
                expected="data_…",
                found=shorten(line),
            )
        elif len(tokens) == 1 and first.lower() == "loop_":
            if is_loop or labels:
                raise InputError(
                    f"a second table in data_{name}",
                    file=source,
                    row=number + 1,
                    expected="one loop_ in a block",
                    remedy="give each table its own data_ line",
                )
            is_loop, header = True, number
        elif is_loop and not rows and len(tokens) == 1 and first.startswith("_"):
            add_label(first, number)
        elif is_loop:
            if len(tokens) != len(labels):
                raise InputError(
                    f"a row of data_{name} has the wrong number of cells",
                    file=source,
                    row=number + 1,
                    expected=f"{len(labels)} cells, one per label",
                    found=f"{len(tokens)}: {shorten(line)}",
                    remedy="restore the row; a value with spaces must be quoted",
                )
            rows.append(number)
        elif first.startswith("_") and len(tokens) <= 2:
            add_label(first, number)
        else:
            raise InputError(
                f"a line of data_{name} cannot be read",
                file=source,
                row=number + 1,
                expected="_label value, or loop_",
                found=shorten(line),
            )
    finish()
    if not blocks:
        raise InputError(
            "no data_ block: this is not a STAR file",
            file=source,
            expected="a line that begins with data_",
            found="comments only",
            remedy="give the STAR that RELION, Warp or `cryodc` wrote",
        )
    return blocks
