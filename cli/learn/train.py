"""``cryodc train``."""

from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import (
    console,
    data_dir_option,
    device_option,
    error_console,
    invert_option,
    seed_option,
    star_argument,
    tilt_axis_option,
    tilt_range_option,
    tilt_ranges_option,
)


@click.command()
@star_argument
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="run",
    show_default=True,
    help="The run folder to make.",
)
@click.option(
    "--model",
    "model",
    type=click.Choice(["dualcontrast", "harmony", "spatial-vae", "vitae", "vae"]),
    help="What to train; see docs/models.md.  [default: dualcontrast]",
)
@click.option(
    "--preset",
    type=click.Choice(["default", "paper", "digits", "paper-mnist", "paper-linemod", "paper-starmen"]),
    default="default",
    show_default=True,
    help="Settings to begin with; the last four are for images.",
)
@click.option("--epochs", type=int, help="Passes over the particles.  [default: by the preset]")
@click.option("--batch-size", type=int, help="Particles per step.")
@click.option("--learning-rate", type=float, help="Of both optimisers.")
@click.option("--content-loss", type=click.Choice(["infonce", "cosine"]), help="Contrast of content codes.")
@click.option("--content-dims", type=int, help="Length of the content code.")
@click.option("--transformation-dims", type=int, help="Length of the transformation code.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Of the network.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="YAML with sections model, loss, views, optimisation, templates; options given here win over it.",
)
@tilt_range_option
@tilt_ranges_option
@tilt_axis_option
@invert_option
@data_dir_option
@click.option(
    "--pack",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Read the particles from this pack of `cryodc pack`.  [default: one made in the run folder]",
)
@click.option("--no-pack", is_flag=True, help="Read the MRC files into memory; write no pack.")
@seed_option
@device_option
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
def train(star: Path, out: Path, config_file: Path | None, **options: Any) -> None:
    """Train a model on PARTICLES.STAR and encode every particle.

    Writes a run folder: config.yaml, log.csv, checkpoints/, templates/, codes.npz. Nothing is trained before every
    image named in the STAR has been found and checked.

    Example: cryodc train particles.star --out run/ --tilt-range -60 60

    With another model: cryodc train particles.star --out harmony/ --model harmony --tilt-range -60 60

    A STAR of 2D single-particle images is trained on in 2D: cryodc train images.star --out run/ --preset paper-starmen
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from cryodc.training import Listener, TrainRequest, read_overrides, train_run

    if options["no_pack"] and options["pack"] is not None:
        raise click.UsageError("--pack and --no-pack exclude each other.")
    overrides = read_overrides(config_file)
    if options["model"] is not None:
        overrides.setdefault("model", {})["name"] = options["model"]
    for section, name in (
        ("optimisation", "epochs"),
        ("optimisation", "batch_size"),
        ("optimisation", "learning_rate"),
        ("optimisation", "precision"),
        ("loss", "content_loss"),
        ("model", "content_dims"),
        ("model", "transformation_dims"),
    ):
        if options[name] is not None:
            overrides.setdefault(section, {})[name] = options[name]
    request = TrainRequest(
        star=star,
        out=out,
        preset=options["preset"],
        overrides=overrides,
        data_dir=options["data_dir"],
        tilt_range=options["tilt_range"],
        tilt_ranges_csv=options["tilt_ranges"],
        tilt_axis=options["tilt_axis"],
        invert=options["invert"],
        packed=not options["no_pack"],
        pack=options["pack"],
        seed=options["seed"],
        device=options["device"],
        resume=options["resume"],
    )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("particles  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=error_console(),
    )
    with bar:
        task = bar.add_task("Reading", total=None, rate="")

        def pack(n_particles: int, n_total: int) -> None:
            bar.update(task, description="Packing", total=n_total, advance=n_particles)

        def begin(n_done: int, n_total: int) -> None:
            bar.reset(task, description="Training", completed=n_done, total=n_total)

        def advance(n_particles: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, advance=n_particles, rate="" if speed is None else f"{speed:.0f}/s")

        def log(line: dict[str, float]) -> None:
            terms = "  ".join(f"{name} {line[name]:.4g}" for name in line if name not in ("epoch", "seconds"))
            bar.console.print(f"epoch {line['epoch']:.0f}  {line['seconds']:.1f} s  {terms}", markup=False)

        def match(text: str) -> None:
            bar.reset(task, description=f"Templates: {text}", total=None, rate="")

        def note(text: str) -> None:
            bar.console.print(text, markup=False)

        listener = Listener(pack, begin, advance, log, match, note)
        run, codes = train_run(request, listener)
    out_console = console()
    out_console.print(f"Encoded {len(codes)} particles: {run.codes}", markup=False)
    out_console.print(f"Next: cryodc cluster {run.path}", markup=False)
