"""``cryodc states``."""

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
@click.option("--class", "class_number", required=True, type=click.IntRange(min=1), help="The class to look into.")
@click.option(
    "-n",
    "--states",
    "n_states",
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="How many states; auto takes the most that held-out particles support.",
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="MRC, 0 to 1: where states may differ.  [default: the class's mask]",
)
@click.option(
    "--relax-symmetry",
    "relax",
    default="C1",
    show_default=True,
    metavar="GROUP",
    help="Point group that the class nearly has: a particle may lie in any mate of its pose.",
)
@seed_option
@device_option
@click.option("--starts", default=4, show_default=True, type=click.IntRange(min=1), help="Starts of each fit.")
@memory_option
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of a table.")
def states(
    run: Path | None,
    class_number: int,
    n_states: str,
    mask: Path | None,
    relax: str,
    seed: int,
    device: str,
    starts: int,
    memory_bytes: float | None,
    as_json: bool,
) -> None:
    """Find the conformations within a class of an averaged run, or say that there is one.

    Writes states/classKKK/: a map per state, the motion along each principal axis as a series of maps,
    particles.star with the column cdcState, one STAR per state, coordinates.csv and summary.json.

    Example: cryodc states run/ --class 1
    """
    from cryodc_cli.progress import lines

    from cryodc.states import find_states

    number = None if n_states == "auto" else _number(n_states)
    folder = resolve_run(run, writes=True)

    with lines() as tell:
        found = find_states(
            folder,
            class_number,
            number,
            mask=mask,
            relax=relax,
            seed=seed,
            device=device,
            n_starts=starts,
            memory_bytes=memory_bytes,
            progress=tell,
        )
    out = console()
    written = folder.states / f"class{class_number:03d}"
    if as_json:
        out.print((written / "summary.json").read_text(encoding="utf-8"), markup=False, soft_wrap=True)
        return
    table = plain_table("state", "particles", "mean confidence")
    for state, size in enumerate(found.sizes):
        table.add_row(str(state + 1), str(size), f"{found.confidence[found.labels == state].mean():.2f}")
    out.print(table)
    out.print(found.verdict, markup=False)
    out.print(f"Wrote {written / 'particles.star'}", markup=False, soft_wrap=True)
    print_next("view", folder.path)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 50):
        raise click.BadParameter(f"expected auto or a number from 1 to 50, found {text}", param_hint="-n")
    return int(text)
