"""Particles as a network sees them that works at a smaller box: Fourier-cropped as they are read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cryodc.dataset.dataset import Dataset, OfVolumes
from cryodc.dataset.view_config import ViewConfig
from cryodc.fourier import crop_weights, fourier_crop, standardise


@dataclass(frozen=True)
class CroppedDataset(OfVolumes):
    """Subtomograms as a network of a smaller box sees them: Fourier-cropped, of mean 0 and standard deviation 1.

    Parameters
    ----------
    whole
        The particles.
    box_size
        Even, at most theirs.
    """

    whole: Dataset
    box_size: int

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the particles."""
        return self.whole.names

    @property
    def source(self) -> Path:
        """Their STAR file."""
        return self.whole.source

    def batches(self, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """One batch after the other."""
        for volumes, weights in self.whole.batches(batches):
            kept = None if weights is None else crop_weights(weights, self.box_size)
            yield standardise(fourier_crop(volumes, self.box_size)), kept


def at_box(dataset: Dataset, views: ViewConfig, box_size: int) -> tuple[Dataset, ViewConfig]:
    """Particles and views at the box of the network, the particles' or a smaller one.

    Parameters
    ----------
    dataset
        Volumes if it is smaller; images are taken as they are.
    views
        Their shifts are in voxels of the particles, and become as many of the network's.
    box_size
        Even, in voxels: what lies beyond its Nyquist frequency is dropped.
    """
    if box_size == dataset.box_size:
        return dataset, views
    shift = views.max_shift_voxels * box_size / dataset.box_size
    return CroppedDataset(dataset, box_size), views.model_copy(update={"max_shift_voxels": shift})
