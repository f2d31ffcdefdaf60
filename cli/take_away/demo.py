"""``cryodc demo``."""

from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import (
    OutPath,
    console,
    device_option,
    seed_option,
)


@click.command()
@click.option(
    "--out",
    type=OutPath(),
    default="demo",
    show_default=True,
    help="The folder to make; refused if it holds anything.",
)
@click.option("--n", "n_per_protein", type=int, help="Particles of each of the four proteins.  [default: 250]")
@click.option("--epochs", type=int, help="Passes over the particles in training.  [default: 10]")
@seed_option
@device_option
def demo(out: Path, n_per_protein: int | None, epochs: int | None, seed: int, device: str) -> dict[str, Any]:
    """Run the whole story on simulated particles.

    Simulates four proteins without poses, trains, clusters, aligns and averages, writes the report, and prints
    found against true.

    Example: cryodc demo --out demo/
    """
    from cryodc_cli.progress import progress
    from cryodc_cli.take_away.evaluate import class_table, composition_table
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    from cryodc.demo import DemoConfig, DemoListener, run_demo

    size = DemoConfig(seed=seed, device=device)
    config = DemoConfig(
        n_per_protein=size.n_per_protein if n_per_protein is None else n_per_protein,
        epochs=size.epochs if epochs is None else epochs,
        seed=seed,
        device=device,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with progress(*columns) as bar:

        def begin(name: str, n_steps: int | None) -> None:
            for task in bar.tasks:
                if not task.finished:
                    bar.update(task.id, total=1, completed=1)
            bar.add_task(name, total=n_steps)

        result = run_demo(
            out,
            config,
            DemoListener(
                on_stage=begin,
                on_steps=lambda n_steps: bar.advance(bar.tasks[-1].id, n_steps),
                on_line=lambda line: bar.console.print(line, markup=False),
            ),
        )
        begin("Done", 1)
    printer = console()
    printer.print(composition_table(result.evaluation))
    printer.print(class_table(result.evaluation))
    printer.print(f"The report: {result.run.report}", markup=False, soft_wrap=True)
    printer.print(f"The answer: {result.truth}", markup=False, soft_wrap=True)
    found = result.evaluation.to_json()
    return {"run": result.run.path, "report": result.run.report, "truth": result.truth, "found": found}
