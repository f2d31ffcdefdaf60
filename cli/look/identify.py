"""``cryodc identify``."""

import json
import math
from pathlib import Path

import rich_click as click
from cryodc_cli.options import console, plain_table, resolve_run, run_argument, seed_option

_N_SHOWN = 3


@click.command()
@run_argument
@click.option(
    "--library",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of density maps (.mrc, .map) and structures (PDB, mmCIF), .gz or not.",
)
@click.option(
    "--decoys",
    type=click.IntRange(min=5),
    default=24,
    show_default=True,
    help="Structures made from the library that no class is: what agreement by chance looks like.",
)
@seed_option
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of a table.")
def identify(run: Path | None, library: Path, decoys: int, seed: int, as_json: bool) -> None:
    """Name each class after a known structure, or say that it is none of them.

    Every average is compared with every structure of the library, over all rotations and shifts and in both hands,
    where its particles measured. Writes identified/: candidates.csv, particles.star with cdcName, and each best
    candidate where the class lies.

    Example: cryodc identify run/ --library known/
    """
    from cryodc_cli.progress import lines

    from cryodc.identify import identify_run

    folder = resolve_run(run, writes=True)
    with lines() as tell:
        found, left_out = identify_run(folder, library, n_decoys=decoys, seed=seed, progress=tell)
    printer = console()
    if as_json:
        printer.print_json(json.dumps(json.loads((folder.identified / "summary.json").read_text())))
        return
    table = plain_table("class", "name", "candidate", "agreement", "z", "FSC 0.5", "FSC 0.143", "hand")
    for one in found:
        if one.ranking is None:
            table.add_row(str(one.class_number), one.name, *[""] * 6)
            continue
        for place, (name, z) in enumerate(zip(one.ranking.order[:_N_SHOWN], one.ranking.z, strict=False)):
            its = one.matches[name]
            finest = [f"{value:.1f} Å" if math.isfinite(value) else "–" for value in its.resolutions]
            head = ("", "") if place else (str(one.class_number), one.name)
            table.add_row(*head, name, f"{its.agreement:.2f}", f"{z:.1f}", *finest, its.hand)
    printer.print(table)
    for one in found:
        printer.print(f"class {one.class_number}: {one.why}", markup=False, soft_wrap=True)
    for name, why in left_out.items():
        printer.print(f"left out: {name}: {why}", markup=False, soft_wrap=True)
    printer.print(f"Wrote {folder.identified}", markup=False, soft_wrap=True)
