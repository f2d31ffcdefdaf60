"""Progress on a terminal: bars, which are gone when the work is done or has failed, and the time left beside lines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cryodc_cli.options import error_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from cryodc.dry_run import Forecast


def progress(*columns: Any) -> Progress:
    """Make a bar on the error stream; it shows nothing where that is no terminal, and leaves nothing behind."""
    shown = columns or (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    out = error_console()
    return Progress(*shown, console=out, transient=True, disable=not out.is_terminal)


@contextmanager
def lines() -> Iterator[Callable[[str], None]]:
    """Print lines of a verb whose steps cannot be counted; on a terminal each with the time left, by its forecast."""
    from cryodc_cli.dry_run import duration

    from cryodc.dry_run import forecasts_to

    out, ends = error_console(), list[float]()

    def hear(plan: "Forecast") -> None:
        # Of steps within a verb only the whole is told.
        if not ends and out.is_terminal and not out.quiet:
            seconds = plan.seconds()
            ends.append(time.monotonic() + seconds)
            out.print(f"about {duration(seconds)} on this machine", style="dim", markup=False)

    def tell(line: str) -> None:
        left = ends[-1] - time.monotonic() if ends else 0
        # A forecast holds to a factor of three: what is left of it in the end says nothing.
        shown = f"{line}  (about {duration(left)} left)" if left > 1 else line
        out.print(shown, style="dim", markup=False)

    with forecasts_to(hear):
        yield tell
