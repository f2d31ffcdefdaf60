"""``cryodc convert``."""

from pathlib import Path
from typing import Any, cast

import rich_click as click
from cryodc_cli.options import (
    OutPath,
    console,
)


@click.command()
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False), metavar="IN")
@click.argument("out", type=OutPath(dir_okay=False), metavar="OUT")
@click.option(
    "--to",
    type=click.Choice(["relion", "dynamo", "stopgap", "csv", "portal"]),
    help="Format of OUT.  [default: by its ending: .star RELION, .tbl Dynamo, .csv CSV, .ndjson CryoET Data Portal]",
)
@click.option(
    "--spacing", type=click.FloatRange(min=0, min_open=True), help="Å of the tomograms, where IN has lengths in Å."
)
@click.option(
    "--tomogram-size",
    nargs=3,
    type=click.IntRange(min=1),
    metavar="X Y Z",
    help="Voxels, where IN counts from the centre (RELION 5).",
)
@click.option(
    "--coordinate-spacing",
    type=click.FloatRange(min=0, min_open=True),
    help="Å per unit of the coordinates of IN, over what it says.",
)
@click.option(
    "--tilt-series-spacing",
    type=click.FloatRange(min=0, min_open=True),
    help="Å of a pixel of the tilt series, which RELION 4 and 5 count.  [default: what IN states]",
)
@click.option(
    "--tomograms",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CSV with columns number, tomogram: names for the numbers of IN.",
)
def convert(source: Path, out: Path, tomograms: Path | None, **options: Any) -> dict[str, Any]:
    """Convert picks between RELION, Dynamo, STOPGAP, the CryoET Data Portal and CSV.

    Positions, rotations, tomograms, classes and half sets are carried over, each by its program's convention; what
    is not is named. copick JSON can be read too. IN stays as it is.

    Example: cryodc convert refined.tbl particles.star --tomograms names.csv
    """
    from cryodc.picks import convert_picks, read_tomogram_names

    result = convert_picks(
        source,
        out,
        options["to"],
        spacing_angstrom=options["spacing"],
        tomogram_size_xyz=cast("tuple[int, int, int] | None", options["tomogram_size"]),
        coordinate_spacing_angstrom=options["coordinate_spacing"],
        tilt_series_spacing_angstrom=options["tilt_series_spacing"],
        tomogram_names=None if tomograms is None else read_tomogram_names(tomograms),
    )
    printer = console()
    printer.print(f"{result.picks.format} → {out}: {len(result.picks)} picks", markup=False, soft_wrap=True)
    printer.print(f"Coordinates: {result.picks.frame.describe()}", markup=False, soft_wrap=True)
    for note in result.notes:
        printer.print(f"note: {note}", markup=False, soft_wrap=True)
    if result.tomograms is not None:
        printer.print(f"Tomogram numbers: {result.tomograms}", markup=False, soft_wrap=True)
    return {
        "picks": out,
        "n_picks": len(result.picks),
        "read_as": result.picks.format,
        "coordinates": result.picks.frame.describe(),
        "tomograms": result.tomograms,
        "notes": result.notes,
    }
