"""``cryodc report``."""

from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import (
    console,
    resolve_run,
    run_argument,
)


@click.command()
@run_argument
def report(run: Path | None) -> dict[str, Any]:
    """Write report.html: one page that shows everything a run found.

    Codes by class and tomogram, class averages, FSC curves, losses, sample particles and every setting. The page
    needs no network and no other file.

    Example: cryodc report run/
    """
    from cryodc.report import write_report

    page = write_report(resolve_run(run, writes=True))
    console().print(f"Wrote {page}", markup=False, soft_wrap=True)
    return {"report": page}
