"""``cryodc simulate``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.core import ParameterSource
from cryodc_cli.options import (
    OutPath,
    check_tilt_range,
    console,
    data_dir_option,
    input_options,
    invert_option,
    print_next,
    protein_options,
    resolve_run,
    sample_option,
    seed_option,
    tilt_axis_option,
    tilt_ranges_option,
)

if TYPE_CHECKING:
    from cryodc.io import Atoms
    from cryodc.planning import LikeRequest, MeasureRequest
    from cryodc.simulation import Phantom, Truth
    from cryodc.volumes import Volume

# What a set of particles says itself, when practice particles are to be like it.
_OF_THE_SET = {
    "n_tomograms": "--tomograms",
    "box_size": "--box",
    "spacing": "--spacing",
    "tilt_series": "--tilt-series",
    "crowded": "--crowded",
    "min_distance": "--min-distance",
}
_ONLY_LIKE = {
    "run": "--run",
    "data_dir": "--data-dir",
    "tilt_ranges": "--tilt-ranges",
    "invert": "--invert",
    "n_sample": "--sample",
}


@click.command()
@click.option(
    "--out",
    type=OutPath(),
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
    "wedges",
    nargs=2,
    type=float,
    callback=check_tilt_range,
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
@protein_options
@click.option("--resolution", type=float, help="Resolution of --structure, Å.  [default: twice the spacing]")
@click.option(
    "--phantoms",
    metavar="NAMES",
    help="Built-in phantoms, separated by commas, or all: bilobe, barrel, wheel, clamp, bar, tripod.  "
    "[default: the first four, unless there is a --map or --structure]",
)
@click.option(
    "--tilt-series",
    is_flag=True,
    help="Simulate every tilt image, with CTF, damage and noise, and backproject them; else a binary wedge is applied.",
)
@click.option("--tilt-step", type=float, help="Degrees between tilts of --tilt-series.  [default: 3]")
@click.option(
    "--defocus",
    nargs=2,
    type=float,
    metavar="MIN MAX",
    help="Underfocus in µm of --tilt-series, drawn for each tomogram.  [default: 2 4]",
)
@click.option("--voltage", type=float, help="Voltage of --tilt-series, kV.  [default: 300]")
@click.option("--cs", type=float, help="Spherical aberration of --tilt-series, mm.  [default: 2.7]")
@click.option("--amplitude-contrast", type=float, help="Amplitude contrast of --tilt-series.  [default: 0.1]")
@click.option("--dose-per-tilt", type=float, help="Dose of each image of --tilt-series, e/Å².  [default: 3]")
@click.option(
    "--crowded",
    type=float,
    metavar="DENSITY",
    help="Let neighbours reach into the box: so many particles in a µm³, for example 25000.",
)
@click.option(
    "--min-distance",
    type=float,
    help="Between centres of particles of --crowded, Å.  [default: half the edge of the box]",
)
@click.option("--with-poses", is_flag=True, help="Write angles and origins into the STAR too.")
@click.option(
    "--like",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PARTICLES.STAR",
    help="Make them as these were recorded: wedge, CTF, noise, SNR, box, spacing, number and tomograms are measured. "
    "--n and --snr overrule what was found.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    help="A run of these particles: the SNR of --like then follows from the agreement of its half maps.",
)
@tilt_ranges_option
@invert_option
@data_dir_option
@sample_option
@seed_option
@click.pass_context
def simulate(
    ctx: click.Context,
    out: Path,
    n_per_map: int,
    snr: float,
    wedges: tuple[tuple[float, float], ...],
    tilt_axis: str,
    box_size: int,
    spacing: float,
    max_shift: float,
    n_tomograms: int,
    map_files: tuple[Path, ...],
    structure_files: tuple[Path, ...],
    resolution: float | None,
    phantoms: str | None,
    tilt_series: bool,
    tilt_step: float | None,
    defocus: tuple[float, float] | None,
    voltage: float | None,
    cs: float | None,
    amplitude_contrast: float | None,
    dose_per_tilt: float | None,
    crowded: float | None,
    min_distance: float | None,
    with_poses: bool,
    like: Path | None,
    run: Path | None,
    tilt_ranges: Path | None,
    invert: bool,
    data_dir: Path | None,
    n_sample: int,
    seed: int,
) -> dict[str, Any]:
    """Make practice particles with known composition, poses and wedge.

    Proteins are built-in phantoms, your own maps or atomic models. --n counts particles of each protein.
    Writes particles.star (without poses), MRC files, weights, the clean maps, and truth.csv with the answer.
    With --like they are as your own particles were recorded; the weight volumes of these are named, not copied.

    Example: cryodc simulate --n 300 --snr 0.05 --tilt-range -60 60 --out sim/
    """
    from cryodc_cli.progress import progress

    from cryodc.planning import LikeRequest, MeasureRequest
    from cryodc.simulation import Crowding, SimulatedTiltSeries, SimulationConfig, choose_proteins, write_simulation

    _require_one_source(ctx, like)
    microscope = {
        "step_degrees": tilt_step,
        "defocus_micrometres": defocus,
        "voltage_kilovolts": voltage,
        "spherical_aberration_millimetres": cs,
        "amplitude_contrast": amplitude_contrast,
        "dose_per_tilt": dose_per_tilt,
    }
    given: dict[str, Any] = {key: value for key, value in microscope.items() if value is not None}
    _require(tilt_series or not given, "tilt images", "--tilt-series")
    _require(crowded is not None or min_distance is None, "neighbours", "--crowded")
    _require(bool(structure_files) or resolution is None, "atomic models", "--structure")
    nearest = box_size / 2 * spacing if min_distance is None else min_distance
    names = None if phantoms is None else [name.strip() for name in phantoms.split(",")]
    proteins = choose_proteins(names, map_files, structure_files)
    if like is not None:
        if len(wedges) > 1:
            raise click.UsageError("--like takes one --tilt-range; tomograms that differ stand in --tilt-ranges")
        options = input_options(wedges[0] if _is_given(ctx, "wedges") else None, tilt_ranges, tilt_axis, invert)
        level = snr if _is_given(ctx, "snr") else None
        finished = None if run is None else resolve_run(run)
        request = MeasureRequest(
            like, data_dir, options, n_sample, seed, run=finished, snr=level, resolution_angstrom=resolution
        )
        n = n_per_map * len(proteins) if _is_given(ctx, "n_per_map") else None
        return _simulate_like(request, proteins, out, LikeRequest(n, max_shift, seed, with_poses))
    config = SimulationConfig(
        n_per_map=n_per_map,
        box_size=box_size,
        spacing_angstrom=spacing,
        snr=snr,
        tilt_ranges=wedges,
        tilt_axis="x" if tilt_axis == "x" else "y",
        max_shift_voxels=max_shift,
        n_tomograms=n_tomograms,
        seed=seed,
        resolution_angstrom=resolution,
        tilt_series=SimulatedTiltSeries(**given) if tilt_series else None,
        crowding=None if crowded is None else Crowding(crowded, nearest),
    )
    with progress() as bar:
        task = bar.add_task("Simulating", total=n_per_map * len(proteins))
        truth = write_simulation(proteins, config, out, with_poses=with_poses, on_batch=lambda n: bar.advance(task, n))
    return _print_written(truth, out)


def _print_written(truth: "Truth", out: Path) -> dict[str, Any]:
    """Say what was written, and give it as JSON tells it."""
    printer = console()
    printer.print(
        f"Wrote {len(truth)} particles of {', '.join(truth.proteins)}: {out / 'particles.star'}", markup=False
    )
    printer.print(f"The answer: {out / 'truth.csv'}", markup=False)
    print_next("train", out / "particles.star")
    return {
        "star": out / "particles.star",
        "truth": out / "truth.csv",
        "n_particles": len(truth),
        "proteins": truth.proteins,
    }


def _require(holds: bool, what: str, option: str) -> None:
    if not holds:
        raise click.UsageError(f"an option describes {what}, but {option} is not given")


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _require_one_source(ctx: click.Context, like: Path | None) -> None:
    """Refuse options that the set of --like answers, and those that mean nothing without it."""
    for name, option in (_ONLY_LIKE if like is None else _OF_THE_SET).items():
        if _is_given(ctx, name):
            raise click.UsageError(f"{option} is {'only for' if like is None else 'measured by'} --like")


def _simulate_like(
    request: "MeasureRequest",
    proteins: "Mapping[str, Volume | Phantom | Atoms]",
    out: Path,
    settings: "LikeRequest",
) -> dict[str, Any]:
    from cryodc_cli.prepare.measured import print_measured
    from cryodc_cli.progress import progress

    from cryodc.io import require_empty
    from cryodc.planning import measure_particles, write_like

    require_empty(out)
    recorded = measure_particles(request, proteins)
    print_measured(recorded)
    with progress() as bar:
        task = bar.add_task("Simulating", total=settings.n_particles or len(recorded.particles))
        truth = write_like(recorded, out, settings, lambda n: bar.advance(task, n))
    return _print_written(truth, out)
