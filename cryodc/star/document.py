"""STAR files as text: every block, column, comment and line end stays; only what is asked for changes.

A document is its lines. Blocks know which lines are theirs; cells are split from the lines when asked for,
and an edit replaces the characters of the cells it names. So what is read and written back is byte-identical.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import atomic_stream, read_bytes
from cryodc.star.blocks import StarBlock, parse_blocks
from cryodc.star.lexer import edit_line, quote, without_collection

_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r"))


@dataclass(frozen=True, eq=False)
class StarDocument:
    """A STAR file in memory: ``source``, its ``lines`` with their ends, and its ``blocks``."""

    source: Path
    lines: list[str]
    blocks: list[StarBlock]

    def find(self, name: str) -> StarBlock | None:
        """Find the first block of this name, or None."""
        return next((block for block in self.blocks if block.name == name), None)

    def block(self, name: str) -> StarBlock:
        """Find the first block of this name.

        Raises
        ------
        InputError
            If there is none.
        """
        block = self.find(name)
        if block is None:
            names = ", ".join(f"data_{b.name}" for b in self.blocks)
            raise InputError("no such block", file=self.source, expected=f"data_{name}", found=names)
        return block

    def text(self) -> str:
        """Join the lines to the whole file. What was not edited is as it was read."""
        return "".join(self.lines)

    def with_column(self, block_name: str, label: str, values: Sequence[str]) -> "StarDocument":
        """Replace one column, or append it as the last one; see :meth:`with_columns`."""
        return self.with_columns(block_name, {label: values})

    @without_collection()
    def with_columns(self, block_name: str, columns: Mapping[str, Sequence[str]]) -> "StarDocument":
        """Replace columns, or append them after the last one; every other byte stays.

        A cell whose text does not change keeps its quotes and characters. New values are quoted where needed.

        Raises
        ------
        ValueError
            If a column does not have one value per row, or a value cannot be written.
        """
        block = self.block(block_name)
        for label, values in columns.items():
            if len(values) != block.n_rows:
                raise ValueError(f"{block.n_rows} rows in data_{block_name} but {len(values)} values of {label}")
        lines = list(self.lines)
        replaced = [(block.labels.index(label), columns[label]) for label in columns if label in block.labels]
        appended = [(label, columns[label]) for label in columns if label not in block.labels]
        if block.is_loop:
            replaced.sort(key=itemgetter(0))
            for row, line in enumerate(block.row_lines.tolist()):
                changes = [(index, values[row]) for index, values in replaced]
                lines[line] = edit_line(lines[line], changes, [values[row] for _, values in appended])
        else:
            for index, values in replaced:
                line = block.label_lines[index]
                lines[line] = edit_line(lines[line], [(1, values[0])], [])
        if appended:
            last = block.label_lines[-1] if block.label_lines else block.header_line
            lines[last] = _append_labels(lines[last], block, appended)
        return _document(self.source, _resplit(lines))

    @without_collection()
    def with_rows(self, block_name: str, row_indices: Sequence[int] | NDArray[np.int64]) -> "StarDocument":
        """Keep only these rows of a table (0-based), in this order; comments and other blocks stay."""
        block = self.block(block_name)
        keep = [int(i) for i in row_indices]
        rows = block.row_lines.tolist()
        dropped = set(rows)
        kept = [self.lines[rows[i]] for i in keep]
        end = "\r\n" if self.lines[0].endswith("\r\n") else "\n"
        kept = [line if line.endswith("\n") else line + end for line in kept]
        if keep == sorted(set(keep)):
            at = {rows[i]: line for i, line in zip(keep, kept, strict=True)}
            lines = [at.get(n, line) for n, line in enumerate(self.lines) if n not in dropped or n in at]
        else:
            first = rows[0]
            before = self.lines[:first]
            after = [line for n, line in enumerate(self.lines[first:], first) if n not in dropped]
            lines = [*before, *kept, *after]
        return _document(self.source, lines)


def read_star(path: Path) -> StarDocument:
    """Read a STAR file, ``.star`` or ``.star.gz``.

    Raises
    ------
    InputError
        If there is no such file, it is not STAR, a label comes twice, or a row has the wrong number of cells.
    """
    content = read_bytes(path, "the STAR file")
    if not content.strip():
        raise InputError("the STAR file is empty", file=path, expected="a data_ block", found="no text")
    if len(content.translate(None, _CONTROL)) != len(content):
        raise InputError("this is not text", file=path, expected="a STAR file", found="control characters")
    if b"\n" not in content and b"\r" in content:
        raise InputError(
            "lines end in CR alone", file=path, expected="LF or CRLF", remedy="convert the line ends to LF"
        )
    lone = re.search(rb"\r(?![\r\n])", content) if b"\r" in content else None
    if lone is not None:
        raise InputError(
            "a CR stands within a line, where some programs end it",
            file=path,
            row=content[: lone.start()].count(b"\n") + 1,
            expected="LF or CRLF at the end of every line",
            remedy="convert the line ends to LF",
        )
    # Only LF ends a line: str.splitlines would split at form feeds and Unicode separators too.
    wrapper = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape", newline="\n")
    return _document(path, wrapper.readlines())


def write_star(document: StarDocument, path: Path) -> None:
    """Write a STAR file atomically, gzipped if it is named ``.gz``, never over the file it was read from.

    Raises
    ------
    InputError
        If ``path`` is the document's source, or cannot be written.
    """
    if path.resolve() == document.source.resolve():
        raise InputError("refusing to overwrite an input", file=path, remedy="choose another output")
    with atomic_stream(path) as stream:
        for start in range(0, len(document.lines), 10_000):
            stream.write("".join(document.lines[start : start + 10_000]).encode("utf-8", "surrogateescape"))


def _document(source: Path, lines: list[str]) -> StarDocument:
    return StarDocument(source, lines, parse_blocks(source, lines))


def _append_labels(line: str, block: StarBlock, appended: list[tuple[str, Sequence[str]]]) -> str:
    """Extend the line of the last label by lines for new ones in the same style."""
    body = line.rstrip("\r\n")
    end = line[len(body) :] or ("\r\n" if block.lines[0].endswith("\r\n") else "\n")
    numbered = block.is_loop and re.search(r"\s#\d+\s*$", body) is not None
    trailing = body[len(body.rstrip()) :]
    text = body + end
    for offset, (label, values) in enumerate(appended, start=len(block.labels) + 1):
        item = f"_{label} #{offset}{trailing}" if numbered else f"_{label}"
        text += item + ("" if block.is_loop else f" {quote(values[0])}") + end
    return text


def _resplit(lines: list[str]) -> list[str]:
    """Split again where an edit put several lines into one."""
    pieces = ([line] if line.count("\n") < 2 else re.findall(r"[^\n]*\n", line) for line in lines)
    return [line for group in pieces for line in group]
