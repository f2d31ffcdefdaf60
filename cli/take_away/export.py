"""``cryodc export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from cryodc_cli.options import OutPath, console, coordinate_spacing_option, resolve_run, run_argument

if TYPE_CHECKING:
    from cryodc.export import Program


@click.command()
@run_argument
@click.option("--relion", is_flag=True, help="particles.star, with every character of your STAR that was not changed.")
@click.option("--warp", is_flag=True, help="warp.star, for WarpTools and M.")
@click.option("--dynamo", is_flag=True, help="dynamo.tbl, in voxels of the subtomograms.")
@click.option("--chimerax", is_flag=True, help="Scenes with the averages at their particles; for ArtiaX too.")
@click.option(
    "--copick",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="CONFIG.json",
    help="copick.json: the project of this config, with the classes as picks in a new overlay.",
)
@click.option("--class", "classes", metavar="CLASSES", help="Classes to export, as in 1,3-5.  [default: all]")
@click.option(
    "--tomogram-size",
    nargs=3,
    type=click.IntRange(min=1),
    metavar="X Y Z",
    help="Tomogram in voxels of the subtomograms, where the STAR counts from its centre (RELION 5).",
)
@coordinate_spacing_option
@click.option(
    "--anndata",
    type=OutPath(dir_okay=False),
    metavar="CODES.h5ad",
    help="Codes, embedding, coordinates and every column of the STAR as one file, for scanpy; needs no averages.",
)
@click.option("--out", type=OutPath(), help="The folder to make; refused if it holds anything. Not for --anndata.")
def export(
    run: Path | None,
    relion: bool,
    warp: bool,
    dynamo: bool,
    chimerax: bool,
    copick: Path | None,
    classes: str | None,
    tomogram_size: tuple[int, int, int] | None,
    coordinate_spacing: float | None,
    anndata: Path | None,
    out: Path | None,
) -> dict[str, Any]:
    """Export particles with classes and poses to RELION, Warp and M, Dynamo or ChimeraX, with the maps.

    Copies the average, post-processed map, half maps and mask of each class. --anndata writes the codes, for a look
    with scanpy: all particles, unassigned ones too.

    Example: cryodc export run/ --relion --class 1,3 --out for_relion/
    """
    from cryodc.export import export_anndata, export_run, parse_classes

    flags: dict[Program, bool] = {"relion": relion, "warp": warp, "dynamo": dynamo, "chimerax": chimerax}
    chosen = [program for program, is_wanted in flags.items() if is_wanted]
    into_folder = bool(chosen) or copick is not None
    if not into_folder and anndata is None:
        raise click.UsageError("say for which: --relion, --warp, --dynamo, --chimerax, --copick or --anndata")
    if into_folder != (out is not None):
        raise click.UsageError("--out names the folder of every program but --anndata: give both, or neither")
    numbers = [] if classes is None else parse_classes(classes)
    folder, printer = resolve_run(run), console()
    n_particles = 0
    if anndata is not None:
        n_particles = export_anndata(folder, anndata)
        printer.print(f"{n_particles} particles: {anndata}", markup=False, soft_wrap=True)
    if out is None:
        return {"n_particles": n_particles, "files": [anndata]}
    result = export_run(
        folder,
        out,
        chosen,
        classes=numbers,
        tomogram_size_xyz=tomogram_size,
        coordinate_spacing_angstrom=coordinate_spacing,
        copick=copick,
    )
    printer.print(f"{result.n_particles} particles, {len(result.maps)} maps", markup=False)
    for file in result.files:
        printer.print(f"Wrote {file}", markup=False, soft_wrap=True)
    for note in result.notes:
        printer.print(f"note: {note}", markup=False, soft_wrap=True)
    also = [] if anndata is None else [anndata]
    return {"n_particles": result.n_particles, "files": [*also, *result.files], "notes": result.notes}
