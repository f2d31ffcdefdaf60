"""Box size and voxel spacing from a STAR: from its optics groups, or from the columns of older layouts."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cryodc.errors import InputError
from cryodc.io import number_of
from cryodc.star.blocks import StarBlock
from cryodc.star.document import StarDocument
from cryodc.star.values import read_numbers, whole_number_of
from cryodc.volumes import is_spacing, no_spacing

_LARGEST_BOX = 65_536


@dataclass(frozen=True)
class OpticsGroup:
    """One optics group that particles use.

    Parameters
    ----------
    number, name
        rlnOpticsGroup and rlnOpticsGroupName.
    row
        Its line in the STAR, 1-based.
    n_particles
        How many particles are of it.
    spacing_angstrom, box_size
        Of the images; None where the STAR does not say.
    """

    number: str
    name: str
    row: int
    n_particles: int
    spacing_angstrom: float | None
    box_size: int | None


def read_optics(
    document: StarDocument, block: StarBlock, cells: Mapping[str, Sequence[str]], dimensionality: str = "3"
) -> tuple[OpticsGroup, ...]:
    """Read the optics groups the particles use; none where the STAR has no optics block.

    Parameters
    ----------
    document, block, cells
        The STAR, its block of particles, and the columns of that block.
    dimensionality
        What rlnImageDimensionality must be, where it is given: 3, or 2 for stacks of tilt images.

    Raises
    ------
    InputError
        If a particle names a group that is not there, or a number cannot be read.
    """
    optics = document.find("optics")
    if optics is None or not optics.is_loop or "rlnOpticsGroup" not in optics:
        return ()
    table = optics.columns(list(optics.labels))
    numbers = [group_number(text) for text in table["rlnOpticsGroup"]]
    if "rlnOpticsGroup" in cells:
        used, first, counts = np.unique(cells["rlnOpticsGroup"], return_index=True, return_counts=True)
        n_particles: Counter[str] = Counter()
        rows: dict[str, int] = {}
        for text, i, count in zip(used.tolist(), first.tolist(), counts.tolist(), strict=True):
            n_particles[group_number(text)] += count
            rows[group_number(text)] = min(rows.get(group_number(text), sys.maxsize), int(block.line_numbers[i]))
    else:
        rows = {numbers[0]: int(block.line_numbers[0])} if numbers else {}
        n_particles = Counter(dict.fromkeys(rows, block.n_rows))
    groups = []
    for number, row in rows.items():
        if number not in numbers:
            raise InputError(
                "a particle names an optics group that is not in data_optics",
                file=document.source,
                row=row,
                expected=f"one of {', '.join(numbers) or 'no groups'}",
                found=number,
                remedy="restore the group's row in data_optics",
            )
        at = numbers.index(number)
        values = {label: column[at] for label, column in table.items()}
        _check_dimensionality(document, values, number, int(optics.line_numbers[at]), dimensionality)
        groups.append(_read_group(document, values, number, int(optics.line_numbers[at]), n_particles[number]))
    return tuple(groups)


def common_value(document: StarDocument, groups: Sequence[OpticsGroup], field: str, described: str) -> float | None:
    """Give the box size or spacing that all groups share; None where none says.

    Parameters
    ----------
    document
        The STAR.
    groups
        Its optics groups.
    field
        Which value.
    described
        What it is, for the message.

    Raises
    ------
    InputError
        If groups differ by more than 0.1 %: one particle set has one box size and one spacing.
    """
    stated = [group for group in groups if getattr(group, field) is not None]
    if not stated:
        return None
    reference = float(getattr(stated[0], field))
    for group in stated:
        if abs(getattr(group, field) - reference) > 1e-3 * reference:
            n_particles = sum(g.n_particles for g in stated)
            listed = "; ".join(
                f"group {g.number} {g.name}".strip()
                + f" ({g.n_particles} of {n_particles} particles): {getattr(g, field):g}"
                for g in stated
            )
            raise InputError(
                f"optics groups differ in {described}",
                file=document.source,
                row=group.row,
                expected=f"one {described} for all particles",
                found=listed,
                remedy="bring all groups to one box and pixel size, or give a STAR for each",
            )
    return reference


def common_pixel_size(document: StarDocument, groups: Sequence[OpticsGroup]) -> float:
    """Give the pixel size of 2D images, in Å.

    Raises
    ------
    InputError
        If groups differ, or none says.
    """
    spacing = common_value(document, groups, "spacing_angstrom", "pixel size")
    if spacing is None:
        raise InputError(
            "the pixel size of the images is not known",
            file=document.source,
            expected="rlnImagePixelSize in data_optics",
            found="none",
            remedy="give the particles.star as RELION or WarpTools wrote it",
        )
    return spacing


def spacing_of_old_layout(document: StarDocument, block: StarBlock, cells: Mapping[str, Sequence[str]]) -> float | None:
    """Read the spacing of a STAR without optics groups: rlnPixelSize, or detector pixel and magnification.

    rlnDetectorPixelSize is µm, so the spacing is ``10⁴ · pixel / magnification``: at Warp's magnification of
    10,000 it is numerically Å.

    Raises
    ------
    InputError
        If rows differ by more than 0.1 %, or a number cannot be read.
    """
    if "rlnPixelSize" in cells:
        values = read_numbers(document, block, "rlnPixelSize", cells["rlnPixelSize"])
    elif "rlnDetectorPixelSize" in cells and "rlnMagnification" in cells:
        pixel = read_numbers(document, block, "rlnDetectorPixelSize", cells["rlnDetectorPixelSize"])
        magnification = read_numbers(document, block, "rlnMagnification", cells["rlnMagnification"])
        with np.errstate(divide="ignore", invalid="ignore"):
            values = pixel * 1e4 / magnification
    else:
        return None
    bad = [i for i, value in enumerate(values.tolist()) if not is_spacing(value)]
    if bad:
        raise no_spacing("the pixel size", values[bad[0]], document.source, int(block.line_numbers[bad[0]]))
    different = np.flatnonzero(np.abs(values - values[0]) > 1e-3 * values[0])
    if len(different):
        raise InputError(
            "particles differ in pixel size",
            file=document.source,
            row=int(block.line_numbers[different[0]]),
            expected=f"{values[0]:g} Å, as in line {block.line_numbers[0]}",
            found=f"{values[different[0]]:g} Å in {len(different)} rows",
            remedy="bring all particles to one pixel size, or give a STAR for each",
        )
    return float(values[0])


def not_positive(label: str, document: StarDocument, row: int, found: str) -> InputError:
    """The error for a size or spacing of a STAR that is none.

    Parameters
    ----------
    label
        Of the column.
    document, row
        Where it was read; ``row`` is its line in the file.
    found
        The text of the cell.
    """
    problem = f"{label} is not a positive number"
    remedy = "write the right number there, or ask the program that wrote the STAR for it again"
    return InputError(
        problem, file=document.source, row=row, expected="a finite number above 0", found=found, remedy=remedy
    )


def _read_group(
    document: StarDocument, values: Mapping[str, str], number: str, row: int, n_particles: int
) -> OpticsGroup:
    def positive(label: str) -> float | None:
        if label not in values:
            return None
        value = number_of(values[label])
        if value is None or value <= 0:
            raise not_positive(label, document, row, values[label])
        return value

    spacing = positive("rlnImagePixelSize")
    if spacing is None:
        # RELION 4 states the pixel of the tilt series and how far the subtomograms are binned.
        tilt_series, binning = positive("rlnTomoTiltSeriesPixelSize"), positive("rlnTomoSubtomogramBinning")
        spacing = None if tilt_series is None else tilt_series * (binning or 1.0)
    if spacing is not None and not is_spacing(spacing):
        raise no_spacing(f"the pixel size of optics group {number}", spacing, document.source, row)
    box = positive("rlnImageSize")
    if box is not None and (not box.is_integer() or box > _LARGEST_BOX):
        raise InputError(
            "rlnImageSize is no box size",
            file=document.source,
            row=row,
            expected=f"a whole number of voxels, {_LARGEST_BOX} at most",
            found=values["rlnImageSize"],
        )
    name = values.get("rlnOpticsGroupName", "")
    return OpticsGroup(number, name, row, n_particles, spacing, None if box is None else round(box))


def _check_dimensionality(
    document: StarDocument, values: Mapping[str, str], number: str, row: int, dimensionality: str
) -> None:
    found = values.get("rlnImageDimensionality", dimensionality)
    if whole_number_of(found) != int(dimensionality):
        wanted = "3D subtomograms" if dimensionality == "3" else "2D stacks"
        raise InputError(
            f"optics group {number} does not hold {wanted}",
            file=document.source,
            row=row,
            expected=f"rlnImageDimensionality {dimensionality}",
            found=found,
            remedy=f"keep the groups of {wanted} only",
        )


def group_number(text: str) -> str:
    """Give the number of an optics group as plain digits: `01` and `1.000` are group 1; other texts stay."""
    number = whole_number_of(text)
    return text if number is None else str(number)
