"""``cryodc encode``."""

import time
from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import (
    OutPath,
    console,
    data_dir_option,
    device_option,
    plain_table,
    resolve_run,
    seed_option,
    star_argument,
    tilt_range_option,
    tilt_ranges_option,
)


@click.command()
@star_argument
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    help="The run whose model to use.  [default: the latest in this folder]",
)
@click.option("--out", type=OutPath(file_okay=False), required=True, help="The folder to make.")
@tilt_range_option
@tilt_ranges_option
@click.option("--tilt-axis", type=click.Choice(["x", "y"]), help="The axis of tilt.  [default: as in the run]")
@click.option("--invert/--no-invert", default=None, help="Multiply every voxel by -1.  [default: as in the run]")
@click.option("--align", is_flag=True, help="Also find the pose of each particle on the average of its class.")
@data_dir_option
@seed_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of a table.")
def encode(star: Path, run: Path | None, out: Path, tilt_ranges: Path | None, as_json: bool, **options: Any) -> None:
    """Give the particles of PARTICLES.STAR codes and clusters by a run that was trained on others.

    Nothing is trained and the run stays as it is. Particles must have its box and voxel spacing; their tilt range is
    that of the run, unless the STAR names weights or another is given. Writes codes.npz, clusters.star with the run's
    classes, one STAR per class, and summary.json. With --align the classes are those of the run's averages, and the
    STAR files have poses on them.

    Example: cryodc encode new.star --run run/ --out more/
    """
    from cryodc_cli.progress import progress
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from cryodc.training import EncodeRequest, encode_new

    request = EncodeRequest(star, out, resolve_run(run), tilt_ranges_csv=tilt_ranges, **options)
    started = time.monotonic()
    with progress(TextColumn("Encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=None)
        encoded = encode_new(request, lambda n, n_total: bar.update(task, total=n_total, advance=n))
    seconds = time.monotonic() - started
    if as_json:
        console().print((out / "summary.json").read_text(encoding="utf-8"), markup=False, soft_wrap=True)
        return
    if encoded.labels is not None and encoded.confidence is not None:
        table = plain_table("class", "particles", "share", "mean confidence")
        for label, size in enumerate(encoded.sizes):
            sure = f"{encoded.confidence[encoded.labels == label].mean():.2f}" if size else ""
            table.add_row(str(label + 1), str(size), f"{size / len(encoded.codes):.1%}", sure)
        console().print(table)
    else:
        console().print("The run has no clusters, so only codes are written.")
    n, rate = len(encoded.codes), len(encoded.codes) / seconds
    console().print(f"Encoded {n} particles, {rate:.3g} a second: {out}", markup=False, soft_wrap=True)
