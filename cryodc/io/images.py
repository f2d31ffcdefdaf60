"""Where the images of a STAR lie, and whether their headers agree with it and with each other."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryodc.errors import InputError
from cryodc.io.moved_files import data_dir_for, find_moved
from cryodc.io.mrc_header import MrcHeader, read_header
from cryodc.io.reference import ImageReference, check_cube, check_section
from cryodc.io.weights import check_weight_shape
from cryodc.volumes import is_spacing, no_spacing


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
    """Turn image names into references; with ``check_images`` every file must exist."""
    split = [split_image_name(name) for name in names]
    if not check_images:
        sections, files = zip(*split, strict=True)
        return list(map(ImageReference, finder.guess(files), sections)), []
    found = {name: finder.find(name) for name in dict.fromkeys(name for _, name in split)}
    missing = [name for name, path in found.items() if path is None]
    moved = find_moved(missing, [root for _, root in finder.roots]) if missing else {}
    references: list[ImageReference] = []
    problems: list[Problem] = []
    for (section, name), row in zip(split, rows, strict=True):
        path = found[name]
        references.append(ImageReference(path or name, section))
        if path is None:
            error = _missing(name, kind, star, row, finder, moved.get(name))
            problems.append(Problem(row, error))
    return references, problems


@dataclass
class HeaderCheck:
    """What the headers of a particle set say together.

    Parameters
    ----------
    box_size, spacing_angstrom
        Of the STAR where it says, else of most headers; None where neither does.
    problems
        One per particle and fault.
    n_spacing_unset
        Headers that state no spacing, or exactly 1 Å, where the STAR states another.
    flat
        Positions of particles whose headers state one grey value, or none that is a number.
    """

    box_size: int | None
    spacing_angstrom: float | None
    problems: list[Problem]
    n_spacing_unset: int
    flat: list[int]


def check_headers(
    references: Sequence[ImageReference],
    rows: Sequence[int],
    box_size: int | None,
    spacing_angstrom: float | None,
) -> HeaderCheck:
    """Check every image: whole, a cube, one even box, one spacing. Missing files are passed over."""
    headers: dict[str, MrcHeader | InputError] = {}
    good: list[tuple[ImageReference, int, MrcHeader]] = []
    flat: list[int] = []
    problems: list[Problem] = []
    for i, (reference, row) in enumerate(zip(references, rows, strict=True)):
        if reference.file not in headers:
            headers[reference.file] = _header_or_error(reference.path)
        header = headers[reference.file]
        try:
            if isinstance(header, InputError):
                if header.problem != "the file does not exist":
                    problems.append(Problem(row, header))
                continue
            check_section(header, reference.section)
            check_cube(header, reference.section)
        except InputError as error:
            problems.append(Problem(row, error))
            continue
        good.append((reference, row, header))
        if header.is_flat and reference.section is None:
            flat.append(i)
    boxes = Counter(header.section_shape(ref.section)[0] for ref, _, header in good)
    spacings = Counter(h.spacing_angstrom for _, _, h in good if h.spacing_angstrom is not None)
    box_from = "the STAR" if box_size else "most images"
    spacing_from = "the STAR" if spacing_angstrom else "most headers"
    expected_box = box_size or (boxes.most_common(1)[0][0] if boxes else None)
    expected_spacing = spacing_angstrom or (spacings.most_common(1)[0][0] if spacings else None)
    if expected_spacing is not None and not is_spacing(expected_spacing):
        first = next(header for _, _, header in good if header.spacing_angstrom == expected_spacing)
        problems.append(Problem(None, no_spacing("the voxel spacing of the headers", expected_spacing, first.path)))
    n_unset = 0
    common = spacings.most_common(1)[0] if spacings else (None, 0)
    one_other = common[0] if spacing_angstrom and 2 * common[1] > len(good) else None
    for reference, row, header in good:
        box = header.section_shape(reference.section)[0]
        spacing = header.spacing_angstrom
        if box != expected_box:
            problems.append(Problem(row, _wrong_box(header.path, expected_box, box_from, box)))
        if expected_spacing is None:
            continue
        if spacing is None or (spacing_angstrom and abs(spacing - 1) < 1e-4 < abs(spacing_angstrom - 1)):
            n_unset += 1
        elif abs(spacing - expected_spacing) > 0.01 * expected_spacing:
            if spacing == one_other:
                wrong = _contradicted_spacing(header.path, expected_spacing, spacing)
            else:
                wrong = _wrong_spacing(header.path, expected_spacing, spacing_from, spacing)
            problems.append(Problem(row, wrong, unreadable=False))
    return HeaderCheck(expected_box, expected_spacing, problems, n_unset, flat)


def check_weight_headers(
    references: Sequence[ImageReference], rows: Sequence[int], box_size: int
) -> tuple[list[Problem], Counter[tuple[int, int, int]]]:
    """Check the shape of every weight volume; also count the shapes. Missing files are passed over."""
    outcomes: dict[str, MrcHeader | InputError] = {}
    problems: list[Problem] = []
    shapes: Counter[tuple[int, int, int]] = Counter()
    for reference, row in zip(references, rows, strict=True):
        if reference.file not in outcomes:
            outcome = _header_or_error(reference.path)
            if isinstance(outcome, MrcHeader):
                shapes[outcome.shape_zyx] += 1
                try:
                    check_weight_shape(outcome, box_size)
                except InputError as error:
                    outcome = error
            outcomes[reference.file] = outcome
        outcome = outcomes[reference.file]
        if isinstance(outcome, InputError) and outcome.problem != "the file does not exist":
            problems.append(Problem(row, outcome))
    return problems, shapes


def _header_or_error(path: Path) -> MrcHeader | InputError:
    try:
        return read_header(path)
    except InputError as error:
        return error


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


def _wrong_box(path: Path, expected: int | None, source: str, found: int) -> InputError:
    return InputError(
        "the box size is not that of the other particles",
        file=path,
        expected=f"{expected} voxels, from {source}",
        found=f"{found}",
        remedy="extract this particle again, or remove it from the STAR",
    )


def _wrong_spacing(path: Path, expected: float, source: str, found: float) -> InputError:
    return InputError(
        "the voxel spacing is not that of the other particles",
        file=path,
        expected=f"{expected:.4g} Å, from {source}",
        found=f"{found:.4g} Å in the header",
        remedy="correct whichever is wrong: the STAR's pixel size or the MRC header",
    )


def _contradicted_spacing(path: Path, expected: float, found: float) -> InputError:
    return InputError(
        "the MRC headers and the STAR disagree on the voxel spacing",
        file=path,
        expected=f"{expected:.4g} Å, from the STAR",
        found=f"{found:.4g} Å in the header, {found / expected:.3g} × the STAR's",
        remedy="see whether the volumes are binned, then correct rlnImagePixelSize (rlnPixelSize) or the headers",
    )
