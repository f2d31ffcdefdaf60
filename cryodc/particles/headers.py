"""Whether the headers of images agree with their STAR and with each other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryodc.errors import InputError
from cryodc.io.images import Problem
from cryodc.io.mrc_header import MrcHeader, read_header
from cryodc.io.reference import ImageReference, check_cube, check_section
from cryodc.io.weights import check_weight_shape
from cryodc.volumes import is_spacing, no_spacing


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
    weight_shapes
        How many weight files have each shape.
    """

    box_size: int | None
    spacing_angstrom: float | None
    problems: list[Problem]
    n_spacing_unset: int
    flat: list[int]
    weight_shapes: Mapping[tuple[int, int, int], int]


def check_headers(
    references: Sequence[ImageReference],
    rows: Sequence[int],
    box_size: int | None,
    spacing_angstrom: float | None,
) -> HeaderCheck:
    """Check every image: whole, a cube, one even box, one spacing. Missing files are passed over.

    Parameters
    ----------
    references, rows
        The images, and the line of each in the STAR.
    box_size, spacing_angstrom
        What the STAR says; None where it does not.
    """
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
    return HeaderCheck(expected_box, expected_spacing, problems, n_unset, flat, {})


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
