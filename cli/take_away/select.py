"""``cryodc select``."""

from pathlib import Path

import rich_click as click
from cryodc_cli.options import (
    OutPath,
    console,
    resolve_run,
    run_argument,
)


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
    "--out",
    type=OutPath(dir_okay=False),
    required=True,
    help="The STAR to write; refused if it exists.",
)
def select(
    run: Path | None, keep: str | None, tomograms: tuple[str, ...], min_confidence: float, proteins: bool, out: Path
) -> None:
    """Keep particles of some classes, tomograms or confidence as a STAR of their own.

    Rows of clusters.star that meet every criterion are written; every other character of your STAR stays. After
    average --classify they are those of averages/particles.star, with its classes, half sets and poses.

    Example: cryodc select run/ --keep 1,3-5 --min-confidence 0.9 --out kept.star
    """
    from rich.table import Table

    from cryodc.export import parse_classes, select_run

    if keep is None and not tomograms and not min_confidence and not proteins:
        raise click.UsageError("say what to keep: --keep, --tomogram, --min-confidence or --proteins")
    classes = [] if keep is None else parse_classes(keep)
    selection = select_run(
        resolve_run(run),
        out,
        classes=classes,
        tomograms=tomograms,
        min_confidence=min_confidence,
        proteins=proteins,
    )
    table = Table("class", "particles", "kept")
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
