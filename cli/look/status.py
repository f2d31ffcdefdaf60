"""``cryodc status``."""

import json
from dataclasses import asdict
from pathlib import Path

import rich_click as click
from cryodc_cli.options import console, plain_table, resolve_run, run_argument


@click.command()
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
def status(run: Path | None, as_json: bool) -> None:
    """Say what a run has, what is stale, who is writing into it, and the next command.

    A step is done; running; begun, where its process was stopped, and the next command goes on with it; stale, where
    what it was made of has changed since; damaged; or missing. Nothing is written.

    Example: cryodc status run/
    """
    from cryodc.runs import run_status

    found, out = run_status(resolve_run(run)), console()
    if as_json:
        out.print(json.dumps(asdict(found), indent=2), markup=False, soft_wrap=True)
        return
    table = plain_table("step", "state", "", "finished")
    for step in found.steps:
        finished = "" if step.finished is None else step.finished[:19].replace("T", " ")
        table.add_row(step.verb, step.state, step.told, finished)
    out.print(table)
    if found.running is not None:
        out.print(f"Running: {found.running}", markup=False, soft_wrap=True)
    elif found.next is not None:
        out.print(f"Next: {found.next}", markup=False, soft_wrap=True)
    else:
        out.print("Nothing is left to do.")
