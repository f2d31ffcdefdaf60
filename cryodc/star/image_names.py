"""Image names of a STAR that is written elsewhere: still found, and else unchanged."""

import os
from collections.abc import Sequence
from pathlib import Path

from cryodc.io import ImageFinder, split_image_name
from cryodc.star.document import StarDocument

_LABELS = ("rlnImageName", "rlnCtfImage")


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
