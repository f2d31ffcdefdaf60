"""Import image series of Warp and M, whose rows are tilt images: a 3D subtomogram and its weight for each particle.

Files are those of :mod:`cryodc.tilts.import_stacks`, with two differences. A subtomogram lies as its particle does in
its least tilted image. And particles.star is a new table: it has the row of that image for each particle.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from cryodc.fourier import Backprojection, backproject, crop_images, multiply_by_transfer, subtract_background
from cryodc.io import ImageFinder, new_folder, write_json, write_text
from cryodc.particles import COORDINATE_PIXEL
from cryodc.star import StarDocument, star_table
from cryodc.tilts.image_series import ANGLES, MICROSCOPE, ImageSeries, read_image_series
from cryodc.tilts.written import (
    ImportSummary,
    are_written,
    choose_box,
    identity_of_images,
    number_files,
    write_subtomograms,
)
from cryodc.unfinished import keep_command

_COORDINATES = tuple(f"rlnCoordinate{axis}" for axis in "XYZ")
# What belongs to one image of a particle, or is said by the optics that are written.
_OF_IMAGES = {
    "rlnImageName",
    "rlnCtfImage",
    "rlnOpticsGroup",
    "rlnMagnification",
    "rlnDetectorPixelSize",
    "rlnPixelSize",
    *MICROSCOPE,
    "rlnPhaseShift",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnCtfBfactor",
    "rlnCtfScalefactor",
    "rlnCtfMaxResolution",
    "rlnCtfFigureOfMerit",
    "rlnOriginX",
    "rlnOriginY",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
}


def import_image_series(
    document: StarDocument,
    out: Path,
    *,
    data_dir: Path | None,
    box_size: int | None,
    binning: int,
    device: torch.device,
    on_start: Callable[[int], None],
    on_batch: Callable[[int], None],
) -> ImportSummary:
    """Make 3D subtomograms and weights of image series; as :func:`cryodc.tilts.import_tilt_stacks`.

    Parameters
    ----------
    document
        The STAR, whose rows are tilt images.
    out, data_dir, box_size, binning, device, on_start, on_batch
        As there.

    Raises
    ------
    InputError
        If anything needed is missing or does not fit: before anything is written, but for pixels that are NaN.
    """
    series = read_image_series(document, ImageFinder.beside(document.source, data_dir))
    box = choose_box(document, series.image_size, box_size, binning)
    spacing = series.spacing_angstrom * binning
    on_start(len(series))
    files = number_files(series.tomograms)
    images = (image.path for image in series.images)
    with new_folder(out, identity_of_images(document.source, None, images, box, binning, device)) as folder:
        keep_command(folder)
        for i, file in enumerate(files):
            if not are_written(folder, [file]):
                write_subtomograms(folder, [file], _backproject(series, i, box, binning, device), spacing)
            on_batch(1)
        coordinates = _coordinates(series)
        told = f"pixels of {series.spacing_angstrom:g} Å, those of the images" if coordinates else "none"
        source = document.source
        summary = ImportSummary(out / "particles.star", source, None, len(series), box, spacing, {}, told)
        settings = {"star": str(summary.star), "particles": str(source), "binning": binning}
        write_json(folder / "import.json", asdict(summary) | settings)
        write_text(folder / summary.star.name, _particles(series, files, coordinates, box, spacing))
    return summary


def _backproject(series: ImageSeries, i: int, box_size: int, binning: int, device: torch.device) -> Backprojection:
    images, optics = series.read_images(i)[None].to(device), series.optics(i).to(device)
    n_tilts, spacing = images.shape[1], series.spacing_angstrom
    no_offsets = torch.zeros(1, n_tilts, device=device)
    if not series.premultiplied[series.upright[i]]:
        images = multiply_by_transfer(subtract_background(images), optics, no_offsets, spacing)
    visible = torch.ones(1, n_tilts, dtype=torch.bool, device=device)
    cropped = crop_images(images, box_size * binning)
    return backproject(cropped, visible, series.projections(i).to(device), optics, no_offsets, spacing, box_size)


def _coordinates(series: ImageSeries) -> tuple[str, ...]:
    """The columns of a place in the tomogram; a place in an image differs between tilts, and is none."""
    if not all(label in series.block for label in _COORDINATES):
        return ()
    places = list(zip(*(series.block.column(label) for label in _COORDINATES), strict=True))
    fixed = all(len({places[row] for row in rows.tolist()}) == 1 for rows in series.members)
    return _COORDINATES if fixed else ()


def _particles(
    series: ImageSeries, files: list[str], coordinates: tuple[str, ...], box_size: int, spacing_angstrom: float
) -> str:
    """particles.star: of each particle the row of its upright image, less what belongs to that image alone."""
    first = int(series.upright[0])
    optics = {
        "rlnOpticsGroup": "1",
        "rlnOpticsGroupName": "imported",
        **{label: f"{series.values[label][first]:.6f}" for label in MICROSCOPE},
        COORDINATE_PIXEL: f"{series.spacing_angstrom:.6f}",
        "rlnImagePixelSize": f"{spacing_angstrom:.6f}",
        "rlnImageSize": str(box_size),
        "rlnImageDimensionality": "3",
        "rlnCtfDataAreCtfPremultiplied": "1",
    }
    left_out = _OF_IMAGES | ({*_COORDINATES} - {*coordinates}) | (set() if series.has_poses else {*ANGLES})
    cells = series.block.columns([label for label in series.block.labels if label not in left_out])
    columns = {label: [texts[row] for row in series.upright.tolist()] for label, texts in cells.items()}
    columns["rlnMicrographName"] = list(series.tomograms)
    columns["rlnImageName"] = [f"{file}_data.mrc" for file in files]
    columns["rlnCtfImage"] = [f"{file}_weights.mrc" for file in files]
    columns["rlnOpticsGroup"] = ["1"] * len(files)
    head = star_table("optics", {label: [value] for label, value in optics.items()})
    return f"\n# version 30001\n\n{head}\n\n# version 30001\n\n{star_table('particles', columns)}\n"
