"""``cryodc import``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from cryodc_cli.options import (
    OutPath,
    console,
    data_dir_option,
    device_option,
    print_next,
)

if TYPE_CHECKING:
    from cryodc.tilts import ImportSummary


@click.command("import")
@click.argument("star", type=click.Path(path_type=Path, dir_okay=False), metavar="STAR")
@click.option(
    "--out",
    type=OutPath(),
    default="subtomos",
    show_default=True,
    help="The folder to make; refused if it holds anything.",
)
@click.option(
    "--tomograms",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The tomograms.star, where no optimisation set beside STAR names it.",
)
@click.option("--box", "box_size", type=int, help="Box size, voxels.  [default: that of the stacks]")
@click.option("--bin", "binning", type=click.IntRange(min=1), default=1, show_default=True, help="Pixels per voxel.")
@click.option(
    "--hand",
    type=click.Choice(["auto", "1", "-1"]),
    default="auto",
    show_default=True,
    help="Sign of the defocus gradient; auto measures it, or takes rlnTomoHand.",
)
@data_dir_option
@device_option
def import_(star: Path, **options: Any) -> "ImportSummary":
    """Make 3D subtomograms of stacks of 2D tilt images, or of image series.

    STAR is an optimisation_set.star or a particles.star of RELION 5 or WarpTools --2d. Writes particles.star, with
    the rows and poses of the input, and for each particle a volume and its weight. Geometry, defocus and dose come
    from tomograms.star. Image series of Warp and M, with a row for every tilt, state all that themselves.

    Example: cryodc import optimisation_set.star --out subtomos/
    """
    from cryodc_cli.progress import progress

    from cryodc.tilts import import_tilt_stacks

    with progress() as bar:
        task = bar.add_task("Importing", total=None)
        summary = import_tilt_stacks(
            star,
            options.pop("out"),
            on_start=lambda n_particles: bar.update(task, total=n_particles),
            on_batch=lambda n_particles: bar.advance(task, n_particles),
            **options,
        )
    out = console()
    geometry = summary.tomograms or f"the rows of {summary.particles}, one for every tilt image"
    out.print(f"Geometry and defocus: {geometry}", markup=False, soft_wrap=True)
    out.print(f"Coordinates: {summary.coordinates}", markup=False, soft_wrap=True)
    for line in _describe_hands(summary):
        out.print(line, markup=False, soft_wrap=True)
    out.print(
        f"Wrote {summary.n_particles} subtomograms of box {summary.box_size} at {summary.spacing_angstrom:g} Å: "
        f"{summary.star}",
        markup=False,
        soft_wrap=True,
    )
    print_next("check", summary.star)
    return summary


def _describe_hands(summary: "ImportSummary") -> list[str]:
    """One line for each way the sign of the defocus gradient was found."""
    found: dict[str, int] = {}
    for hand in summary.hands.values():
        how = "measured on the images" if hand.measured else "as told"
        if hand.measured and hand.stated not in (None, hand.value):
            how += f"; tomograms.star says {hand.stated:+d}"
        line = f"Defocus gradient {hand.value:+d}, {how}"
        found[line] = found.get(line, 0) + 1
    return [f"{line} ({n} of {len(summary.hands)} tomograms)" for line, n in found.items()]
