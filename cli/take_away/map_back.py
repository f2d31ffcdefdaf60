"""``cryodc map-back``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from cryodc_cli.options import OutPath, console, coordinate_spacing_option, resolve_run, run_argument

if TYPE_CHECKING:
    from cryodc.export import PlannedTomogram

_N_SHOWN = 8


@click.command(name="map-back")
@run_argument
@click.option("--tomogram", "tomograms", multiple=True, metavar="NAME", help="This tomogram only; several times.")
@click.option("--class", "classes", metavar="CLASSES", help="Classes to place, as in 1,3-5.  [default: all]")
@click.option(
    "--bin", "binning", type=click.IntRange(min=1), default=1, show_default=True, help="Over the averages' voxels."
)
@click.option(
    "--size",
    nargs=3,
    type=click.IntRange(min=1),
    metavar="X Y Z",
    help="Voxels of the output.  [default: as large as the particles need]",
)
@click.option(
    "--tomogram-file",
    type=click.Path(path_type=Path),
    help="A tomogram whose size and spacing to take, and whose particles to place.",
)
@coordinate_spacing_option
@click.option("--out", type=OutPath(), required=True, help="The folder to make; refused if it holds anything.")
def map_back(
    run: Path | None,
    tomograms: tuple[str, ...],
    classes: str | None,
    binning: int,
    size: tuple[int, int, int] | None,
    tomogram_file: Path | None,
    coordinate_spacing: float | None,
    out: Path,
) -> list[dict[str, Any]]:
    """Place each class's average at its particles, in a volume for each tomogram.

    Writes NAME.mrc, NAME_classes.mrc (the class in each voxel) and a CSV of points per class that napari opens.

    Example: cryodc map-back run/ --tomogram TS_01 --bin 2 --out mapped/
    """
    from cryodc.export import map_back as map_run
    from cryodc.export import parse_classes

    if tomogram_file is not None and (tomograms or size is not None or binning != 1):
        raise click.UsageError("--tomogram-file says the tomogram, its size and its voxels: give it alone")
    written = map_run(
        resolve_run(run),
        out,
        tomograms=tomograms,
        classes=[] if classes is None else parse_classes(classes),
        binning=binning,
        size_xyz=size,
        tomogram_file=tomogram_file,
        coordinate_spacing_angstrom=coordinate_spacing,
        on_plan=_announce,
    )
    printer = console()
    for tomogram in written:
        printer.print(f"{tomogram.n_placed} particles: {tomogram.density}", markup=False, soft_wrap=True)
        if tomogram.n_unassigned:
            printer.print(f"  unassigned (class 0), left out: {tomogram.n_unassigned}", markup=False)
        if tomogram.outside:
            shown = ", ".join(map(str, tomogram.outside[:_N_SHOWN])) + (
                ", …" if len(tomogram.outside) > _N_SHOWN else ""
            )
            printer.print(
                f"  outside the volume, left out: {len(tomogram.outside)}, lines {shown} of averages/particles.star",
                markup=False,
                soft_wrap=True,
            )
    return [vars(tomogram) for tomogram in written]


def _announce(planned: Sequence["PlannedTomogram"], coordinates: str) -> None:
    """Say before anything is written how coordinates were read, and how much will be written."""
    from cryodc.export import describe_bytes

    printer = console()
    printer.print(f"Coordinates: {coordinates}", markup=False, soft_wrap=True)
    if planned:
        z, y, x = max((plan.shape for plan in planned), key=math.prod)
        size = describe_bytes(sum(plan.n_bytes for plan in planned))
        count = f"{len(planned)} tomogram{'s' if len(planned) > 1 else ''}"
        printer.print(
            f"Writing {size}: {count} of up to {x} × {y} × {z} voxels (x, y, z)", markup=False, soft_wrap=True
        )
