"""Rows of a STAR that repeat an earlier one."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TypeVar

from cryodc.errors import InputError
from cryodc.io import ImageReference, Problem

T = TypeVar("T", bound=Hashable)


def repeated_names(star: Path, names: Sequence[str], rows: Sequence[int]) -> list[Problem]:
    """One problem for each row whose name an earlier row has."""
    return [_repeat(star, "name", name, rows, first, i) for name, first, i in _repeats(names)]


def repeated_images(
    star: Path, names: Sequence[str], images: Sequence[ImageReference], rows: Sequence[int]
) -> list[Problem]:
    """One problem for each row that shows the image of an earlier row under another name."""
    repeats = [(image, first, i) for image, first, i in _repeats(images) if names[first] != names[i]]
    return [_repeat(star, "image", str(image), rows, first, i) for image, first, i in repeats]


def _repeats(items: Sequence[T]) -> list[tuple[T, int, int]]:
    """Each item met before: itself, where it came first, where it comes again."""
    if len(set(items)) == len(items):
        return []
    first: dict[T, int] = {}
    return [(item, first[item], i) for i, item in enumerate(items) if first.setdefault(item, i) != i]


def _repeat(star: Path, kind: str, text: str, rows: Sequence[int], first: int, again: int) -> Problem:
    error = InputError(
        f"two particles have the same {kind}",
        file=star,
        row=rows[again],
        expected=f"each {kind} once",
        found=f"{text} in lines {rows[first]} and {rows[again]}",
        remedy="remove one of the two rows",
    )
    return Problem(rows[again], error)
