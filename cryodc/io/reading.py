"""Read small files whole: text, compressed text and YAML, never more than such a file can hold; and numbers."""

import gzip
import math
import re
import stat
import zlib
from pathlib import Path
from typing import Any

import yaml

from cryodc.errors import InputError

_SMALL_BYTES = 64 << 20
_MOST_EXPANSION = 200
"""How many times its compressed length a text may have; tables of a million rows have 10 to 40, a bomb has 1,000."""
_MOST_YAML_BYTES = 1 << 20
_DEEPEST_YAML = 20
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def read_bytes(path: Path, what: str) -> bytes:
    """Read a whole file, unpacked if it is gzipped, whatever its name.

    Parameters
    ----------
    path
        The file; it must be no pipe and no device, which may never answer or never end.
    what
        What it is, for messages: "the STAR file".

    Raises
    ------
    InputError
        If it cannot be read, its gzip is damaged, or it unpacks to far more than text does.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise InputError("this is not a file", file=path, expected=what, found="a pipe, socket or device")
        content = path.read_bytes()
        return _unpacked(path, content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot read {what}: {reason}",
            file=path,
            expected="a file that can be read to its end",
            remedy="correct its name, make it readable, or copy it here again",
        ) from error


def read_text(path: Path, what: str) -> str:
    """Read a text file in UTF-8, with or without a byte order mark, ``.gz`` too.

    Raises
    ------
    InputError
        As :func:`read_bytes`; also if it is not text in UTF-8.
    """
    content = read_bytes(path, what)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"cannot read {what}: it is not text in UTF-8",
            file=path,
            row=line,
            found=repr(content[error.start : error.end]),
            remedy="convert it, for example with `iconv -f latin1 -t utf-8`",
        ) from error
    if "\0" in text:
        raise InputError("this is not text", file=path, expected=what, found="control characters")
    return text


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML mapping of settings; an empty file is an empty one.

    Aliases are refused: settings need none, and a few lines of them stand for billions of values.

    Raises
    ------
    InputError
        If it cannot be read, is longer than a megabyte, nested deeply or no mapping, or has aliases.
    """
    text = read_text(path, what)
    if len(text) > _MOST_YAML_BYTES:
        raise InputError(
            f"this is too long for {what}", file=path, expected="a megabyte at most", found=f"{len(text):,} characters"
        )
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST_YAML:
                mark = event.start_mark
                raise InputError(
                    f"{what} cannot have aliases" if depth <= _DEEPEST_YAML else f"{what} is nested too deeply",
                    file=path,
                    row=None if mark is None else mark.line + 1,
                    remedy="write every value out",
                )
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, OverflowError) as error:
        # Beside errors of grammar: dates that are none, numbers of too many digits, keys that are lists.
        place = getattr(error, "problem_mark", None)
        raise InputError(
            "this is not YAML",
            file=path,
            row=None if place is None else place.line + 1,
            expected=what,
            found=(getattr(error, "problem", None) or str(error) or type(error).__name__).splitlines()[0],
        ) from error
    if content is not None and not isinstance(content, dict):
        raise InputError(
            "this is not a table of settings", file=path, expected="lines `name: value`", found=type(content).__name__
        )
    return content or {}


def number_of(text: str) -> float | None:
    """Give the number that a text writes; None where the text is no finite number.

    Examples
    --------
    >>> [number_of(text) for text in ("2.000000", "+1", "1e0", "1_000", "nan", "1e400")]
    [2.0, 1.0, 1.0, None, None, None]
    """
    stripped = text.strip(" \t\r\v\f")
    if not _NUMBER.fullmatch(stripped):
        return None
    value = float(stripped)
    return value if math.isfinite(value) else None


def _unpacked(path: Path, packed: bytes) -> bytes:
    most = max(_SMALL_BYTES, _MOST_EXPANSION * len(packed))
    with gzip.open(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise InputError(
            "the compressed file unpacks to far more than such a file can hold",
            file=path,
            expected=f"at most {most:,} bytes, {_MOST_EXPANSION} times its length",
            found="more",
            remedy="if it is meant so, unpack it with `gunzip` and give the unpacked file",
        )
    return content
