"""Where the images of a STAR lie."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cryodc.errors import InputError
from cryodc.io.reference import ImageReference

_MOST_FILES = 100_000
_N_DOUBLES, _COMPARED_BYTES = 20, 2**20


@dataclass(frozen=True)
class Problem:
    """Something wrong with the input: the line of the STAR it shows in, and what to say about it.

    Parameters
    ----------
    row
        None where it concerns no single particle.
    error
        What, where, and the remedy.
    unreadable
        Whether the particle of this row cannot be used as it is, so nothing can be measured on it.
    """

    row: int | None
    error: InputError
    unreadable: bool = True


@dataclass
class ImageFinder:
    """Finds the files a STAR names: in the current folder, the STAR's folder, then ``data_dir``.

    Parameters
    ----------
    roots
        Folders and what to call them, in the order they are tried.
    found_in
        How many images were found in each.
    """

    roots: tuple[tuple[str, Path], ...]
    found_in: Counter[str] = field(default_factory=Counter)

    @classmethod
    def within(cls, folders: Sequence[Path]) -> "ImageFinder":
        """Give the finder of a run, which looks where its images were found when it began and nowhere else."""
        return cls(tuple(("the run's image folder", folder) for folder in folders))

    @classmethod
    def beside(cls, star: Path, data_dir: Path | None) -> "ImageFinder":
        """Give the finder for a STAR file."""
        roots = [("the current folder", Path.cwd()), ("the STAR's folder", star.parent.absolute())]
        if data_dir is not None:
            roots.append(("the data folder", data_dir.absolute()))
        return cls(tuple(roots))

    def find(self, name: str) -> str | None:
        """Find one file; None where it is in none of the folders."""
        if os.path.isabs(name):  # noqa: PTH117
            return self._count("absolute paths", name) if os.path.exists(name) else None  # noqa: PTH110
        # String operations: a STAR may name a million files.
        for label, root in self.roots:
            candidate = f"{root}{os.sep}{name}"
            if os.path.exists(candidate):  # noqa: PTH110
                return self._count(label, candidate)
        return None

    def find_others(self, name: str) -> list[str]:
        """Find files of the same name but another content, in folders that are looked into later."""
        if os.path.isabs(name):  # noqa: PTH117
            return []
        there = [path for _, root in self.roots if os.path.exists(path := f"{root}{os.sep}{name}")]  # noqa: PTH110
        return [path for path in there[1:] if _begins_otherwise(Path(path), Path(there[0]))]

    def guess(self, names: Sequence[str]) -> list[str]:
        """Place every name without looking for it: in the folder that has the first one, else the STAR's."""
        present = (root for _, root in self.roots if os.path.exists(root / names[0]))  # noqa: PTH110
        root = next(present, self.roots[-1][1] if len(self.roots) < 2 else self.roots[1][1])
        prefix = f"{root}{os.sep}"
        return [name if name.startswith(os.sep) else prefix + name for name in names]

    def describe(self, name: str) -> str:
        """Say where a file was looked for."""
        if os.path.isabs(name):  # noqa: PTH117
            return "a file at this absolute path"
        distinct: dict[Path, str] = {}
        for label, root in self.roots:
            distinct.setdefault(root, label)
        return "a file in " + ", or ".join(f"{label} {root}" for root, label in distinct.items())

    def _count(self, label: str, path: str) -> str:
        self.found_in[label] += 1
        return path


def split_image_name(text: str) -> tuple[int | None, str]:
    """Split ``000002@stack.mrcs`` into its 0-based section and its file.

    Examples
    --------
    >>> split_image_name("000002@stack.mrcs"), split_image_name("a@b/one.mrc")
    ((1, 'stack.mrcs'), (None, 'a@b/one.mrc'))
    """
    number, at, name = text.partition("@")
    # Fewer digits than Python refuses to read; `²` is a digit too, but no section.
    if at and number.isascii() and number.isdigit() and len(number) <= 18 and name:
        return int(number) - 1, name
    return None, text


