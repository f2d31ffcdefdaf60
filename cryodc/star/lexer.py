"""Words of one STAR line: splitting it, quoting a value, and replacing cells without touching the rest."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryodc.errors import InputError

_WORD = re.compile(r"\S+", re.ASCII)
# A quote closes only before white space; a # begins a comment only where a word could begin.
_TOKEN = re.compile(r"""\"[^\n]*?\"(?=\s|$)|'[^\n]*?'(?=\s|$)|\#[^\n]*|\S+""", re.ASCII)


def quote(value: str) -> str:
    """Write a value as one STAR cell: quoted where it is empty, has spaces, or would read otherwise.

    Examples
    --------
    >>> [quote(value) for value in ("1.5", "", "two words")]
    ['1.5', '""', '"two words"']
    """
    if "\n" in value or "\r" in value:
        raise ValueError(f"a STAR cell cannot hold a line end: {value!r}")
    lower = value.lower()
    plain = value and not value.startswith(("#", "_", '"', "'")) and lower[:5] not in ("data_", "loop_")
    if plain and not re.search(r"\s", value, re.ASCII):
        return value
    for mark in ('"', "'"):
        if not re.search(rf"{mark}(\s|$)", value, re.ASCII):
            return f"{mark}{value}{mark}"
    raise ValueError(f"a STAR cell cannot hold both kinds of quotes: {value!r}")


def tokens_of(line: str, source: Path, number: int) -> list[str]:
    """Split a line into its words as they stand, quotes included, comments left out."""
    if not _is_hard(line):
        return line.split()
    tokens = [match.group() for match in _TOKEN.finditer(line)]
    if tokens and tokens[-1].startswith("#"):
        tokens.pop()
    for token in tokens:
        if token[0] in "\"'" and (len(token) < 2 or token[-1] != token[0]):
            raise InputError(
                "a quote is not closed", file=source, row=number + 1, found=shorten(line), remedy="close it"
            )
    return tokens


def _is_hard(line: str) -> bool:
    return '"' in line or "#" in line or "'" in line or not line.isascii()


def cells_of(line: str) -> list[str]:
    """Split a line that is known to parse into its words, without quotes."""
    if not _is_hard(line):
        return line.split()
    tokens = [match.group() for match in _TOKEN.finditer(line)]
    if tokens and tokens[-1].startswith("#"):
        tokens.pop()
    return [token[1:-1] if token[0] in "\"'" else token for token in tokens]


def _spans(line: str) -> list[tuple[int, int]]:
    matches = (_TOKEN if _is_hard(line) else _WORD).finditer(line)
    return [match.span() for match in matches if line[match.start()] != "#"]


def edit_line(line: str, changes: list[tuple[int, str]], appended: list[str]) -> str:
    """Replace cells ``(index, value)``, in rising order of index, and add cells behind the last one."""
    if not appended and not _is_hard(line):
        return _edit_plain_line(line, changes)
    spans = _spans(line)
    parts: list[str] = []
    done = 0
    for index, value in changes:
        if index >= len(spans):
            # `_label` alone on its line holds an empty value: the new one follows the label.
            parts += [line[done : spans[-1][1]], " ", quote(value)]
            done = spans[-1][1]
            continue
        start, end = spans[index]
        text = line[start:end]
        is_same = (text[1:-1] if text[0] in "\"'" else text) == value
        parts += [line[done:start], text if is_same else quote(value)]
        done = end
    if appended:
        end = spans[-1][1]
        gap = line[spans[-2][1] : spans[-1][0]] if len(spans) > 1 else " "
        parts.append(line[done:end])
        parts += [("\t" if "\t" in gap else " ") + quote(value) for value in appended]
        done = end
    parts.append(line[done:])
    return "".join(parts)


def _edit_plain_line(line: str, changes: list[tuple[int, str]]) -> str:
    """Do the same where no cell is quoted, four times as fast: an edit of a long table changes a cell in every line."""
    parts: list[str] = []
    rest, at = line, 0
    for index, value in changes:
        split = rest.split(None, index - at)
        if len(split) <= index - at:
            return "".join(parts) + f"{rest.rstrip()} {quote(value)}{rest[len(rest.rstrip()) :]}"
        start = len(rest) - len(split[-1]) if index > at else len(rest) - len(rest.lstrip())
        behind = rest[start:]
        word = behind.split(None, 1)[0]
        parts += [rest[:start], word if word == value else quote(value)]
        rest, at = behind[len(word) :], index + 1
    return "".join(parts) + rest


def shorten(line: str) -> str:
    """Cut a line to 60 characters for a message."""
    text = line.strip()
    return text if len(text) <= 60 else text[:57] + "…"


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause Python's garbage collector, as a context or a decorator.

    Cells hold no cycles, but every new generation makes the collector walk over all of them. That would take more than
    half of the time in which a million rows are read.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
