"""Particles as spectra in a ball of low frequencies, at a small box."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cryodc.data.cropped import CroppedDataset
from cryodc.data.dataset import Dataset
from cryodc.ops.correlate import FourierBall, ball_spectra, ball_weights, fourier_ball, measured_voxels
from cryodc.ops.filters import soft_sphere

BOX = 16
"""Particles are Fourier-cropped to this box: what tells proteins apart lies in their lowest shells."""

RADIUS = 6.5
"""Shells that are ever looked at."""

_BATCH = 256


@dataclass(frozen=True)
class BallSpectra:
    """Particles as spectra.

    Parameters
    ----------
    ball
        Where they are sampled.
    spectra
        ``(n, p)`` of volumes in the box :data:`BOX`, seen through :func:`sphere`.
    weights, weight_index
        ``(m, p)`` distinct weights, and which one each particle has.
    """

    ball: FourierBall
    spectra: Complex[Tensor, "n p"]
    weights: Float[Tensor, "m p"]
    weight_index: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.spectra)

    def select(self, rows: Int[Tensor, " b"]) -> "BallSpectra":
        """These particles."""
        return BallSpectra(self.ball, self.spectra[rows], self.weights, self.weight_index[rows])

    def within(self, radius_shells: float) -> "BallSpectra":
        """Their shells up to a radius."""
        keep = self.ball.mask(radius_shells)
        return BallSpectra(
            self.ball.within(radius_shells), self.spectra[:, keep], self.weights[:, keep], self.weight_index
        )

    @property
    def measured(self) -> Bool[Tensor, "m p"]:
        """Where each weight is not next to nothing."""
        return measured_voxels(self.weights)


def sphere(device: torch.device | None = None) -> Float[Tensor, "d h w"]:
    """What particles and maps are seen through, in the box :data:`BOX`."""
    return soft_sphere(BOX, 6.0, 2.0, device)


def crop_particles(
    dataset: Dataset, rows: Int[Tensor, " b"], device: torch.device
) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "m d h hw"], Int[Tensor, " b"]]:
    """Volumes in the box :data:`BOX`, their distinct weights, and which of them each has."""
    volumes, weights = [], []
    for volume, weight in at_template_box(dataset).batches(rows.split(_BATCH)):
        assert weight is not None
        volumes.append(volume.to(device))
        weights.append(weight.to(device))
    distinct, index = torch.unique(torch.cat(weights), dim=0, return_inverse=True)
    return torch.cat(volumes), distinct, index


def particle_spectra(dataset: Dataset, device: torch.device) -> BallSpectra:
    """Spectra of all particles, read in batches."""
    return spectra_of(at_template_box(dataset).batches(torch.arange(len(dataset)).split(_BATCH)), device)


def spectra_of(batches: Iterable[tuple[Tensor, Tensor | None]], device: torch.device) -> BallSpectra:
    """Spectra of volumes in the box :data:`BOX` that come in batches, each with its weights."""
    ball, mask = fourier_ball(BOX, RADIUS, device), sphere(device)
    spectra, weights = [], []
    for volume, weight in batches:
        assert weight is not None
        spectra.append(ball_spectra(volume.to(device) * mask, ball))
        weights.append(ball_weights(weight.to(device), ball))
    distinct, index = torch.unique(torch.cat(weights), dim=0, return_inverse=True)
    return BallSpectra(ball, torch.cat(spectra), distinct, index)


def at_template_box(dataset: Dataset) -> Dataset:
    """Particles in the box :data:`BOX`."""
    return dataset if dataset.box_size == BOX else CroppedDataset(dataset, BOX)
