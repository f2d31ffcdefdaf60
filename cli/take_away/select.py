"""``cryodc select``."""

from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import OutPath, console, plain_table, print_next, resolve_run, run_argument


@click.command()
@run_argument
@click.option("--keep", metavar="CLASSES", help="Classes to keep, as in 1,3-5.  [default: all]")
@click.option("--tomogram", "tomograms", multiple=True, metavar="NAME", help="Keep this tomogram only; several times.")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Keep particles whose class is at least this probable.",
)
@click.option("--proteins", is_flag=True, help="Keep classes that average calls protein; see docs/averages.md.")
@click.option(
    "--names",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="LIST",
    help="Keep the particles of this list, one name a line, as the lasso of the report writes it; several times.",
)
@click.option("--out", type=OutPath(dir_okay=False), help="The STAR to write; refused if it exists.")
@click.option(
    "--out-run",
    type=OutPath(file_okay=False),
    help="A run to make whose classes are the lists of --names, the first class 1; refused if it holds anything.",
)
def select(
    run: Path | None,
    keep: str | None,
    tomograms: tuple[str, ...],
    min_confidence: float,
    proteins: bool,
    names: tuple[Path, ...],
    out: Path | None,
    out_run: Path | None,
) -> dict[str, Any]:
    """Keep particles of some classes, tomograms, confidence or names as a STAR of their own, or as a run.

    Rows of clusters.star that meet every criterion are written; every other character of your STAR stays. After
    average --classify they are those of averages/particles.star, with its classes, half sets and poses.

    With --out-run, lists of names become the classes of a new run, which the verb average takes.

    Example: cryodc select run/ --keep 1,3-5 --min-confidence 0.9 --out kept.star
    """
    from cryodc.export import parse_classes, run_of_names, select_run

    criteria = keep is not None or bool(tomograms) or bool(min_confidence) or proteins
    if not criteria and not names:
        raise click.UsageError("say what to keep: --keep, --tomogram, --min-confidence, --proteins or --names")
    if (out is None) == (out_run is None):
        raise click.UsageError("say where to: --out for a STAR, or --out-run for a run")
    if out is None and (criteria or not names):
        raise click.UsageError("--out-run makes classes of lists: give --names, and none of the other criteria")
    if out_run is not None:
        made = run_of_names(resolve_run(run), names, out_run)
        table = plain_table("class", "list", "particles")
        for number, (path, size) in enumerate(zip(names, made.sizes, strict=True), start=1):
            table.add_row(str(number), str(path), str(size))
        console().print(table)
        print_next("average", out_run)
        return {"run": out_run, "n_particles": made.sizes}
    assert out is not None
    classes = [] if keep is None else parse_classes(keep)
    selection = select_run(
        resolve_run(run),
        out,
        classes=classes,
        tomograms=tomograms,
        min_confidence=min_confidence,
        proteins=proteins,
        names=names,
    )
    table = plain_table("class", "particles", "kept")
    for number, n_before in selection.n_before.items():
        table.add_row(str(number) if number else "unassigned", str(n_before), str(selection.n_kept[number]))
    printer = console()
    printer.print(table)
    total = sum(selection.n_before.values())
    printer.print(f"Kept {len(selection)} of {total} particles: {out}", markup=False, soft_wrap=True)
    told = "File names in it are those of your STAR: where it cannot find them, give --data-dir."
    if selection.n_renamed:
        told = (
            f"{selection.n_renamed} images are named relative to {out.parent}, from where their old names lead nowhere."
        )
    printer.print(told, markup=False, soft_wrap=True)
    return vars(selection)
