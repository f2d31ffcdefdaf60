"""``cryodc generate``."""

from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import (
    OutPath,
    console,
    device_option,
    resolve_run,
    run_argument,
    seed_option,
)


@click.command()
@run_argument
@click.option(
    "--out",
    type=OutPath(file_okay=False),
    help="Another folder to write into; nothing in it is overwritten.  [default: RUN/generated, replaced as a whole]",
)
@click.option(
    "--class", "classes", multiple=True, type=click.IntRange(min=1), help="Only the traversal of this class; repeat."
)
@click.option(
    "--content-from",
    multiple=True,
    metavar="NAME|ROWS",
    help="Particles whose content codes are the grid's rows; repeat.  [default: a medoid per class]",
)
@click.option(
    "--transformation-from",
    multiple=True,
    metavar="NAME|ROWS",
    help="Particles whose transformation codes are its columns; repeat.  [default: spread over the codes]",
)
@click.option(
    "--rows",
    "n_rows",
    default=6,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Rows of the grid where the run has no classes.",
)
@click.option(
    "--columns", "n_columns", default=6, show_default=True, type=click.IntRange(1, 50), help="Columns of the grid."
)
@click.option(
    "--axes",
    "n_axes",
    default=2,
    show_default=True,
    type=click.IntRange(1, 10),
    help="Principal axes of a class to traverse.",
)
@click.option(
    "--steps",
    "n_steps",
    default=7,
    show_default=True,
    type=click.IntRange(3, 99),
    help="Volumes along an axis, from the 5 % to the 95 % quantile; odd.",
)
@click.option(
    "--particles",
    "n_particles",
    default=6,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Particles shown slice by slice.",
)
@click.option(
    "--view",
    type=click.Choice(["slices", "projection"]),
    default="slices",
    show_default=True,
    help="How pictures show a volume: its central slices along z, y, x, or its mean along z.",
)
@click.option(
    "--map",
    "map_kind",
    type=click.Choice(["pca", "tsne"]),
    default="pca",
    show_default=True,
    help="How codes are drawn; tsne for at most 5000 particles.",
)
@click.option(
    "--codes",
    type=click.Choice(["templates", "network"]),
    help="Decode the codes made of templates, or the network's.  [default: of templates, where the run has some]",
)
@click.option(
    "--truth", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="truth.csv: colours codes by it."
)
@click.option(
    "--compare",
    multiple=True,
    type=OutPath(file_okay=False),
    metavar="RUN",
    help="Only draw the codes of this run beside those of RUN; repeat.",
)
@seed_option
@device_option
def generate(run: Path | None, compare: tuple[Path, ...], n_steps: int, **wanted: Any) -> dict[str, Any]:
    """Show what a model has learned: decoded volumes, maps of codes, particles slice by slice.

    Writes generated/: grid/ with every content code decoded with every transformation code, classKKK/ with volumes
    along the principal axes of the class's transformation codes, codes.png and particles.png. Volumes are MRC.
    With --compare it writes comparison.png into the run folder instead.

    Example: cryodc generate run/ --class 1 --steps 9
    """
    from cryodc_cli.progress import lines

    if n_steps % 2 == 0:
        raise click.BadParameter(f"expected an odd number, for a middle, found {n_steps}", param_hint="--steps")
    if compare and wanted["classes"]:
        raise click.UsageError("--compare and --class exclude each other")
    from cryodc.generate import GenerateRequest, compare_runs, generate_run
    from cryodc.runs import find_run

    folder = resolve_run(run)
    request = GenerateRequest(n_steps=n_steps, **wanted)
    if compare:
        written = compare_runs([folder, *(find_run(other) for other in compare)], request)
    else:
        with lines() as tell:
            written = generate_run(folder, request, tell)
    console().print(f"Wrote {written}", markup=False, soft_wrap=True)
    return {"written": written}