def resolve_images(
    finder: ImageFinder, names: Sequence[str], rows: Sequence[int], star: Path, check_images: bool, kind: str
) -> tuple[list[ImageReference], list[Problem]]:
    """Turn image names into references; with ``check_images`` every file must exist.

    Parameters
    ----------
    finder
        Where files are looked for.
    names, rows
        rlnImageName, and the line of each.
    star
        The STAR file.
    check_images
        Whether files must exist.
    kind
        What they are, for the message.
    """
    split = [split_image_name(name) for name in names]
    if not check_images:
        sections, files = zip(*split, strict=True)
        return list(map(ImageReference, finder.guess(files), sections)), []
    found = {name: finder.find(name) for name in dict.fromkeys(name for _, name in split)}
    missing = [name for name, path in found.items() if path is None]
    moved = find_moved(missing, [root for _, root in finder.roots]) if missing else {}
    references: list[ImageReference] = []
    problems = _doubles(finder, found, split, rows, star)
    for (section, name), row in zip(split, rows, strict=True):
        path = found[name]
        references.append(ImageReference(path or name, section))
        if path is None:
            error = _missing(name, kind, star, row, finder, moved.get(name))
            problems.append(Problem(row, error))
    return references, problems


def _begins_otherwise(first: Path, second: Path) -> bool:
    """Whether two files differ in size or in what they begin with; a copy does not, nor is a folder a file."""
    if first.samefile(second) or not (first.is_file() and second.is_file()):
        return False
    if first.stat().st_size != second.stat().st_size:
        return True
    with first.open("rb") as one, second.open("rb") as other:
        return one.read(_COMPARED_BYTES) != other.read(_COMPARED_BYTES)


def _doubles(
    finder: ImageFinder,
    found: Mapping[str, str | None],
    split: Sequence[tuple[int | None, str]],
    rows: Sequence[int],
    star: Path,
) -> list[Problem]:
    """The first name that stands for two files, of a few that are looked at."""
    for name in list(found)[:_N_DOUBLES]:
        others = finder.find_others(name)
        if others:
            row = next(row for (_, file), row in zip(split, rows, strict=True) if file == name)
            error = InputError(
                "two files have this name, and the particles could be either",
                file=star,
                row=row,
                expected="one, in the current folder or beside the STAR",
                found=f"{found[name]} and {others[0]}",
                remedy="run from another folder, or write whole paths into the STAR",
            )
            return [Problem(row, error)]
    return []


def _missing(name: str, kind: str, star: Path, row: int, finder: ImageFinder, moved_to: Path | None) -> InputError:
    found = f"{name}: no such file"
    remedy = "run from the folder the paths are relative to, or name it with --data-dir"
    if moved_to is not None:
        found += f"; one of the same name is {moved_to}"
        folder = data_dir_for(name, moved_to)
        remedy = f"--data-dir {folder}" if folder else "correct its path in the STAR, or move it back"
    return InputError(
        f"the {kind} file does not exist",
        file=star,
        row=row,
        expected=finder.describe(name),
        found=found,
        remedy=remedy,
    )


def find_moved(names: Sequence[str], roots: Sequence[Path]) -> dict[str, Path]:
    """Find files of the same name below some folders; of several, the one whose path ends most alike.

    Hidden folders are passed over and links to folders not followed. At most 100,000 files are looked at.

    Examples
    --------
    >>> find_moved(["gone.mrc"], [])
    {}
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        wanted.setdefault(PurePosixPath(name).name, []).append(name)
    moved: dict[str, Path] = {}
    n_seen = 0
    for root in _outermost(roots):
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            n_seen += len(files)
            for file in wanted.keys() & set(files):
                candidate = Path(folder, file)
                for name in wanted[file]:
                    if name not in moved or _shared(name, candidate) > _shared(name, moved[name]):
                        moved[name] = candidate
            if n_seen > _MOST_FILES:
                return moved
    return moved


def data_dir_for(name: str, moved_to: Path) -> Path | None:
    """Give the folder from which a name leads to a file; None where its path differs in more than the start.

    Examples
    --------
    >>> print(data_dir_for("tomo1/a.mrc", Path("/new/tomo1/a.mrc")), data_dir_for("tomo1/a.mrc", Path("/new/a.mrc")))
    /new None
    """
    n_parts = len(PurePosixPath(name).parts)
    if os.path.isabs(name) or _shared(name, moved_to) < n_parts:  # noqa: PTH117
        return None
    return moved_to.parents[n_parts - 1]


def _shared(name: str, path: Path) -> int:
    """How many parts, from the end, two paths have in common."""
    pairs = zip(reversed(PurePosixPath(name).parts), reversed(path.parts), strict=False)
    n_shared = 0
    for one, other in pairs:
        if one != other:
            break
        n_shared += 1
    return n_shared


def _outermost(roots: Sequence[Path]) -> list[Path]:
    """Each folder once, without those inside another."""
    resolved = list(dict.fromkeys(root.resolve() for root in roots))
    return [root for root in resolved if not any(other in root.parents for other in resolved)]
