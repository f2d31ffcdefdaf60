"""ImageDataset: 2D images in memory, taken wherever subtomograms are."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.errors import InputError


@dataclass(frozen=True)
class ImageDataset:
    """Square images of one size, each of mean 0 and standard deviation 1; make one with :func:`image_dataset`.

    Parameters
    ----------
    names
        Unique, one per image.
    images
        ``(n, h, w)``, or ``(n, 3, h, w)`` in colour.
    source
        What an error about them names.
    """

    names: tuple[str, ...]
    images: Float[Tensor, "n *image"]
    source: Path

    def __len__(self) -> int:
        return len(self.images)

    @property
    def box_size(self) -> int:
        """Pixels along an edge."""
        return int(self.images.shape[-1])

    @property
    def dims(self) -> int:
        """2."""
        return 2

    @property
    def n_channels(self) -> int:
        """1, or 3 in colour."""
        return 1 if self.images.ndim == 3 else int(self.images.shape[1])

    def batches(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images, whose every frequency was measured."""
        for indices in batches:
            yield self.images[indices], None


def image_dataset(
    images: NDArray[np.generic] | Tensor, names: Sequence[str] | None = None, source: Path | str = "images"
) -> ImageDataset:
    """Images as particles.

    Parameters
    ----------
    images
        ``(n, h, w)`` or ``(n, ch, h, w)`` with 1 or 3 channels; any numbers, even square box of 16 to 128.
    names
        By default ``image000001`` and so on.
    source
        What an error about them names.

    Raises
    ------
    InputError
        If the shape is another, a value is not finite, an image is constant, or names are too few or not unique.

    Examples
    --------
    >>> len(image_dataset(np.random.default_rng(0).normal(size=(5, 28, 28))))
    5
    """
    source = Path(source)
    values = torch.as_tensor(images).float()
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    colour = values.ndim == 4 and values.shape[1] == 3
    box = values.shape[-1] if values.ndim else 0
    if not (values.ndim == 3 or colour) or values.shape[-2] != box or box % 2 or not 16 <= box <= 128:
        raise InputError(
            "these are not square images of an even size",
            file=source,
            expected="(n, h, w) or (n, 3, h, w) with h = w, even, 16 to 128",
            found=str(tuple(values.shape)),
        )
    given = tuple(names) if names is not None else tuple(f"image{i + 1:06d}" for i in range(len(values)))
    if len(given) != len(values) or len(set(given)) != len(given):
        raise InputError(
            "every image needs a name of its own",
            file=source,
            expected=f"{len(values)} different names",
            found=f"{len(set(given))} different among {len(given)}",
        )
    flat = values.flatten(1)
    bad = ~torch.isfinite(flat).all(dim=1) | (flat.amax(dim=1) == flat.amin(dim=1))
    if bad.any():
        first = given[int(bad.nonzero()[0, 0])]
        raise InputError(
            "an image is constant, or holds values that are not finite",
            file=source,
            expected="finite values that differ",
            found=first,
            remedy="leave this image out, or write it anew",
        )
    shape = (-1, *[1] * (values.ndim - 1))
    spread = flat.std(dim=1, correction=0).reshape(shape)
    return ImageDataset(given, (values - flat.mean(dim=1).reshape(shape)) / spread, source)
