"""2D single-particle STAR files: ``000001@stack.mrcs`` rows whose optics groups say rlnImageDimensionality 2."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import ImageFinder, ImageReference, number_of, read_header, resolve_images, unreadable, wrong_length
from cryodc.particles.names import repeated_names, unwritable_names
from cryodc.particles.read import read_particles
from cryodc.particles.table import ParticleSet
from cryodc.star import (
    StarDocument,
    common_pixel_size,
    common_value,
    find_particle_block,
    holds_tilt_stacks,
    read_optics,
    read_star,
)

_OF_TOMOGRAMS = {"rlnTomoName", "rlnTomoParticleName", "rlnCoordinateZ", "rlnCenteredCoordinateZAngst"}


def holds_images(document: StarDocument) -> bool:
    """Whether the particles are single 2D images, and neither subtomograms nor stacks of tilt images.

    Raises
    ------
    InputError
        If there is no block of particles, or several could be it.
    """
    optics = document.find("optics")
    if optics is None or "rlnImageDimensionality" not in optics or holds_tilt_stacks(document):
        return False
    flat = set(map(number_of, optics.column("rlnImageDimensionality"))) == {2}
    return flat and not _OF_TOMOGRAMS & {*find_particle_block(document).labels}


def read_image_particles(document: StarDocument, finder: ImageFinder, check_images: bool = True) -> ParticleSet:
    """Read the particles of such a STAR, and the header of every stack.

    A particle is named by its rlnImageName; in place of a tomogram it has its micrograph.

    Parameters
    ----------
    check_images
        Look for every stack and read its header. Without, no file needs to exist, and a box size that the STAR does
        not state is 0.

    Raises
    ------
    InputError
        If a file is missing, a name comes twice or has no section, images differ in size or are no even squares, or
        the pixel size is not known.
    """
    block = find_particle_block(document)
    cells = block.columns(list(block.labels))
    groups = read_optics(document, block, cells, dimensionality="2")
    rows = block.line_numbers.astype(np.int64)
    row_list: list[int] = rows.tolist()
    names = cells["rlnImageName"]
    images, missing = resolve_images(finder, names, row_list, document.source, check_images, "stack")
    named: dict[str, Sequence[str]] = {
        label: cells[label] for label in ("rlnImageName", "rlnMicrographName") if label in cells
    }
    problems = repeated_names(document.source, names, row_list) + missing
    problems += unwritable_names(document.source, named, row_list)
    if problems:
        raise problems[0].error
    spacing = common_pixel_size(document, groups)
    stated = common_value(document, groups, "box_size", "box size")
    size = int(stated or 0)
    if check_images:
        size = check_sections(document, images, row_list, stated, spacing)
        _require_trainable(document, size)
    return ParticleSet(
        source=document.source,
        names=tuple(names),
        rows=rows,
        images=tuple(images),
        weight_images=None,
        tomograms=tuple(cells.get("rlnMicrographName", [""] * len(names))),
        box_size=size,
        spacing_angstrom=spacing,
    )


def read_metadata(path: Path) -> tuple[ParticleSet, int]:
    """Particles of a STAR of subtomograms or of images, and in how many dimensions they are; no image needs to exist.

    Raises
    ------
    InputError
        As :func:`cryodc.particles.read.read_particles` without its images, or as :func:`read_image_particles`.
    """
    document = read_star(path)
    if holds_images(document):
        return read_image_particles(document, ImageFinder.beside(path, None), check_images=False), 2
    return read_particles(path, check_images=False), 3


def read_images(particles: ParticleSet) -> Float[NDArray[np.float32], "n h w"]:
    """Read every image of particles that :func:`read_image_particles` found, one stack after the other.

    Raises
    ------
    InputError
        If a stack cannot be read, or has become shorter.
    """
    return read_sections(particles.images, particles.box_size)


def read_sections(references: Sequence[ImageReference], size: int) -> Float[NDArray[np.float32], "n h w"]:
    """Read images that :func:`check_sections` found to be of one size, one stack after the other.

    Raises
    ------
    InputError
        If a stack cannot be read, or has become shorter.
    """
    images = np.empty((len(references), size, size), np.float32)
    members: dict[str, list[int]] = {}
    for i, image in enumerate(references):
        members.setdefault(image.file, []).append(i)
    for indices in members.values():
        stack = _open_stack(references[indices[0]].path)
        images[indices] = stack[np.array([references[i].section for i in indices], dtype=np.int64)]
    return images


def read_image(reference: ImageReference) -> Float[NDArray[np.float32], "h w"]:
    """Read one image of a stack.

    Raises
    ------
    InputError
        If the stack cannot be read, or does not hold the image.
    """
    stack = _open_stack(reference.path)
    if reference.section is None or not 0 <= reference.section < len(stack):
        raise InputError(
            "this is not an image of its stack",
            file=reference.path,
            expected=f"1 to {len(stack)}",
            found=str(reference),
        )
    return np.array(stack[reference.section], dtype=np.float32)


def _open_stack(path: Path) -> NDArray[np.generic]:
    header = read_header(path)
    try:
        return np.memmap(path, header.dtype, "r", header.data_offset, header.file_shape)
    except ValueError as error:
        raise wrong_length(header, path.stat().st_size) from error
    except OSError as error:
        raise unreadable(path, error) from error


def check_sections(
    document: StarDocument,
    images: Sequence[ImageReference],
    rows: list[int],
    stated: float | None,
    spacing_angstrom: float,
) -> int:
    """Read the header of every stack: the one size of the images, every one of which is in its stack.

    Parameters
    ----------
    document
        The STAR.
    images, rows
        ``000001@stack.mrcs`` of each row, and its line.
    stated, spacing_angstrom
        Image size (None if it does not say) and pixel of the STAR.

    Raises
    ------
    InputError
        If a header cannot be read, or has another size or pixel, or a stack does not hold an image.
    """
    first = {image.file: row for image, row in zip(images[::-1], rows[::-1], strict=True)}
    stacks = [ImageReference(file) for file in first]
    size, sizes = check_stacks(stacks, list(first.values()), document.source, stated, spacing_angstrom)
    n_images = dict(zip(first, sizes, strict=True))
    for image, row in zip(images, rows, strict=True):
        n = n_images[image.file]
        if image.section is None or not 0 <= image.section < n:
            raise InputError(
                "this is not an image of its stack",
                file=document.source,
                row=row,
                expected=f"000001@{image.file} to {n:06d}@{image.file}",
                found=str(image),
            )
    return size


def _require_trainable(document: StarDocument, size: int) -> None:
    if size % 2 or not 16 <= size <= 128:
        raise InputError(
            "images of this size cannot be trained on",
            file=document.source,
            expected="an even number of pixels from 16 to 128",
            found=str(size),
            remedy="extract the particles again, scaled to such a box",
        )


def check_stacks(
    images: Sequence[ImageReference], rows: Sequence[int], source: Path, stated: float | None, spacing_angstrom: float
) -> tuple[int, list[int]]:
    """Read the header of every stack: the one image size, and how many images each stack holds.

    Parameters
    ----------
    images, rows
        The stacks, and their lines in the STAR.
    source
        The STAR.
    stated, spacing_angstrom
        Image size (None if it does not say) and pixel of the STAR.

    Raises
    ------
    InputError
        If a header cannot be read, or has another size or pixel.
    """
    size = None if stated is None else round(stated)
    whose = "rlnImageSize in data_optics" if size else "the first stack"
    n_images = []
    for image, row in zip(images, rows, strict=True):
        path = image.path
        if image.section is not None:
            raise InputError(
                "rlnImageName names one image of a stack",
                file=source,
                row=row,
                expected="a stack with the tilt images of one particle",
                found=str(image),
                remedy="give the particles.star of RELION 5's Extract subtomos or of WarpTools --2d",
            )
        header = read_header(path)
        planes, height, width = header.file_shape
        size = size or width
        if (height, width) != (size, size) or header.axes != (0, 1, 2):
            raise InputError(
                "a stack has images of another size",
                file=path,
                expected=f"{size} × {size} pixels, from {whose}",
                found=f"{height} × {width} pixels (line {row} of {source})",
                remedy="extract this particle again, or remove its row from the STAR",
            )
        pixel = header.spacing_angstrom
        if pixel is not None and abs(pixel - 1) > 1e-4 and abs(pixel - spacing_angstrom) > 0.01 * spacing_angstrom:
            raise InputError(
                "a stack has another pixel size than the STAR says",
                file=path,
                expected=f"{spacing_angstrom:.4g} Å, from data_optics",
                found=f"{pixel:.4g} Å (line {row} of {source})",
                remedy="correct whichever is wrong: rlnImagePixelSize or the MRC header",
            )
        n_images.append(planes)
    return size or 0, n_images
