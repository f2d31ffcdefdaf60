"""``cryodc simulate``."""

from pathlib import Path

import rich_click as click
from cryodc_cli.options import console, error_console, seed_option, tilt_axis_option


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="sim",
    show_default=True,
    help="The folder to make; refused if it holds anything.",
)
@click.option("--n", "n_per_map", type=int, default=300, show_default=True, help="Particles of each protein.")
@click.option(
    "--snr",
    type=float,
    default=0.05,
    show_default=True,
    help="Variance of the clean box over that of the white noise, before the wedge; inf adds no noise.",
)
@click.option(
    "--tilt-range",
    "tilt_ranges",
    nargs=2,
    type=float,
    multiple=True,
    default=[(-60.0, 60.0)],
    show_default="-60 60",
    metavar="MIN MAX",
    help="Tilt angles in degrees; given several times, tomograms take them in turn.",
)
@tilt_axis_option
@click.option("--box", "box_size", type=int, default=32, show_default=True, help="Box size, voxels.")
@click.option("--spacing", type=float, default=10.0, show_default=True, help="Voxel spacing, Å.")
@click.option("--max-shift", type=float, default=1.5, show_default=True, help="Largest shift along each axis, voxels.")
@click.option("--tomograms", "n_tomograms", type=int, default=4, show_default=True, help="Particles are spread over.")
@click.option(
    "--map",
    "map_files",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="A density map to simulate, .mrc or .mrc.gz; several times for several proteins.",
)
@click.option(
    "--phantoms",
    metavar="NAMES",
    help="Built-in phantoms, separated by commas, or all: bilobe, barrel, wheel, clamp, bar, tripod.  "
    "[default: the first four, unless there is a --map]",
)
@click.option("--with-poses", is_flag=True, help="Write angles and origins into the STAR too.")
@seed_option
def simulate(
    out: Path,
    n_per_map: int,
    snr: float,
    tilt_ranges: tuple[tuple[float, float], ...],
    tilt_axis: str,
    box_size: int,
    spacing: float,
    max_shift: float,
    n_tomograms: int,
    map_files: tuple[Path, ...],
    phantoms: str | None,
    with_poses: bool,
    seed: int,
) -> None:
    """Make practice particles with known composition, poses and wedge.

    Proteins are built-in phantoms or your own maps. --n counts particles of each protein. Writes
    particles.star (without poses), MRC files, weights, the clean maps, and truth.csv with the answer.

    Example: cryodc simulate --n 300 --snr 0.05 --tilt-range -60 60 --out sim/
    """
    from rich.progress import Progress

    from cryodc.data.simulate import SimulationConfig
    from cryodc.data.simulation_folder import choose_proteins, write_simulation

    config = SimulationConfig(
        n_per_map=n_per_map,
        box_size=box_size,
        spacing_angstrom=spacing,
        snr=snr,
        tilt_ranges=tilt_ranges,
        tilt_axis="x" if tilt_axis == "x" else "y",
        max_shift_voxels=max_shift,
        n_tomograms=n_tomograms,
        seed=seed,
    )
    names = None if phantoms is None else [name.strip() for name in phantoms.split(",")]
    proteins = choose_proteins(names, map_files)
    with Progress(console=error_console()) as bar:
        task = bar.add_task("Simulating", total=n_per_map * len(proteins))
        truth = write_simulation(proteins, config, out, with_poses=with_poses, on_batch=lambda n: bar.advance(task, n))
    printer = console()
    printer.print(
        f"Wrote {len(truth)} particles of {', '.join(truth.proteins)}: {out / 'particles.star'}", markup=False
    )
    printer.print(f"The answer: {out / 'truth.csv'}", markup=False)
    printer.print(f"Next: cryodc train {out / 'particles.star'}", markup=False)
