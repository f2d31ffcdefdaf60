"""``cryodc train``."""

import math
from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import (
    OutPath,
    console,
    data_dir_option,
    device_option,
    invert_option,
    print_next,
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
    type=OutPath(file_okay=False),
    help="The run folder to make.  [default: run; where that is taken run2, run3 …]",
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
@click.option(
    "--epochs",
    type=int,
    help="Passes over the particles.  [default: by the preset; beside templates at most 4]",
)
@click.option("--no-network", is_flag=True, help="Learn templates alone: codes for all but `generate --codes network`.")
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
def train(star: Path, out: Path | None, config_file: Path | None, **options: Any) -> dict[str, Any]:
    """Train a model on PARTICLES.STAR and encode every particle.

    Writes a run folder: config.yaml, log.csv, checkpoints/, templates/, codes.npz. Nothing is trained before every
    image named in the STAR has been found and checked.

    Example: cryodc train particles.star --out run/ --tilt-range -60 60

    With another model: cryodc train particles.star --out harmony/ --model harmony --tilt-range -60 60

    A STAR of 2D single-particle images is trained on in 2D: cryodc train images.star --out run/ --preset paper-starmen
    """
    from cryodc_cli.progress import progress
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from cryodc.training import Listener, TrainRequest, next_run_folder, read_overrides, train_run

    if options["no_pack"] and options["pack"] is not None:
        raise click.UsageError("--pack and --no-pack exclude each other.")
    if options["no_network"] and options["epochs"] is not None:
        raise click.UsageError("--epochs and --no-network exclude each other.")
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
    if options["no_network"]:
        overrides.setdefault("optimisation", {})["epochs"] = 0
    if out is None:
        out = next_run_folder(options["resume"])
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
    bar = progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("particles  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    warnings = list[str]()
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
            done, total = bar.tasks[task].completed, bar.tasks[task].total or 0
            bar.console.print(epoch_line(line, done, total), markup=False)

        def match(text: str) -> None:
            bar.reset(task, description=f"Templates: {text}", total=None, rate="")

        def note(text: str) -> None:
            bar.console.print(text, markup=False)

        def warn(text: str) -> None:
            warnings.append(text)
            bar.console.print(f"warning: {text}", style="yellow", markup=False)

        listener = Listener(
            on_pack=pack,
            on_start=begin,
            on_batch=advance,
            on_epoch=log,
            on_templates=match,
            on_note=note,
            on_warning=warn,
        )
        run, codes = train_run(request, listener)
    console().print(f"Encoded {len(codes)} particles: {run.codes}", markup=False, soft_wrap=True)
    print_next("cluster", run.path)
    return {
        "run": run.path,
        "codes": run.codes,
        "n_particles": len(codes),
        "codes_of": "network" if codes.template_content is None else "templates",
        "warnings": warnings,
    }


def epoch_line(line: dict[str, float], n_done: float, n_total: float) -> str:
    """One epoch in at most 80 columns; every term of the loss stands in log.csv.

    Parameters
    ----------
    line
        As it is written there.
    n_done, n_total
        Particles seen since the first epoch, and in all epochs.

    Examples
    --------
    >>> epoch_line({"epoch": 3.0, "seconds": 2.0, "total": 1.91634, "learning_rate": 1e-3}, 3000, 10000)
    'epoch 3 of 10  loss 1.916  rate 0.001  500 particles/s  14 s left'
    """
    epoch, seconds = line["epoch"], max(line["seconds"], 1e-9)
    of_one = n_done / max(epoch, 1)
    n_epochs = round(n_total / of_one) if of_one else epoch
    left = (n_epochs - epoch) * seconds
    units = ((120, 1, "s"), (7200, 60, "min"), (259200, 3600, "h"), (math.inf, 86400, "d"))
    time = next(f"{left / unit:.0f} {name}" for most, unit, name in units if left < most)
    return (
        f"epoch {epoch:.0f} of {n_epochs:.0f}  loss {line['total']:.4g}  rate {line['learning_rate']:.3g}  "
        f"{of_one / seconds:.3g} particles/s  {time} left"
    )
