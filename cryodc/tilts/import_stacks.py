"""Import stacks of 2D tilt images: write a 3D subtomogram and its weight for each particle.

The output is what RELION calls a pseudo-subtomogram: ``Σ CTF · image`` beside ``Σ CTF²``, in the tomogram's frame, so
the poses of the input hold as they stand.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cryodc.device import choose_device
from cryodc.dry_run import Forecast, declare, particle_bytes
from cryodc.errors import InputError
from cryodc.fourier import (
    OVERSAMPLING,
    Backprojection,
    backproject,
    crop_images,
    multiply_by_transfer,
    subtract_background,
)
from cryodc.io import ImageFinder, new_folder, require_empty, write_json
from cryodc.particles import COORDINATE_PIXEL, IMAGE_PIXEL, with_subtomograms
from cryodc.star import holds_image_series, read_star, write_star
from cryodc.tilts.defocus_hand import gradient_sign, gradient_terms
from cryodc.tilts.import_series import import_image_series
from cryodc.tilts.optimisation_set import find_particles, find_tomograms
from cryodc.tilts.series import read_tilt_series
from cryodc.tilts.stacks import TiltStacks, read_tilt_stacks, tomogram_names
from cryodc.tilts.written import (
    DefocusHand,
    ImportSummary,
    are_written,
    choose_box,
    identity_of_images,
    number_files,
    write_subtomograms,
)
from cryodc.unfinished import keep_command

_BATCH_BYTES = 1 << 30
_MAX_BATCH = 32
_HAND_SAMPLE = 500
_HAND_SAMPLE_PER_TOMOGRAM = (5, 25)


def import_tilt_stacks(
    star: Path,
    out: Path,
    *,
    tomograms: Path | None = None,
    data_dir: Path | None = None,
    box_size: int | None = None,
    binning: int = 1,
    hand: Literal["auto", "1", "-1"] = "auto",
    device: str = "auto",
    on_start: Callable[[int], None] = lambda n_particles: None,
    on_batch: Callable[[int], None] = lambda n_particles: None,
) -> ImportSummary:
    """Make 3D subtomograms and weights of 2D tilt images: stacks (RELION 5, WarpTools ``--2d``) or image series.

    Image series of Warp and M have a row for every tilt; see :mod:`cryodc.tilts.image_series`. Where a call was killed,
    the next of the same files and settings goes on after the particles that were written.

    Parameters
    ----------
    star
        An optimisation_set.star or a particles.star.
    out
        A folder that does not exist yet, or is empty. It gets subtomograms/, import.json and, last, particles.star.
    tomograms
        The tomograms.star, where it is not found from ``star``.
    data_dir
        Where files are looked for after the current folder and the STAR's.
    box_size
        Edge of the subtomograms, voxels (default: the largest even box within the images).
    binning
        How many pixels make a voxel; high frequencies are left out.
    hand
        The sign of the defocus gradient. ``auto`` measures it on premultiplied images, and takes rlnTomoHand where
        they do not say.
    device
        As :func:`cryodc.device.choose_device`.
    on_start, on_batch
        Hear how many particles there are, and how many were just written.

    Raises
    ------
    InputError
        If anything needed is missing or does not fit: before anything is written, but for pixels that are NaN.
    """
    require_empty(out)
    where = choose_device(device)
    particle_star = find_particles(star, data_dir)
    document = read_star(particle_star)
    if holds_image_series(document):
        if tomograms is not None or hand != "auto":
            raise InputError(
                "rows of image series state orientation and defocus of every image: nothing else is used",
                file=particle_star,
                expected="neither --tomograms nor --hand",
                found=f"--tomograms {tomograms}" if tomograms is not None else f"--hand {hand}",
                remedy="leave the option out",
            )
        return import_image_series(
            document,
            out,
            data_dir=data_dir,
            box_size=box_size,
            binning=binning,
            device=where,
            on_start=on_start,
            on_batch=on_batch,
        )
    names = tomogram_names(document)
    tomogram_star = tomograms or find_tomograms(star, particle_star, data_dir)
    series = read_tilt_series(tomogram_star, names, ImageFinder.beside(tomogram_star, data_dir))
    stacks = read_tilt_stacks(document, series, ImageFinder.beside(particle_star, data_dir))
    box = choose_box(document, stacks.image_size, box_size, binning)
    hands = {name: _choose_hand(stacks, name, hand, where) for name in series}
    on_start(len(stacks))
    files = number_files(stacks.tomograms)
    spacing = stacks.spacing_angstrom * binning
    n, n_bytes = len(stacks), particle_bytes(len(stacks), box)
    # A particle's tilt images hold about as much as its volume.
    declare(Forecast(out, f"{n} stacks of tilt images", n_bytes, 2 * n_bytes, (box,) * 3, {"backprojection": n}, 400))
    key = identity_of_images(particle_star, tomogram_star, stacks.files, box, binning, hands, where)
    with new_folder(out, key) as folder:
        keep_command(folder)
        for rows in _batches(stacks, box, binning):
            named = [files[i] for i in rows]
            if not are_written(folder, named):
                write_subtomograms(folder, named, _backproject(stacks, rows, box, binning, hands, where), spacing)
            on_batch(len(rows))
        told = stacks.frame.describe()
        summary = ImportSummary(
            out / "particles.star", particle_star, tomogram_star, len(stacks), box, spacing, hands, told
        )
        settings = asdict(summary) | {key: str(getattr(summary, key)) for key in ("star", "particles", "tomograms")}
        write_json(folder / "import.json", settings | {"binning": binning})
        images, weights = ([f"{file}_{kind}.mrc" for file in files] for kind in ("data", "weights"))
        written = with_subtomograms(document, images, weights, box, spacing, binning)
        if stacks.frame.stated_by == IMAGE_PIXEL and binning > 1:
            # Coordinates stay as they are, and count pixels of the images that were: it has to be said.
            written = written.with_column("optics", COORDINATE_PIXEL, document.block("optics").column(IMAGE_PIXEL))
        write_star(written, folder / summary.star.name)
    return summary


def _choose_hand(stacks: TiltStacks, tomogram: str, hand: str, device: torch.device) -> DefocusHand:
    series = stacks.series[tomogram]
    if hand != "auto":
        return DefocusHand(int(hand), series.hand)
    rows = [i for i, name in enumerate(stacks.tomograms) if name == tomogram and stacks.premultiplied[i]]
    least, most = _HAND_SAMPLE_PER_TOMOGRAM
    n_sample = min(len(rows), max(least, min(most, _HAND_SAMPLE // len(stacks.series))))
    sample = [rows[at] for at in np.linspace(0, len(rows) - 1, n_sample).round().astype(int)]
    measured, score = 0, 0.0
    optics = series.optics.to(device)
    terms = []
    for i in sample:
        images, visible = _load(stacks, [i], device)
        depths = series.defocus_slope * _depths(stacks, [i], device)
        terms.append(gradient_terms(images, visible, optics, depths, stacks.spacing_angstrom).cpu())
    if terms:
        measured, score = gradient_sign(torch.cat(terms, dim=1))
    if not measured and series.hand is None:
        raise InputError(
            f"the sign of the defocus gradient of tomogram {tomogram} is not known",
            file=series.source,
            expected="rlnTomoHand in data_global",
            found="none, and it cannot be read off the images",
            remedy="give it: --hand -1, which is the usual one, or --hand 1",
        )
    return DefocusHand(measured or series.hand or 0, series.hand, measured, score)


def _backproject(
    stacks: TiltStacks,
    rows: list[int],
    box_size: int,
    binning: int,
    hands: Mapping[str, DefocusHand],
    device: torch.device,
) -> Backprojection:
    """Particles that share their projections."""
    series = stacks.series[stacks.tomograms[rows[0]]]
    optics = series.optics.to(device)
    images, visible = _load(stacks, rows, device)
    offsets = hands[series.name].value * series.defocus_slope * _depths(stacks, rows, device)
    if not stacks.premultiplied[rows[0]]:
        images = multiply_by_transfer(subtract_background(images), optics, offsets, stacks.spacing_angstrom)
    projections = torch.from_numpy(series.projections @ stacks.rotations[rows[0]]).float().to(device)
    cropped = crop_images(images, box_size * binning)
    return backproject(cropped, visible, projections, optics, offsets, stacks.spacing_angstrom, box_size)


def _batches(stacks: TiltStacks, box_size: int, binning: int) -> Iterator[list[int]]:
    """Rows of particles that share their projections, as many as fit into memory."""
    groups: dict[tuple[str, bytes, bool], list[int]] = {}
    for i, tomogram in enumerate(stacks.tomograms):
        key = (tomogram, stacks.rotations[i].tobytes(), bool(stacks.premultiplied[i]))
        groups.setdefault(key, []).append(i)
    n_tilts = max(len(series) for series in stacks.series.values())
    # Bytes per particle: sums, spectra, volumes and what the FFT needs on the wide grid; images, one of them padded.
    wide = (OVERSAMPLING * box_size) ** 3 * 72
    n_bytes = wide + n_tilts * stacks.image_size**2 * 12 + (OVERSAMPLING * box_size * binning) ** 2 * 32
    size = min(_MAX_BATCH, max(1, _BATCH_BYTES // n_bytes))
    for rows in groups.values():
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _load(
    stacks: TiltStacks, rows: list[int], device: torch.device
) -> tuple[Float[Tensor, "b t m m"], Bool[Tensor, "b t"]]:
    images = torch.stack([stacks.read_images(i) for i in rows]).to(device)
    visible = torch.from_numpy(np.stack([stacks.visible[i] for i in rows])).to(device)
    return images, visible


def _depths(stacks: TiltStacks, rows: list[int], device: torch.device) -> Float[Tensor, "b t"]:
    return torch.from_numpy(np.stack([stacks.depths_angstrom(i) for i in rows])).float().to(device)
