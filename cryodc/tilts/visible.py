"""Which tilts show each particle: rlnTomoVisibleFrames."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.star import (
    StarBlock,
    StarDocument,
    vector_of,
)
from cryodc.tilts.series import require_columns

_VISIBLE = "rlnTomoVisibleFrames"


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
        flags = vector_of(text) or []
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
