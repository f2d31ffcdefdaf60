"""What every import writes: a 3D subtomogram and its weight for each particle, and what is said of them all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cryodc.errors import InputError
from cryodc.fourier import Backprojection
from cryodc.io import file_names, write_array, write_volume
from cryodc.star import StarDocument
from cryodc.unfinished import key_of, stamp
from cryodc.volumes import Volume


@dataclass(frozen=True)
class DefocusHand:
    """Whether defocus grows (1) or falls (−1) with depth in one tomogram.

    Parameters
    ----------
    value
        What was used.
    stated
        rlnTomoHand; None where the file does not say.
    measured
        What the images say; 0 where they do not, or were not asked.
    score
        By how many standard errors the images prefer 1 (positive) or −1.
    """

    value: int
    stated: int | None
    measured: int = 0
    score: float = 0.0


@dataclass(frozen=True)
class ImportSummary:
    """What was imported.

    Parameters
    ----------
    star, particles
        The STAR that was given, and the particles.star that was read.
    tomograms
        The tomograms.star; None where rows state the defocus of every image.
    n_particles, box_size, spacing_angstrom
        Of what was written.
    hands
        The sign of the defocus gradient in each tomogram; empty where rows state the defocus of every image.
    coordinates
        How positions were read, in words.
    """

    star: Path
    particles: Path
    tomograms: Path | None
    n_particles: int
    box_size: int
    spacing_angstrom: float
    hands: Mapping[str, DefocusHand]
    coordinates: str


def choose_box(document: StarDocument, image_size: int, box_size: int | None, binning: int) -> int:
    """Edge of the subtomograms, voxels: what is asked for, or the largest even box within the images.

    Parameters
    ----------
    document
        The STAR.
    image_size
        Of the images, pixels.
    box_size, binning
        What the user asks for; None is the largest box.

    Raises
    ------
    InputError
        If the box is odd, too small or larger than the images.
    """
    largest = image_size // max(1, binning) // 2 * 2
    box = largest if box_size is None else box_size
    if binning < 1 or box < 8 or box % 2 or box > largest:
        raise InputError(
            "the box does not fit the images",
            file=document.source,
            expected=f"an even box from 8 to {largest} voxels: {image_size} pixels, {binning} to a voxel",
            found=f"--box {box} --bin {binning}",
            remedy="choose another --box or --bin",
        )
    return box


def number_files(tomograms: Sequence[str]) -> list[str]:
    """Name a file for each particle by its tomogram: ``subtomograms/TOMOGRAM/000001``, numbered within each."""
    counts: dict[str, int] = {}
    folders = file_names(tomograms)
    names = []
    for tomogram in tomograms:
        counts[tomogram] = counts.get(tomogram, 0) + 1
        names.append(f"subtomograms/{folders[tomogram]}/{counts[tomogram]:06d}")
    return names


def identity_of_images(star: Path, tomograms: Path | None, images: Iterable[Path], *settings: object) -> str:
    """Key of a folder of subtomograms; of the files they are made of, and the settings.

    Parameters
    ----------
    star, tomograms
        What was read.
    images
        Files of tilt images; each may come up often.
    settings
        All else that the result follows from.
    """
    files = [star, *([] if tomograms is None else [tomograms]), *images]
    return key_of([stamp(path) for path in dict.fromkeys(files)], *settings)


def are_written(out: Path, files: Sequence[str]) -> bool:
    """Whether all of these particles were written before, as :func:`write_subtomograms` does."""
    return all((out / f"{file}_{kind}.mrc").exists() for file in files for kind in ("data", "weights"))


def write_subtomograms(out: Path, files: Sequence[str], result: Backprojection, spacing_angstrom: float) -> None:
    """Write the volume and the weight of each particle.

    Parameters
    ----------
    out, files
        The folder, and the name of each particle in it, without ``_data.mrc``.
    result
        Data and weights.
    spacing_angstrom
        Of the voxels.
    """
    weights = torch.cat([result.weight, result.multiplicity], dim=1).cpu()
    for file, volume, weight in zip(files, result.data.cpu(), weights, strict=True):
        write_volume(out / f"{file}_data.mrc", Volume(volume.numpy(), spacing_angstrom))
        write_array(out / f"{file}_weights.mrc", weight.numpy(), spacing_angstrom)
