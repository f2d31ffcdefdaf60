"""What differs between two STAR files: numbers, first examples, and one sentence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_N_EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """One difference: the row's name, its line (1-based) in each file, and the text before and after."""

    name: str
    lines: tuple[int, int]
    before: str
    after: str


@dataclass
class Differences:
    """How many rows (or lines) differ, and the first few."""

    n_rows: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, name: str, lines: tuple[int, int], before: str, after: str) -> None:
        """Count one more, and keep it if it is among the first.

        Parameters
        ----------
        name
            Of the column.
        lines
            In both files.
        before, after
            The cell in each.
        """
        self.n_rows += 1
        if len(self.examples) < _N_EXAMPLES:
            self.examples.append(Example(name, lines, before, after))


@dataclass
class BlockComparison:
    """One block that both files have.

    Parameters
    ----------
    name, n_rows
        The block, and its rows before and after.
    matched_by
        The label by whose values rows were matched, or None: by their place.
    removed, added
        Names of rows that only one of the files has.
    is_reordered
        Whether the matched rows stand in another order.
    columns
        Differences of each column that both have, where there is any.
    columns_removed, columns_added
        Columns only one of them has.
    are_columns_reordered
        Whether the columns that both have stand in another order.
    n_compared
        Rows whose cells were compared.
    layout
        Lines that differ in white space, quotes or a comment, beside their cells.
    """

    name: str
    n_rows: tuple[int, int]
    matched_by: str | None = None
    removed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    is_reordered: bool = False
    columns: dict[str, Differences] = field(default_factory=dict)
    columns_removed: list[str] = field(default_factory=list)
    columns_added: list[str] = field(default_factory=list)
    are_columns_reordered: bool = False
    n_compared: int = 0
    layout: Differences = field(default_factory=Differences)

    def changes(self) -> list[str]:
        """Every kind of difference, in words."""
        changed: dict[int, list[str]] = {}
        for label, differences in self.columns.items():
            changed.setdefault(differences.n_rows, []).append(label)
        said = [f"{_listed(labels)} changed in {_rows(n_rows)}" for n_rows, labels in changed.items()]
        if self.columns_added:
            said.append(f"{_listed(self.columns_added)} added")
        if self.columns_removed:
            said.append(f"{_listed(self.columns_removed)} removed")
        if not self.n_compared and max(self.n_rows):
            said.append(f"{_rows(self.n_rows[0])} became {self.n_rows[1]}, with no name in common")
        if self.removed:
            said.append(f"{len(self.removed)} of {_rows(self.n_rows[0])} removed")
        if self.added:
            said.append(f"{_rows(len(self.added))} added")
        if self.is_reordered:
            said.append("rows in another order")
        if self.are_columns_reordered:
            said.append("columns in another order")
        if self.layout.n_rows:
            said.append(f"white space, quotes or comments in {_lines(self.layout.n_rows)}")
        return said


@dataclass(frozen=True)
class StarComparison:
    """What differs between two STAR files.

    Parameters
    ----------
    before, after
        The files.
    is_identical
        Whether every byte is the same (of the unpacked text, where a file is gzipped).
    blocks
        Those both have.
    blocks_removed, blocks_added
        Those only one of them has.
    lines_removed, lines_added
        Comments, blank lines and block headers that only one of them has.
    line_ends
        Lines that end in CRLF, before and after.
    """

    before: Path
    after: Path
    is_identical: bool
    blocks: tuple[BlockComparison, ...] = ()
    blocks_removed: tuple[str, ...] = ()
    blocks_added: tuple[str, ...] = ()
    lines_removed: tuple[str, ...] = ()
    lines_added: tuple[str, ...] = ()
    line_ends: tuple[int, int] = (0, 0)

    @property
    def verdict(self) -> str:
        """Say in one sentence what changed."""
        if self.is_identical:
            return "byte-identical"
        several = len(self.blocks) > 1
        said = [
            change + (f" (data_{block.name})" if several and block.name not in ("particles", "") else "")
            for block in self.blocks
            for change in block.changes()
        ]
        said += [f"data_{name} removed" for name in self.blocks_removed]
        said += [f"data_{name} added" for name in self.blocks_added]
        if self.lines_removed or self.lines_added:
            n_lines = len(self.lines_removed) + len(self.lines_added)
            said.append(f"comments, blanks or headers in {_lines(n_lines)}")
        if bool(self.line_ends[0]) != bool(self.line_ends[1]):
            said.append("line ends differ (LF and CRLF)")
        return f"only {'; '.join(said)}" if said else "only white space, or the order of comments and blocks"

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        content = asdict(self)
        return content | {"before": str(self.before), "after": str(self.after), "verdict": self.verdict}


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _rows(n_rows: int) -> str:
    return f"{n_rows} {'row' if n_rows == 1 else 'rows'}"


def _lines(n_lines: int) -> str:
    return f"{n_lines} {'line' if n_lines == 1 else 'lines'}"
