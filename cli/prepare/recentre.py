"""``cryodc recentre``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import rich_click as click
from cryodc_cli.options import (
    OutPath,
    console,
    data_dir_option,
    input_options,
    invert_option,
    print_next,
    star_argument,
    tilt_axis_option,
    tilt_range_option,
    tilt_ranges_option,
)

if TYPE_CHECKING:
    from cryodc.fourier import TiltAxis


@click.command()
@star_argument
@click.option("--out", type=OutPath(), required=True, help="The folder to make; refused if it holds anything.")
@click.option(
    "--on",
    type=click.Choice(["mass", "origins"]),
    default="mass",
    show_default=True,
    help="Where particles are: where their mass lies, or where the poses of the STAR say.",
)
@click.option(
    "--diameter",
    type=click.FloatRange(min=0, min_open=True),
    help="About, of the particles, Å.  [default: 5/8 of the box]",
)
@click.option(
    "--farthest",
    type=click.FloatRange(min=0, min_open=True),
    help="Particles whose mass lies farther off, Å, stay where they are.  [default: 1/4 of the box]",
)
@tilt_range_option
@tilt_ranges_option
@tilt_axis_option
@invert_option
@data_dir_option
def recentre(
    star: Path,
    out: Path,
    on: Literal["mass", "origins"],
    diameter: float | None,
    farthest: float | None,
    tilt_range: tuple[float, float] | None,
    tilt_ranges: Path | None,
    tilt_axis: "TiltAxis",
    invert: bool,
    data_dir: Path | None,
) -> dict[str, Any]:
    """Move the particles of PARTICLES.STAR to the middle of their boxes.

    For picks that lie up to a quarter of the box off, which `cryodc train` does not find: it looks 2.6 voxels around
    the middle. Boxes are moved by whole voxels, coordinates and origins along with them. Writes particles.star,
    recentred/ and shifts.csv. In crowded boxes the mass of a neighbour can mislead. After `cryodc average`, the
    poses it found tell better: --on origins.

    Example: cryodc recentre particles.star --tilt-range -60 60 --out centred/
    """
    from cryodc_cli.progress import progress

    from cryodc.centring import RecentreRequest, recentre_particles

    read = input_options(tilt_range, tilt_ranges, tilt_axis, invert)
    request = RecentreRequest(star, out, on, diameter, farthest, read, data_dir)
    with progress() as bar:
        task = bar.add_task("Recentring", total=None)
        result = recentre_particles(request, lambda done, total: bar.update(task, completed=done, total=total))
    distance, printer = np.linalg.norm(result.found_angstrom, axis=1), console()
    n_left = int((~result.moved).sum())
    printer.print(f"Distance from the middle: median {np.median(distance):.0f} Å, at most {distance.max():.0f} Å")
    if n_left:
        printer.print(
            f"Left where they are: {n_left} of {len(distance)} particles, whose mass seems to lie farther off"
        )
    printer.print(f"Wrote {result.star}", markup=False, soft_wrap=True)
    print_next("train", result.star, *([] if tilt_range is None else ["--tilt-range", *map("{:g}".format, tilt_range)]))
    return {
        "star": result.star,
        "n_moved": len(distance) - n_left,
        "n_left": n_left,
        "median_angstrom": float(np.median(distance)),
        "farthest_angstrom": float(distance.max()),
    }
