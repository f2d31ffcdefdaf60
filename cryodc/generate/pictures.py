"""Pictures of what a run's model decodes, beside the run's particles; and the sentences that go with them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryodc.figures import (
    PictureKind,
    ShownParticle,
    class_colour,
    class_name,
    grid_png,
    missing_notice,
    slices_png,
    traversal_png,
)
from cryodc.generate.decode import TransferGrid, Traversal
from cryodc.generate.encoded_run import EncodedRun


def grid_picture(encoded: EncodedRun, grid: TransferGrid, view: PictureKind) -> tuple[bytes, str]:
    """The grid beside its particles; and a sentence on particles that are not shown, or nothing."""
    left = [encoded.previews.show(row) for row in grid.rows]
    top = [encoded.previews.show(column) for column in grid.columns]
    numbers = [encoded.class_number(row) for row in grid.rows]
    names = [class_name(number) if number else f"group {i}" for i, number in enumerate(numbers, start=1)]
    picture = grid_png(
        grid.cells,
        view=view,
        row_particles=_pictures(left),
        column_particles=_pictures(top),
        row_names=names,
        row_colours=[class_colour(number) for number in numbers],
        box_angstrom=encoded.box_angstrom,
    )
    return picture, missing_notice([*left, *top])


def traversal_picture(encoded: EncodedRun, traversal: Traversal, class_number: int, view: PictureKind) -> bytes:
    """The traversal of a class as a PNG; the class's codes must not all be alike.

    Parameters
    ----------
    encoded
        The run.
    traversal
        The decoded volumes.
    class_number
        rlnClassNumber.
    view
        How volumes are drawn.
    """
    axes = [
        (f"{class_name(class_number)}, axis {a}\n{axis.variance_share:.0%} of variance", axis.cells)
        for a, axis in enumerate(traversal.axes, start=1)
    ]
    return traversal_png(axes, view=view, colour=class_colour(class_number), box_angstrom=encoded.box_angstrom)


def particles_picture(encoded: EncodedRun, n_particles: int, seed: int) -> tuple[bytes | None, str]:
    """Particles drawn at random, slice by slice, raw and low-passed; None where no image is there, and why."""
    n_drawn = min(n_particles, len(encoded.codes))
    drawn = np.sort(np.random.default_rng(seed).choice(len(encoded.codes), n_drawn, replace=False))
    shown = [encoded.previews.show(int(row)) for row in drawn]
    rows = []
    for row, particle in zip(drawn, shown, strict=True):
        number = encoded.class_number(int(row))
        name = f"{class_name(number)}, row {row + 1}" if number else f"row {row + 1}"
        if particle.raw is not None and particle.filtered is not None:
            rows += [(f"{name}\nas recorded", class_colour(number), particle.raw)]
            rows += [(f"low-passed, {encoded.previews.low_pass_angstrom:.0f} Å", "#5b6570", particle.filtered)]
    return (slices_png(rows, box_angstrom=encoded.box_angstrom) if rows else None), missing_notice(shown)


def describe_shares(grid: TransferGrid) -> str:
    """What the variance between the cells of a grid goes with, as a sentence."""
    by_content, by_transformation, rest = grid.shares
    return (
        f"of the variance between cells {by_content:.0%} goes with the content code, {by_transformation:.0%} with the "
        f"transformation code, {rest:.0%} with both together"
    )


def describe_axes(traversal: Traversal) -> list[str]:
    """How much the codes of a class vary along each axis, and the decoded volumes with them, as sentences."""
    return [
        f"axis {a}: {axis.variance_share:.0%} of the variance; its ends differ from the middle by {axis.change:.2f} "
        "standard deviations of the volume"
        for a, axis in enumerate(traversal.axes, start=1)
    ]


def _pictures(shown: Sequence[ShownParticle]) -> list[NDArray[np.float32] | None] | None:
    """Subtomograms low-passed, images as recorded; None where there is not one."""
    pictures = [p.raw if p.raw is not None and p.raw.ndim == 2 else p.filtered for p in shown]
    return pictures if any(picture is not None for picture in pictures) else None
