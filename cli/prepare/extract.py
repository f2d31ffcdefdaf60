"""``cryodc extract``."""

from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import (
    OutPath,
    check_tilt_range,
    console,
    print_next,
    tilt_axis_option,
    tilt_ranges_option,
)

_N_SHOWN = 5


@click.command()
@click.argument("tomograms", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TOMOGRAM.mrc…")
@click.option(
    "--picks",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="RELION STAR, Dynamo .tbl, STOPGAP or EM motivelist, copick .json, CryoET Data Portal .ndjson or CSV.",
)
@click.option("--box", "box_size", type=click.IntRange(min=8), required=True, help="Box size of the output, even.")
@click.option("--bin", "binning", type=click.IntRange(min=1), default=1, show_default=True, help="Fourier binning.")
@click.option(
    "--out",
    type=OutPath(),
    required=True,
    help="The folder to make; refused if it holds anything.",
)
@click.option(
    "--edge",
    type=click.Choice(["drop", "pad"]),
    default="drop",
    show_default=True,
    help="Boxes that reach beyond the tomogram: drop them, or pad them with their mean.",
)
@click.option("--skip-others", is_flag=True, help="Leave out picks of tomograms that are not given.")
@click.option(
    "--tilt-range",
    nargs=2,
    type=float,
    callback=check_tilt_range,
    metavar="MIN MAX",
    help="Tilt angles in degrees: writes the weights.",
)
@tilt_ranges_option
@tilt_axis_option
@click.option(
    "--normalise/--no-normalise", default=True, show_default=True, help="Each box to mean 0, standard deviation 1."
)
@click.option("--invert", is_flag=True, help="Protein is black in the tomograms: multiply every voxel by -1.")
@click.option("--spacing", type=click.FloatRange(min=0, min_open=True), help="Å of the tomograms, over their headers.")
@click.option(
    "--coordinate-spacing",
    type=click.FloatRange(min=0, min_open=True),
    help="Å per unit of the picks' coordinates, over what their file says.",
)
def extract(
    tomograms: tuple[Path, ...], picks: Path, out: Path, tilt_ranges: Path | None, **options: Any
) -> dict[str, Any]:
    """Extract subtomograms at picks, ready for `cryodc train`.

    Boxes are cut with the pick exactly in the middle, poses kept. Writes particles.star, subtomograms/, weights/
    and, where boxes were dropped, dropped.csv. Tomograms are MRC files or OME-Zarr
    folders, matched to picks by name.

    Example: cryodc extract TS_01.mrc TS_02.mrc --picks picks.star --box 64 --tilt-range -60 60 --out sub/
    """
    from cryodc_cli.progress import progress

    from cryodc.picks import ExtractRequest, extract_subtomograms
    from cryodc.tilt_angles import read_tilt_ranges

    request = ExtractRequest(
        tomograms=tomograms,
        picks=picks,
        out=out,
        box_size=options["box_size"],
        binning=options["binning"],
        edge=options["edge"],
        skip_others=options["skip_others"],
        tilt_range=options["tilt_range"],
        tilt_ranges={} if tilt_ranges is None else read_tilt_ranges(tilt_ranges),
        tilt_axis=options["tilt_axis"],
        normalise=options["normalise"],
        invert=options["invert"],
        spacing_angstrom=options["spacing"],
        coordinate_spacing_angstrom=options["coordinate_spacing"],
    )
    with progress() as bar:
        task = bar.add_task("Extracting", total=None)
        result = extract_subtomograms(request, lambda done, total: bar.update(task, completed=done, total=total))
    picked = result.picks
    lines = [f"Picks: {picked.format}, {len(picked)}, in {picked.frame.describe()}"]
    if result.n_skipped:
        lines.append(f"Left out: {result.n_skipped} picks of other tomograms")
    lines += [f"{name}: {n} particles" for name, n in result.n_extracted.items()]
    if result.dropped:
        lines.append(
            f"Dropped {len(result.dropped)} of {len(picked) - result.n_skipped}, listed in {out / 'dropped.csv'}:"
        )
        lines += [f"  line {pick.row}, {pick.tomogram}: {pick.why}" for pick in result.dropped[:_N_SHOWN]]
        lines += ["  …"] if len(result.dropped) > _N_SHOWN else []
    lines.append(f"Wrote {result.star}: box {request.box_size}, {result.spacing_angstrom:g} Å")
    printer = console()
    for line in lines:
        printer.print(line, markup=False, soft_wrap=True)
    print_next("train", result.star, *([] if result.has_weights else ["--tilt-range", "MIN", "MAX"]))
    return {
        "star": result.star,
        "n_extracted": result.n_extracted,
        "n_skipped": result.n_skipped,
        "dropped": result.dropped,
        "box_size": request.box_size,
        "spacing_angstrom": result.spacing_angstrom,
        "has_weights": result.has_weights,
    }
