"""``cryodc check``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from cryodc_cli.options import console, data_dir_option, tilt_axis_option, tilt_range_option

if TYPE_CHECKING:
    from cryodc.check import CheckReport
    from cryodc.io.images import Problem
    from cryodc.ops.wedge import TiltAxis

_SHOWN = 6
_SAME = 20


@click.command()
@click.argument("star", required=False, type=click.Path(path_type=Path, dir_okay=False), metavar="PARTICLES.STAR")
@click.option(
    "--round-trip",
    nargs=2,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="BEFORE.star AFTER.star",
    help="Instead, compare two STAR files cell by cell and say what changed.",
)
@tilt_range_option
@tilt_axis_option
@data_dir_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Read the voxels of at most this many particles; headers are read for all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    star: Path | None,
    round_trip: tuple[Path, Path] | None,
    tilt_range: tuple[float, float] | None,
    tilt_axis: "TiltAxis",
    data_dir: Path | None,
    limit: int,
    as_json: bool,
) -> None:
    """Say what PARTICLES.STAR holds, and every problem with its row.

    Reads the header of every file the STAR names. The exit code is 0 if all is well and 2 if there is a
    problem; with --round-trip it is 0 if the two files can be compared, whatever differs.

    Example: cryodc check particles.star --tilt-range -60 60
    """
    if (star is None) == (round_trip is None):
        raise click.UsageError("expected PARTICLES.STAR, or --round-trip BEFORE.star AFTER.star")
    if round_trip is not None:
        from cryodc_cli.round_trip import print_comparison

        from cryodc.compare import compare_stars

        comparison = compare_stars(*round_trip)
        if as_json:
            click.echo(json.dumps(comparison.as_dict(), indent=2))
        else:
            print_comparison(comparison)
    if star is None:
        return
    from cryodc.check import check_particles

    report = check_particles(star, data_dir, tilt_range, tilt_axis, limit)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print(report)
    ctx.exit(2 if report.problems else 0)


def _print(report: "CheckReport") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _lines(report):
        table.add_row(Text(name, style="dim"), Text(value))
    out = console()
    out.print(table)
    for note in report.notes:
        out.print(f"note: {note}", style="yellow", markup=False)
    if not report.problems:
        out.print("No problem found.", style="green")
        return
    out.print()
    kinds: dict[str, list[Problem]] = {}
    for problem in report.problems:
        kinds.setdefault(problem.error.problem, []).append(problem)
    for problems in kinds.values():
        out.print(f"{_place(problems[0])}{problems[0].error}", style="red", markup=False, soft_wrap=True)
        for problem in problems[1:_SAME]:
            detail = ": ".join(
                str(part) for part in (problem.error.file, problem.error.found) if part not in (None, report.source)
            )
            out.print(f"  {_place(problem)}{detail}", style="red", markup=False, soft_wrap=True)
        if len(problems) > _SAME:
            out.print(f"  … and {len(problems) - _SAME} more: --json lists them all", style="red", markup=False)
    n_problems = len(report.problems)
    out.print(f"{n_problems} {'problem' if n_problems == 1 else 'problems'}.", style="bold red")


def _place(problem: "Problem") -> str:
    return "" if problem.row is None else f"line {problem.row}: "


def _lines(report: "CheckReport") -> list[tuple[str, str]]:
    lines = [("file", str(report.source))]
    if report.layout is None:
        return lines
    lines += [("layout", report.layout), ("particles", f"{report.n_particles}")]
    if report.tomograms is not None:
        shown = [f"{name or '(no name)'} ({n})" for name, n in list(report.tomograms.items())[:_SHOWN]]
        more = ", …" if len(report.tomograms) > _SHOWN else ""
        lines.append(("tomograms", f"{len(report.tomograms)}: {', '.join(shown)}{more}"))
    if report.optics_groups:
        groups = [f"{group.name or group.number} ({group.n_particles})" for group in report.optics_groups]
        more = ", …" if len(groups) > _SHOWN else ""
        lines.append(("optics groups", f"{len(groups)}: {', '.join(groups[:_SHOWN])}{more}"))
    lines.append(("box size", "unknown" if report.box_size is None else f"{report.box_size} voxels"))
    spacing = report.spacing_angstrom
    lines.append(("voxel spacing", "unknown" if spacing is None else f"{spacing:g} Å"))
    if report.found_in:
        places = ", ".join(f"{n} in {place}" for place, n in report.found_in.items())
        lines.append(("images found", places.replace(" in absolute paths", " at absolute paths")))
    if report.n_voxels_read == 0:
        return lines
    lines.append(("weights", _describe_weights(report)))
    lines.append(("poses", "in the STAR" if report.has_poses else "unknown: no rlnAngleRot, Tilt, Psi"))
    halves = report.half_sets
    lines.append(("half sets", "none" if halves is None else f"{halves[0]} and {halves[1]} (rlnRandomSubset)"))
    if report.contrast is not None:
        contrast = report.contrast
        sign = {"white": "white: protein is positive", "black": "black: protein is negative"}
        described = sign.get(contrast.sign, "undetermined")
        lines.append(("contrast", f"{described} (score {contrast.score:+.1f}, {contrast.n_particles} particles)"))
    return lines


def _describe_weights(report: "CheckReport") -> str:
    fraction = report.measured_fraction
    if fraction is None:
        return "none in the STAR: training needs --tilt-range MIN MAX, or --tilt-ranges FILE.csv"
    low, mean, high = fraction
    spread = f"{mean:.0%}" if high - low < 0.005 else f"{mean:.0%} ({low:.0%} to {high:.0%})"
    return f"{report.weight_layout or 'wedge of the tilt range given'}; {spread} of Fourier space measured"
