"""``cryodc plan``."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from cryodc_cli.options import (
    console,
    data_dir_option,
    input_options,
    invert_option,
    protein_options,
    resolve_run,
    sample_option,
    seed_option,
    star_argument,
    tilt_axis_option,
    tilt_range_option,
    tilt_ranges_option,
)
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from cryodc.planning import Needed, Plan


@click.command()
@star_argument
@protein_options
@click.option(
    "--particles",
    "numbers",
    type=click.IntRange(min=4),
    multiple=True,
    default=(30, 100, 300, 1000),
    show_default="30, 100, 300, 1000",
    help="Particles of each protein that are planned for; several times, rising.",
)
@click.option("--resolution", type=click.FloatRange(min=0, min_open=True), help="Say how many particles reach it, Å.")
@click.option("--snr", type=click.FloatRange(min=0, min_open=True), help="SNR, where it is known better than measured.")
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    help="A run of these particles: the SNR then follows from the agreement of its half maps.",
)
@click.option(
    "--trial",
    type=click.IntRange(min=8),
    default=32,
    show_default=True,
    help="Particles of each protein that are made and compared: more make intervals narrower.",
)
@click.option(
    "--box",
    "largest_box",
    type=click.IntRange(min=16),
    default=32,
    show_default=True,
    help="Larger boxes are computed at a coarser spacing; an even number.",
)
@tilt_range_option
@tilt_ranges_option
@tilt_axis_option
@invert_option
@data_dir_option
@sample_option
@seed_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def plan(
    star: Path,
    map_files: tuple[Path, ...],
    structure_files: tuple[Path, ...],
    numbers: tuple[int, ...],
    resolution: float | None,
    snr: float | None,
    run: Path | None,
    trial: int,
    largest_box: int,
    tilt_range: tuple[float, float] | None,
    tilt_ranges: Path | None,
    tilt_axis: str,
    invert: bool,
    data_dir: Path | None,
    n_sample: int,
    seed: int,
    as_json: bool,
) -> None:
    """Say whether proteins would come apart in PARTICLES.STAR, and how many particles it would take.

    Measures wedge, noise and SNR of the particles. Makes a few of each protein as they were recorded, and compares
    them with templates as so many particles would give. Tells for each pair how far it comes apart, and for each
    protein the resolution of its average, with intervals of 95 %.

    Example: cryodc plan particles.star --map a.mrc --map b.mrc --resolution 25
    """
    from cryodc_cli.prepare.measured import print_measured
    from cryodc_cli.progress import lines

    from cryodc.planning import MeasureRequest, PlanRequest, plan_particles
    from cryodc.simulation import choose_proteins

    if not map_files and not structure_files:
        raise click.UsageError("expected at least one --map or --structure")
    proteins = choose_proteins([], map_files, structure_files)
    measure = MeasureRequest(
        star,
        data_dir,
        input_options(tilt_range, tilt_ranges, tilt_axis, invert),
        n_sample,
        seed,
        largest_box=largest_box,
        run=None if run is None else resolve_run(run),
        snr=snr,
    )
    with lines() as tell:
        found = plan_particles(PlanRequest(measure, numbers, trial, resolution), proteins, tell)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    print_measured(found.recorded)
    out = console()
    _print_pairs(out, found)
    _print_maps(out, found)


def _print_pairs(out: "Console", found: "Plan") -> None:
    if not found.separations:
        return
    table = _table(("pair", "particles of each", "distance", "wrong", "expected ARI"))
    for one in found.separations:
        number = "the maps themselves" if one.n_particles == math.inf else f"{one.n_particles:,.0f}"
        low, high = one.ari_interval
        agreement = f"{one.ari:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(f"{one.first} / {one.second}", number, f"{one.distance:.1f}", f"{one.wrong:.1%}", agreement)
    out.print()
    out.print(table)
    fewest = min(one.n_particles for one in found.separations)
    for needed in found.for_ari:
        takes = _range(needed, fewest)
        out.print(f"{' / '.join(needed.what)}: ARI 0.9 takes {takes} particles of each", markup=False)


def _print_maps(out: "Console", found: "Plan") -> None:
    from cryodc.planning import FEWEST

    table = _table(("average", "particles", "expected resolution"))
    for one in found.maps:
        finest, coarsest = (f"{limit:.1f}" for limit in one.interval)
        resolution = f"{one.resolution_angstrom:.1f} Å ({finest} to {coarsest})"
        table.add_row(one.name, f"{one.n_particles:,}", resolution if one.resolution_angstrom < math.inf else "none")
    out.print()
    out.print(table)
    for needed in found.for_resolution:
        out.print(f"{needed.what[0]}: this resolution takes {_range(needed, FEWEST)} particles", markup=False)


def _range(needed: "Needed", fewest: float) -> str:
    """The number and its interval; the fewest that was tried is an upper limit."""

    def say(number: float | None) -> str:
        return "more than planned for" if number is None else f"{number:,.0f}"

    if needed.most is not None and needed.most <= fewest:
        return f"at most {say(needed.most)}"
    if needed.n_particles is None:
        return f"more than planned for (at least {say(needed.fewest)})" if needed.fewest else "more than planned for"
    return f"{say(needed.n_particles)} ({say(needed.fewest)} to {say(needed.most)})"


def _table(headers: tuple[str, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for place, header in enumerate(headers):
        table.add_column(header, header_style="dim", justify="left" if place == 0 else "right")
    return table
