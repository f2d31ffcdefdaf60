"""Options that several verbs share, and the consoles they print on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from rich.console import Console

if TYPE_CHECKING:
    from cryodc.runs import RunFolder

F = TypeVar("F", bound=Callable[..., Any])


def console() -> Console:
    """Where results are printed."""
    return Console(highlight=False)


def error_console() -> Console:
    """Where progress, notices and errors are printed."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def run_argument(command: F) -> F:
    """RUN, optional: the latest run in the current folder if not given."""
    return click.argument("run", required=False, type=click.Path(path_type=Path, file_okay=False), metavar="[RUN]")(
        command
    )


def resolve_run(run: Path | None) -> "RunFolder":
    """The run folder named, or the latest one in the current folder, saying which."""
    from cryodc.runs import find_run

    found = find_run(run)
    if run is None:
        error_console().print(f"Using the latest run: {found.path}", style="dim", markup=False)
    return found


def star_argument(command: F) -> F:
    """PARTICLES.STAR."""
    return click.argument("star", type=click.Path(path_type=Path, dir_okay=False), metavar="PARTICLES.STAR")(command)


def data_dir_option(command: F) -> F:
    """--data-dir."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="Where images are looked for after the current folder and the STAR's.",
    )(command)


def coordinate_spacing_option(command: F) -> F:
    """--coordinate-spacing, of a run's STAR."""
    return click.option(
        "--coordinate-spacing",
        type=click.FloatRange(min=0, min_open=True),
        metavar="Å",
        help="Å per unit of the coordinates, over what the STAR says.",
    )(command)


def seed_option(command: F) -> F:
    """--seed."""
    return click.option(
        "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Fixes everything random."
    )(command)


def device_option(command: F) -> F:
    """--device."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:N",
        help="Where to compute; auto takes a GPU if there is one.",
    )(command)


def tilt_range_option(command: F) -> F:
    """--tilt-range."""
    return click.option(
        "--tilt-range",
        nargs=2,
        type=float,
        metavar="MIN MAX",
        help="Tilt angles in degrees, where the STAR names no weight volume.",
    )(command)


def tilt_axis_option(command: F) -> F:
    """--tilt-axis."""
    return click.option(
        "--tilt-axis",
        type=click.Choice(["x", "y"]),
        default="y",
        show_default=True,
        help="The axis the specimen was tilted about.",
    )(command)


def tilt_ranges_option(command: F) -> F:
    """--tilt-ranges."""
    return click.option(
        "--tilt-ranges",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="CSV with columns tomogram, tilt_min, tilt_max; wins over --tilt-range.",
    )(command)


def invert_option(command: F) -> F:
    """--invert."""
    return click.option("--invert", is_flag=True, help="Protein is black in the input: multiply every voxel by -1.")(
        command
    )
