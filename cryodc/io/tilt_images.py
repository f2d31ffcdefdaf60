"""Stacks of tilt images: whether they fit the STAR, each other and their tilt series."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io.mrc_header import read_header
from cryodc.io.star_blocks import StarBlock
from cryodc.io.star_text import StarDocument
from cryodc.io.tilt_series import require_columns
from cryodc.particles import ImageReference

_VISIBLE = "rlnTomoVisibleFrames"


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


def read_visible(
    document: StarDocument, block: StarBlock, n_tilts: Sequence[int], n_images: Sequence[int]
) -> tuple[Bool[NDArray[np.bool_], " t"], ...]:
    """Read which tilts show each particle (rlnTomoVisibleFrames); without the column, all do.

    Parameters
    ----------
    document, block
        The STAR and its block of particles.
    n_tilts, n_images
        For each particle, tilts of its tomogram and images of its stack.

    Raises
    ------
    InputError
        If a row does not fit the tilt series, or a stack neither all tilts nor the visible ones.
    """
    if _VISIBLE not in block and list(n_images) != list(n_tilts):
        require_columns(document, block, [_VISIBLE], "without it a stack must hold an image of every tilt")
    texts = block.column(_VISIBLE) if _VISIBLE in block else [str([1] * n) for n in n_tilts]
    masks = []
    for text, tilts, found, row in zip(texts, n_tilts, n_images, block.line_numbers.tolist(), strict=True):
        try:
            flags = [float(value) for value in json.loads(text)]
        except (ValueError, TypeError):
            flags = []
        if len(flags) != tilts or not set(flags) <= {0.0, 1.0} or not any(flags):
            raise InputError(
                f"{_VISIBLE} cannot be used",
                file=document.source,
                row=row,
                expected=f"[…], a 0 or 1 for each of the {tilts} tilts of this tomogram, and at least one 1",
                found=f"{len(flags)} values: {text[:60]}",
                remedy="give the tomograms.star that belongs to these particles",
            )
        n_visible = int(sum(flags))
        if found not in (tilts, n_visible):
            raise InputError(
                "a stack has another number of images than the tilt series",
                file=document.source,
                row=row,
                expected=f"{tilts} images, one per tilt, or {n_visible}, one per visible tilt",
                found=f"{found} images in its stack",
                remedy="give the tomograms.star that belongs to these particles, or extract them again",
            )
        masks.append(np.array(flags) == 1)
    return tuple(masks)
