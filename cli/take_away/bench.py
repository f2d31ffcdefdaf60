"""``cryodc bench``."""

import json
from dataclasses import asdict
from pathlib import Path

import rich_click as click
from cryodc_cli.options import OutPath, console, device_option, plain_table, seed_option


@click.command()
@click.option(
    "--box", "boxes", type=int, multiple=True, default=(32,), show_default=True, help="Voxels; may be repeated."
)
@click.option(
    "--particles",
    "n_particles",
    type=int,
    default=240,
    show_default=True,
    help="Of all simulated proteins together; templates take 120 or more.",
)
@click.option(
    "--classes", "n_classes", type=int, default=2, show_default=True, help="How many proteins are simulated, 2 to 6."
)
@click.option(
    "--stage",
    "stages",
    multiple=True,
    metavar="NAME",
    help="pack, train, templates, match, cluster, align, poses, classify, average, states, relion, relion-fine or "
    "acryo; may be repeated.  [default: all, and the other programs where they are installed]",
)
@device_option
@seed_option
@click.option("--out", type=OutPath(dir_okay=False), help="Also write the figures to this JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench(
    boxes: tuple[int, ...],
    n_particles: int,
    n_classes: int,
    stages: tuple[str, ...],
    device: str,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure how many particles a second each step takes on this machine, and its peak memory.

    Particles are simulated, in boxes 320 Å wide. Each step runs in a process of its own. A step that looks at one
    class (align, poses, average, states) is given that of one protein. Where RELION and acryo are installed, they find
    the poses that `poses` finds: those of one class on its true map.

    Example: cryodc bench --box 32 --box 48 --out bench.json
    """
    from cryodc_cli.progress import lines

    from cryodc.bench import BenchRequest, run_bench

    request = BenchRequest(out, boxes, n_particles, stages, device, seed, n_classes)
    with lines() as tell:
        about, figures = run_bench(request, tell)
    if as_json:
        rows = [asdict(figure) for figure in figures]
        console().print(json.dumps(about | {"figures": rows}), markup=False, soft_wrap=True)
        return
    table = plain_table("step", "box", "particles", "per s", "per CPU s", "RAM, GiB", "before", "VRAM", "error")
    for figure in figures:
        rates = (f"{rate:.3g}" if rate < 100 else f"{rate:.0f}" for rate in (figure.per_second, figure.per_cpu_second))
        memory = (figure.ram_bytes, figure.ram_before_bytes, figure.vram_bytes)
        table.add_row(
            *(figure.stage, str(figure.box_size), str(figure.n_particles), *rates),
            *("" if size is None else f"{size / 2**30:.2f}" for size in memory),
            "" if figure.error_degrees is None else f"{figure.error_degrees:.1f}°",
        )
    console().print(table)
    threads = f"{about['threads']} threads" if about["threads"] > 1 else "1 thread"
    on = f"{about['device']} ({about['processor']}, {threads}), torch {about['torch']}, seed {about['seed']}"
    on += f", {n_classes} classes"
    console().print(f"Measured on {on}", markup=False, soft_wrap=True)
    if out is not None:
        console().print(f"Wrote {out}", markup=False, soft_wrap=True)
