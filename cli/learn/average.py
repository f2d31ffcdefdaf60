"""``cryodc average``."""

from pathlib import Path

import rich_click as click
from cryodc_cli.options import (
    console,
    device_option,
    memory_option,
    plain_table,
    print_next,
    resolve_run,
    run_argument,
    seed_option,
)


@click.command()
@run_argument
@click.option("--ignore-poses", is_flag=True, help="Align from nothing even where the STAR has poses.")
@seed_option
@device_option
@click.option("--starts", default=2, show_default=True, type=click.IntRange(min=1), help="Random starts per class.")
@click.option(
    "--classify/--no-classify",
    default=None,
    help="Sort particles anew by aligning each to every class; the clusters are where this starts. By default done "
    "where poses are not those of the STAR, unless you chose the particles of each class.",
)
@click.option("--iterations", default=6, show_default=True, type=click.IntRange(min=3), help="Rounds of sorting.")
@click.option(
    "--junk/--no-junk",
    default=True,
    show_default=True,
    help="Put particles that fit no class better than noise into class 0; only where particles are sorted anew.",
)
@click.option(
    "--symmetry",
    "symmetry",
    multiple=True,
    metavar="[CLASS:]GROUP",
    help="Point group to impose, C1 to I, of all classes or of one (2:D7). May be given several times.",
)
@click.option(
    "--mask",
    "mask",
    multiple=True,
    metavar="[CLASS:]MRC",
    help="Soft mask to use instead of the automatic one, of all classes or of one (2:mask.mrc). May be given several "
    "times. Where poses are aligned from nothing only a sphere has a meaning.",
)
@click.option(
    "--low-pass",
    "low_pass",
    type=click.FloatRange(min=0, min_open=True),
    metavar="Å",
    help="Resolution up to which poses are first searched for, raised from there; by default five shells of the box.",
)
@click.option(
    "--sort-with",
    "sort_with",
    default="3000",
    show_default=True,
    metavar="N|all",
    help="Particles that classes are found with, drawn at random; all others are then sorted by these classes.",
)
@memory_option
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of a table.")
def average(
    run: Path | None,
    ignore_poses: bool,
    seed: int,
    device: str,
    starts: int,
    classify: bool | None,
    iterations: int,
    junk: bool,
    symmetry: tuple[str, ...],
    mask: tuple[str, ...],
    low_pass: float | None,
    sort_with: str,
    memory_bytes: float | None,
    as_json: bool,
) -> None:
    """Sort the particles of a run and average each class, in two halves, with FSC.

    Where the STAR has no poses, every particle is aligned to a map of every cluster. Classes are split and merged by
    evidence, and particles of nothing are set aside. Where the STAR has poses, each cluster is averaged as it is.

    Writes averages/: a map, two half maps and a mask per class, fsc.csv, particles.star with classes, half sets
    and the poses that were found, and summary.json. A class whose halves do not agree is marked not aligned.

    Example: cryodc average run/ --ignore-poses
    """
    from cryodc_cli.progress import lines

    from cryodc.averaging import AverageRequest, average_run
    from cryodc.runs import current_averages, current_classes

    symmetries, masks, most_sorted = _symmetries(symmetry), _masks(mask), _most(sort_with)
    folder = resolve_run(run, writes=True)

    with lines() as tell:
        results = average_run(
            folder,
            AverageRequest(
                ignore_poses=ignore_poses,
                seed=seed,
                device=device,
                n_starts=starts,
                classify=classify,
                n_rounds=iterations,
                junk=junk,
                symmetries=symmetries,
                masks=masks,
                low_pass_angstrom=low_pass,
                memory_bytes=memory_bytes,
                most_sorted=most_sorted,
            ),
            tell,
        )
    out = console()
    if as_json:
        summary = (folder.averages / "summary.json").read_text(encoding="utf-8")
        out.print(summary, markup=False, soft_wrap=True)
        return
    table = plain_table("class", "particles", "resolution", "verdict", "note")
    for result in results:
        known = result.resolution_angstrom is not None
        table.add_row(
            str(result.class_number),
            str(result.n_particles),
            f"{result.resolution_angstrom:.1f} Å" if known else "–",
            result.verdict.kind,
            result.note if result.verdict.kind in ("protein", "no-common-structure") else result.verdict.reason,
        )
    out.print(table)
    unassigned = int((current_classes(folder).labels < 0).sum())
    if unassigned:
        out.print(f"{unassigned} particles unassigned: no class explains them better than noise would", markup=False)
    averages = current_averages(folder)
    classification = None if averages is None else averages.classification
    for warning in [] if classification is None else classification.warnings:
        out.print(f"warning: {warning}", markup=False, style="yellow")
    out.print(f"Wrote {folder.averages / 'particles.star'}", markup=False)
    print_next("report", folder.path)


def _most(text: str) -> int | None:
    """``all`` as None, or a number of particles."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise click.BadParameter(f"expected all or a number above 0, found {text}", param_hint="--sort-with")
    return int(text)


def _symmetries(given: tuple[str, ...]) -> dict[int | None, str]:
    """``("D2", "1:D7")`` as point groups by class number; None stands for all others."""
    from cryodc.errors import InputError
    from cryodc.geometry import POINT_GROUPS, symmetry_rotations

    found: dict[int | None, str] = {}
    for text in given:
        number, colon, group = text.rpartition(":")
        if colon and not (number.isdigit() and int(number) > 0):
            raise InputError("--symmetry names no class", expected="GROUP or CLASS:GROUP, such as 2:D7", found=text)
        try:
            symmetry_rotations(group)
        except ValueError as error:
            raise InputError(
                f"--symmetry {text}: {error}", expected=POINT_GROUPS, remedy="give GROUP, or CLASS:GROUP such as 2:D7"
            ) from error
        found[int(number) if colon else None] = group.strip().upper()
    return found


def _masks(given: tuple[str, ...]) -> dict[int | None, Path]:
    """``("all.mrc", "1:core.mrc")`` as files by class number; None stands for all others."""
    from cryodc.errors import InputError

    found: dict[int | None, Path] = {}
    for text in given:
        number, colon, name = text.partition(":")
        if not (colon and number.isdigit()):
            number, colon, name = "", "", text
        if colon and (int(number) < 1 or not name):
            raise InputError("--mask names no class", expected="MRC or CLASS:MRC, such as 2:mask.mrc", found=text)
        found[int(number) if colon else None] = Path(name)
    return found
