"""Names of particles: the column that holds them, and rows whose name or image cannot be used."""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cryodc.errors import InputError
from cryodc.io import ImageReference, Problem

T = TypeVar("T", bound=Hashable)


def name_label(cells: Mapping[str, Sequence[str]]) -> str:
    """Give the column that names particles: rlnTomoParticleName where it tells all apart, else rlnImageName.

    STAR files of two jobs, joined, repeat rlnTomoParticleName with other images. RELION refines them as the distinct
    particles they are; their images tell them apart.

    Parameters
    ----------
    cells
        Columns of the particles; rlnImageName is one of them.
    """
    names = cells.get("rlnTomoParticleName")
    if names is None:
        return "rlnImageName"
    n_names = len(set(names))
    # A row that repeats both is one particle twice, and told as that.
    if n_names == len(names) or n_names == len(set(zip(names, cells["rlnImageName"], strict=True))):
        return "rlnTomoParticleName"
    return "rlnImageName"


def repeated_names(star: Path, names: Sequence[str], rows: Sequence[int]) -> list[Problem]:
    """One problem for each row with the name of an earlier row."""
    return [_repeat(star, "name", name, rows, first, i) for name, first, i in _repeats(names)]


def repeated_images(
    star: Path, names: Sequence[str], images: Sequence[ImageReference], rows: Sequence[int]
) -> list[Problem]:
    """One problem for each row that shows the image of an earlier row under another name.

    One file may be reached by two paths: through links between folders, or by a path that is absolute.

    Parameters
    ----------
    star
        The STAR file.
    names, images, rows
        Name, image and line of each particle.
    """
    folders = {folder: os.path.realpath(folder) for folder in {os.path.split(image.file)[0] for image in images}}
    places: Sequence[Hashable] = images
    if len(set(folders.values())) < len(folders):
        split = [os.path.split(image.file) for image in images]
        places = [(folders[at], name, image.section) for (at, name), image in zip(split, images, strict=True)]
    repeats = [(first, i) for _, first, i in _repeats(places) if names[first] != names[i]]
    return [_repeat(star, "image", str(images[i]), rows, first, i) for first, i in repeats]


def unwritable_names(star: Path, texts: Mapping[str, Sequence[str]], rows: Sequence[int]) -> list[Problem]:
    """One problem for each row and column whose name is not UTF-8: no table, report or map could be named so."""
    problems = []
    for label, names in texts.items():
        if "".join(names).isascii():
            continue
        bad = [i for i, name in enumerate(names) if any("\ud800" <= letter <= "\udfff" for letter in name)]
        problems += [_unwritable(star, label, names[i], rows[i]) for i in bad]
    return problems


def _unwritable(star: Path, label: str, name: str, row: int) -> Problem:
    error = InputError(
        f"{label} is not text in UTF-8",
        file=star,
        row=row,
        expected="a name in UTF-8",
        found=repr(name.encode("utf-8", "surrogateescape"))[1:],
        remedy="convert the STAR, for example with `iconv -f latin1 -t utf-8`; rename files whose names it changes",
    )
    return Problem(row, error)


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
