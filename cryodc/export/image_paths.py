"""Image names of a STAR that is written elsewhere: still found, and else unchanged."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.io import ImageFinder, split_image_name
from cryodc.runs import RunFolder, load_config
from cryodc.star import StarDocument, write_star

_LABELS = ("rlnImageName", "rlnCtfImage")


def write_chosen(
    run: RunFolder, document: StarDocument, block_name: str, rows: Int[NDArray[np.int64], " k"], out: Path
) -> int:
    """Write some rows of a run's STAR, with images that are found from where it lies; how many have a new name.

    Parameters
    ----------
    run
        Whose config.yaml says where images are.
    document, block_name
        The STAR, and its block of particles.
    rows
        Those to write, in the order of the STAR.
    out
        The STAR to write.
    """
    folders = [Path(folder) for folder in load_config(run).get("image_folders", [])]
    written, n_renamed = keep_images_found(document.with_rows(block_name, rows), block_name, folders, out)
    write_star(written, out)
    return n_renamed


def keep_images_found(
    document: StarDocument, block_name: str, folders: Sequence[Path], star: Path
) -> tuple[StarDocument, int]:
    """Rename images that would not be found from a STAR's new place; every other name keeps its text.

    Parameters
    ----------
    document, block_name
        The rows that are written.
    folders
        Where their images are.
    star
        Where the STAR will lie. Names are found from the current folder and from this STAR's.

    Returns
    -------
    The document, and how many image files have a new name: relative to the STAR's folder.
    """
    block = document.block(block_name)
    there, here = ImageFinder.within(folders), ImageFinder.beside(star, None)
    renamed: dict[str, str] = {}
    changed = {}
    for label in _LABELS:
        if label not in block:
            continue
        names = block.column(label)
        for name in dict.fromkeys(names):
            file = split_image_name(name)[1]
            found, mine = there.find(file), here.find(file)
            if found is not None and (mine is None or not os.path.samefile(found, mine)):  # noqa: PTH121
                relative = os.path.relpath(Path(found).absolute(), star.absolute().parent)
                renamed[name] = name.removesuffix(file) + relative
        changed[label] = [renamed.get(name, name) for name in names]
    return (document.with_columns(block_name, changed), len(renamed)) if renamed else (document, 0)
