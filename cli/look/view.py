"""``cryodc view``."""

from pathlib import Path

import rich_click as click
from cryodc_cli.options import (
    error_console,
    resolve_run,
    run_argument,
)


@click.command()
@run_argument
def view(run: Path | None) -> None:
    """Open averages, particles and codes of a run in napari, and act on them.

    Click a content code to see its particle; draw a line round codes to average them, make a class of them or write
    them as a STAR. Needs a display, and napari: in your clone, pip install '.[view]'.

    Example: cryodc view run/
    """
    from cryodc.viewer import run_viewer

    run_viewer(resolve_run(run), lambda line: error_console().print(line, markup=False))
