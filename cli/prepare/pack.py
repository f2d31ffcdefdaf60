"""``cryodc pack``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from cryodc.dataset import PackDtype
    from cryodc.fourier import TiltAxis


@click.command()
@star_argument
@click.option(
    "--out",
    type=OutPath(file_okay=False),
    help="The folder to make.  [default: the STAR's name with .pack, in the current folder]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the voxels on disk: float16 takes half the space and rounds at 1/2000 of a voxel's value.",
)
@click.option("--box", "box_size", type=int, help="Fourier-crop to this even box, and so to a coarser spacing.")
@click.option("--spacing", type=float, help="Fourier-crop to the box whose spacing in Å is nearest to this.")
@tilt_range_option
@tilt_ranges_option
@tilt_axis_option
@invert_option
@data_dir_option
def pack(
    star: Path,
    out: Path | None,
    dtype: "PackDtype",
    box_size: int | None,
    spacing: float | None,
    tilt_range: tuple[float, float] | None,
    tilt_ranges: Path | None,
    tilt_axis: "TiltAxis",
    invert: bool,
    data_dir: Path | None,
) -> dict[str, Any]:
    """Put the particles of PARTICLES.STAR, standardised, into one file that training reads batches from.

    Epochs then take the same memory for any number of particles. An interrupted packing goes on where it stopped when
    the same command is given again. Train on it with the same --tilt-range, --tilt-ranges and --invert.

    Example: cryodc pack particles.star --tilt-range -60 60 --dtype float16 --box 32
    """
    from cryodc_cli.progress import progress

    from cryodc.dataset import box_of_spacing, pack_particles
    from cryodc.particles import read_particles

    if box_size is not None and spacing is not None:
        raise click.UsageError("--box and --spacing exclude each other.")
    folder = out or Path(star.name.removesuffix(".gz").removesuffix(".star") + ".pack")
    particles = read_particles(star, data_dir)
    if spacing is not None:
        box_size = box_of_spacing(particles, spacing)
    options = input_options(tilt_range, tilt_ranges, tilt_axis, invert)
    with progress() as bar:
        task = bar.add_task("Packing", total=len(particles))
        made = pack_particles(
            particles,
            folder,
            options,
            box_size=box_size,
            dtype=dtype,
            on_progress=lambda n_particles, n_total: bar.advance(task, n_particles),
        )
        bar.update(task, completed=len(particles))
    described = f"{made.n_particles} particles, box {made.box_size}, {made.spacing_angstrom:g} Å, {made.dtype}"
    console().print(f"Packed {described}: {folder}", markup=False)
    print_next("train", star, "--pack", folder)
    return {"pack": folder, **vars(made)}
