"""Progress bars: on a terminal only, and gone when the work is done or has failed."""

from typing import Any

from cryodc_cli.options import error_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress(*columns: Any) -> Progress:
    """Make a bar on the error stream; it shows nothing where that is no terminal, and leaves nothing behind."""
    shown = columns or (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    out = error_console()
    return Progress(*shown, console=out, transient=True, disable=not out.is_terminal)
