"""Options that several verbs share, and the consoles they print on."""

import math
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

    from cryodc.dataset import InputOptions
    from cryodc.runs import RunFolder

F = TypeVar("F", bound=Callable[..., Any])
# What every library that draws random numbers takes, with room for seeds that follow from it.
_LARGEST_SEED = 2**31 - 1
_LONGEST_NAME_BYTES = 255
_OF_A_RUN = ("config.yaml", "particles.star")


# Of processes that torchrun started the first one speaks.
LEADS = os.environ.get("RANK", "0") == "0"


QUIET, MUTE = "cryodc.quiet", "cryodc.mute"
"""In the context of a verb: whether notices are not printed; whether results are not."""

_WIDE = 1000


def console() -> Console:
    """Where results are printed; what is no terminal has no width, so that a row of a table stays one line."""
    width = None if "COLUMNS" in os.environ or sys.stdout.isatty() else _WIDE
    return Console(highlight=False, quiet=not LEADS or _is_set(MUTE), width=width)


def error_console(of_all: bool = False) -> Console:
    """Where progress, notices and errors are printed; errors by each of several processes that meets one."""
    quiet = not of_all and (not LEADS or _is_set(QUIET))
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)


def _is_set(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(name))


def plain_table(*columns: str, **settings: Any) -> "Table":
    """A table with lines on a terminal, and plain text where a program reads it."""
    from rich.table import Table

    if not sys.stdout.isatty():
        settings |= {"box": None, "padding": (0, 2, 0, 0)}
    return Table(*columns, **settings)


def print_next(verb: str, *words: object) -> None:
    """Print the command to go on with: on one line, quoted as a shell takes it.

    A verb that is one step of another says nothing.
    """
    if _is_set("cryodc.steps"):
        return
    text = shlex.join(["cryodc", verb, *map(str, words)])
    console().print(f"Next: {text}", markup=False, soft_wrap=True)


class OutPath(click.Path):
    """A path to write to, whose name a file system can hold."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay, dir_okay=dir_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, if each of its names is short enough and says something."""
        text = os.fspath(value)
        if not text.strip() or "\0" in text:
            self.fail("expected the name of a file or folder, found none", param, ctx)
        longest = max((len(os.fsencode(part)) for part in Path(text).parts), default=0)
        if longest > _LONGEST_NAME_BYTES:
            self.fail(f"expected names of at most {_LONGEST_NAME_BYTES} bytes, found one of {longest}", param, ctx)
        return super().convert(value, param, ctx)


def check_tilt_range(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse tilt ranges that are none: MIN below MAX, both from -90 to 90."""
    for low, high in value if param.multiple else [value] if value is not None else []:
        if not (math.isfinite(low) and math.isfinite(high) and -90 <= low < high <= 90):
            raise click.BadParameter(
                f"expected MIN below MAX, both from -90 to 90 degrees, found {low:g} {high:g}", ctx, param
            )
    return value


def run_argument(command: F) -> F:
    """RUN, optional: the latest run in the current folder if not given."""
    return click.argument("run", required=False, type=click.Path(path_type=Path, file_okay=False), metavar="[RUN]")(
        command
    )


def resolve_run(run: Path | None, *, writes: bool = False) -> "RunFolder":
    """The run folder named, the one we are in, or the latest one in the current folder, saying which.

    Parameters
    ----------
    run
        As given.
    writes
        Whether the verb writes into it: then it must be a folder we may write to, before anything is computed.
    """
    from cryodc.errors import InputError
    from cryodc.runs import find_run

    found = find_run(run if run is not None else _run_we_are_in())
    if writes and not os.access(found.path, os.W_OK):
        raise InputError(
            "this run folder cannot be written",
            file=found.path,
            remedy="copy it to where you may write, or ask its owner for the right to",
        )
    if run is None:
        error_console().print(f"Using the latest run: {found.path}", style="dim", markup=False)
    return found


def _run_we_are_in() -> Path | None:
    here = Path.cwd()
    inside = [Path(*[".."] * up) for up in range(min(3, len(here.parents)))]
    return next((path for path in inside if all((path / name).is_file() for name in _OF_A_RUN)), None)


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
        "--seed", default=0, show_default=True, type=click.IntRange(0, _LARGEST_SEED), help="Fixes everything random."
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


def read_memory(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Bytes of a number with a unit, as 8G or 500M."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])(?:i?B)?", value.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise click.BadParameter(f"expected a number with K, M, G or T, such as 8G, found {value}", ctx, param)
    return float(found[1]) * 1024.0 ** (1 + "KMGT".index(found[2].upper()))


def memory_option(command: F) -> F:
    """--memory."""
    return click.option(
        "--memory",
        "memory_bytes",
        callback=read_memory,
        metavar="SIZE",
        help="How much may be held of particles, as 8G. What does not fit is read whenever it is looked at: the result "
        "is the same.  [default: half of what is free]",
    )(command)


def tilt_range_option(command: F) -> F:
    """--tilt-range."""
    return click.option(
        "--tilt-range",
        nargs=2,
        type=float,
        callback=check_tilt_range,
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
        type=click.Path(path_type=Path, exists=True),
        help="By tomogram, wins over --tilt-range: CSV with columns tomogram, tilt_min, tilt_max; or .tlt, .rawtlt, "
        ".mdoc, .aln, Warp's .xml, RELION's tomograms.star, or a folder of them.",
    )(command)


def invert_option(command: F) -> F:
    """--invert."""
    return click.option("--invert", is_flag=True, help="Protein is black in the input: multiply every voxel by -1.")(
        command
    )


def sample_option(command: F) -> F:
    """--sample, of what is measured on particles."""
    return click.option(
        "--sample",
        "n_sample",
        type=click.IntRange(min=1),
        default=300,
        show_default=True,
        help="Measure on at most this many particles, drawn at random.",
    )(command)


def protein_options(command: F) -> F:
    """--map and --structure, of proteins that are given as files."""
    path = click.Path(path_type=Path, dir_okay=False)
    told = "An atomic model, as its first biological assembly, .pdb or .cif, .gz or not; several times."
    command = click.option("--structure", "structure_files", type=path, multiple=True, help=told)(command)
    told = "A density map, .mrc or .mrc.gz; several times."
    return click.option("--map", "map_files", type=path, multiple=True, help=told)(command)


def input_options(
    tilt_range: tuple[float, float] | None, tilt_ranges: Path | None, tilt_axis: str, invert: bool
) -> "InputOptions":
    """How particles are read, from the options that say so."""
    from cryodc.dataset import InputOptions
    from cryodc.tilt_angles import read_tilt_ranges

    ranges = None if tilt_ranges is None else read_tilt_ranges(tilt_ranges)
    return InputOptions(tilt_range, ranges, "x" if tilt_axis == "x" else "y", invert)
