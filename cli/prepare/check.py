"""``cryodc check``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from cryodc_cli.options import (
    console,
    data_dir_option,
    input_options,
    invert_option,
    seed_option,
    tilt_axis_option,
    tilt_range_option,
    tilt_ranges_option,
)
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from cryodc.check import CheckReport, PoseCheck
    from cryodc.fourier import TiltAxis
    from cryodc.io import Problem

_SHOWN = 6
_SAME = 6


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
@tilt_ranges_option
@tilt_axis_option
@invert_option
@data_dir_option
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Read the voxels of at most this many particles, drawn at random; headers are read for all.",
)
@seed_option
@click.option(
    "--duplicate-distance",
    type=click.FloatRange(min=0),
    metavar="Å",
    help="Point out particles of a tomogram nearer than this; 0 for none.  [default: a tenth of the box edge]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    star: Path | None,
    round_trip: tuple[Path, Path] | None,
    tilt_range: tuple[float, float] | None,
    tilt_ranges: Path | None,
    tilt_axis: "TiltAxis",
    invert: bool,
    data_dir: Path | None,
    sample: int,
    seed: int,
    duplicate_distance: float | None,
    as_json: bool,
) -> None:
    """Say what PARTICLES.STAR holds, and everything wrong with it, before any training.

    Reads the header of every file, and measures on a sample of the particles what nothing else would notice:
    contrast, missing wedge, convention of the poses. Give the options you will train with. The exit code is 0
    if all is well and 2 if there is a problem; warnings do not change it. With --round-trip it is 0 if the two
    files can be compared, whatever differs.

    Example: cryodc check particles.star --tilt-range -60 60
    """
    if (star is None) == (round_trip is None):
        raise click.UsageError("expected PARTICLES.STAR, or --round-trip BEFORE.star AFTER.star")
    if round_trip is not None:
        _compare(*round_trip, as_json)
    if star is None:
        return
    from cryodc.check import CheckSettings, check_particles

    options = input_options(tilt_range, tilt_ranges, tilt_axis, invert)
    report = check_particles(star, CheckSettings(data_dir, options, sample, seed, duplicate_distance))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print(report)
    ctx.exit(2 if report.problems else 0)


def _compare(before: Path, after: Path, as_json: bool) -> None:
    from cryodc_cli.prepare.round_trip import print_comparison

    from cryodc.star import compare_stars

    comparison = compare_stars(before, after)
    if as_json:
        click.echo(json.dumps(comparison.as_dict(), indent=2))
    else:
        print_comparison(comparison)


def _print(report: "CheckReport") -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _lines(report):
        table.add_row(Text(name, style="dim"), Text(value))
    out = console()
    out.print(table)
    if report.poses is not None:
        _print_conventions(out, report.poses)
    for note in report.notes:
        out.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    _print_findings(out, report, report.warnings, "warning: ", "yellow")
    _print_findings(out, report, report.problems, "", "red")
    if report.warnings:
        out.print(_count(len(report.warnings), "warning"), style="bold yellow")
    if report.problems:
        out.print(_count(len(report.problems), "problem"), style="bold red")
    else:
        out.print("No problem found.", style="green")


def _print_findings(
    out: Console, report: "CheckReport", findings: Sequence["Problem"], prefix: str, style: str
) -> None:
    """Each kind in full once, then its other rows."""
    kinds: dict[str, list[Problem]] = {}
    for finding in findings:
        kinds.setdefault(finding.error.problem, []).append(finding)
    for same in kinds.values():
        out.print()
        out.print(f"{prefix}{_place(same[0])}{same[0].error}", style=style, markup=False, soft_wrap=True)
        for finding in same[1:_SAME]:
            parts = (finding.error.file, finding.error.found)
            detail = ": ".join(str(part) for part in parts if part not in (None, report.source))
            out.print(f"  {_place(finding)}{detail}", style=style, markup=False, soft_wrap=True)
        if len(same) > _SAME:
            out.print(f"  … and {len(same) - _SAME} more: --json lists them all", style=style, markup=False)


def _print_conventions(out: Console, poses: "PoseCheck") -> None:
    """RELION's convention, each that departs from it in one way, and the one that was found."""
    from cryodc.check import describe_convention

    # Where every origin is 0, what they mean makes no difference.
    shown = [
        score
        for score in poses.scores
        if score.convention == poses.found
        or score.convention.complexity == 0
        or (score.convention.complexity == 1 and score.over_relion != 0)
    ]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header, justify in (("poses read", "left"), ("half-map FSC", "right"), ("over RELION's", "right")):
        table.add_column(Text(header, style="dim"), justify="right" if justify == "right" else "left")
    for score in shown:
        mark = " ◀" if score.convention == poses.found and poses.verdict != "undetermined" else ""
        name = describe_convention(score.convention) + mark
        table.add_row(Text(name), f"{score.fsc:.2f}", f"{score.over_relion:+.1f} s.e.")
    out.print(table)


def _count(n: int, word: str) -> str:
    return f"{n} {word if n == 1 else f'{word}s'}."


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
    lines.append(("coordinates", report.coordinates or "none"))
    if report.found_in:
        places = ", ".join(f"{n} in {place}" for place, n in report.found_in.items())
        lines.append(("images found", places.replace(" in absolute paths", " at absolute paths")))
    lines.append(("weights", _describe_weights(report)))
    lines.append(("poses", _describe_poses(report)))
    halves = report.half_sets
    lines.append(("half sets", "none" if halves is None else f"{halves[0]} and {halves[1]} (rlnRandomSubset)"))
    lines.append(("sample", f"{report.n_sampled} particles read (seed {report.seed})"))
    contrast = report.contrast
    if contrast is not None:
        sign = {"white": "white: protein is positive", "black": "black: protein is negative"}
        lines.append(("contrast", f"{sign.get(contrast.sign, 'undetermined')} (score {contrast.score:+.1f})"))
    lines.append(("missing wedge", _describe_wedge(report)))
    return lines


def _describe_weights(report: "CheckReport") -> str:
    fraction, layout = report.measured_fraction, report.weight_layout
    if fraction is None:
        if report.has_weights:
            return layout or "named in the STAR, none could be read"
        return "none in the STAR: training needs --tilt-range MIN MAX, or --tilt-ranges FILE.csv"
    low, mean, high = fraction
    spread = f"{mean:.0%}" if high - low < 0.005 else f"{mean:.0%} ({low:.0%} to {high:.0%})"
    return f"{layout or 'wedge of the tilt range given'}; {spread} of Fourier space measured"


def _describe_poses(report: "CheckReport") -> str:
    if not report.has_poses:
        return "unknown: no rlnAngleRot, Tilt, Psi"
    if report.poses is None:
        return "in the STAR, not tried: too few particles, or all the same"
    found = {
        "RELION": f"agree with the particles as RELION reads them (by {report.poses.over_shuffled:.1f} s.e.)",
        "other": "agree with the particles, but not as RELION reads them",
        "undetermined": "no convention makes the particles agree: unrefined, wrong in another way, or too few",
    }
    return f"in the STAR; {found[report.poses.verdict]}"


def _describe_wedge(report: "CheckReport") -> str:
    from cryodc.check import describe_wedge

    if report.wedge is None:
        return "not measured"
    wedge = report.wedge
    if not wedge.visible:
        return "none to be seen"
    measured = f"{describe_wedge(wedge.measured)} as measured; {wedge.measured.depth:.1%} of the power outside it"
    return measured if wedge.share is None else f"{measured}; the one claimed explains {max(0, wedge.share):.0%} of it"
