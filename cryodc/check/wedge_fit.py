"""Where the missing wedge of a set of particles lies, read from their own Fourier power.

Power within the wedge is lower than elsewhere in the same shell. Two levels of power in each shell, one missing
and one measured, are fitted to every wedge: any axis to tilt about, any beam along another axis, any range.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import frequency_grid, hermitian_count, shell_index, shell_radius

Axis = Literal["z", "y", "x"]
_PLANES: tuple[tuple[Axis, Axis, Axis], ...] = (("y", "z", "x"), ("x", "z", "y"), ("z", "y", "x"))
_INDEX: dict[Axis, int] = {"z": 0, "y": 1, "x": 2}
_FIRST_SHELL = 3
_SMALLEST, _LARGEST = 10, 150
_FLOOR = 0.02
"""Least power of the wedge that counts, of its shell's mean: exact zeros would outweigh everything else."""
_MEASURED = 0.01


@dataclass(frozen=True)
class WedgeFit:
    """A missing wedge.

    Parameters
    ----------
    tilt_axis
        The axis the specimen was tilted about.
    beam
        The axis of the beam, in the middle of what is missing; z in every convention of the field.
    tilt_range
        ``(min, max)`` degrees, as :func:`cryodc.fourier.wedge.wedge_from_tilt_range` takes it if the beam is z.
    depth
        Power in the wedge over power outside it, same shells: near 0 if nothing was added there, near 1 if there is
        no wedge to see.
    gain
        Log-likelihood gained over no wedge, nats per Fourier voxel.
    """

    tilt_axis: Axis
    beam: Axis
    tilt_range: tuple[float, float]
    depth: float
    gain: float

    @property
    def whole_degrees(self) -> tuple[int, int]:
        """The outermost whole degrees measured."""
        return math.ceil(self.tilt_range[0]), math.floor(self.tilt_range[1])


def measured_fraction(transfer: Float[Tensor, "d h hw"]) -> float:
    """Give the share of Fourier voxels within Nyquist whose weight exceeds 1 % of the largest."""
    box = transfer.shape[0]
    counted = hermitian_count(box) * (shell_radius(box) <= box // 2)
    magnitude = transfer.abs()
    return float((counted * (magnitude > _MEASURED * magnitude.max())).sum() / counted.sum())


def mean_power(volumes: Float[Tensor, "n d h w"]) -> Float[Tensor, "d h hw"]:
    """Mean power spectrum ``|F|²`` of particles, float64."""
    total = torch.zeros(volumes.shape[1], volumes.shape[2], volumes.shape[3] // 2 + 1, dtype=torch.float64)
    for batch in volumes.split(32):
        total += torch.fft.rfftn(batch, dim=(-3, -2, -1)).abs().square().sum(dim=0).double().cpu()
    return total / max(1, len(volumes))


def fit_wedge(power: Float[Tensor, "d h hw"]) -> WedgeFit:
    """Fit the wedge that best explains a power spectrum.

    The power of a Fourier voxel of noise is exponentially distributed; with one mean ``p`` in each shell for the
    missing and one for the measured voxels the log-likelihood is ``−Σ N log p``. It is maximised over three tilt
    axes and every missing interval of angles about them, in steps of 1°. Shells from 3 on count: the first are
    the protein's.

    Parameters
    ----------
    power
        ``(d, h, w // 2 + 1)``: a mean power spectrum, or the square of a weight.
    """
    fits = [_fit_plane(power, *plane) for plane in _PLANES]
    return max(fits, key=lambda fit: fit.gain)


def rate_wedge(
    power: Float[Tensor, "d h hw"], tilt_axis: Axis, beam: Axis, tilt_range: tuple[float, float]
) -> WedgeFit:
    """Say how deep a given wedge is in a power spectrum, and what it explains of it.

    The gain is negative where the wedge is brighter than the rest.

    Parameters
    ----------
    power
        ``(d, h, w // 2 + 1)``.
    tilt_axis, beam, tilt_range
        As in :class:`WedgeFit`.
    """
    _, first, second = next(plane for plane in _PLANES if plane[0] == tilt_axis)
    low, high = tilt_range if beam == first else (90 - tilt_range[1], 90 - tilt_range[0])
    start, end = math.ceil(high + 0.5), math.floor(low + 180.5)
    if end <= start:
        return WedgeFit(tilt_axis, beam, tilt_range, 1.0, 0.0)
    sums, counts = _angle_histogram(power, first, second)
    gains, depths = _rate_intervals(sums, counts, np.array([start % 180]), np.array([end - start]))
    return WedgeFit(tilt_axis, beam, tilt_range, float(depths[0]), float(gains[0]))


def _fit_plane(power: Tensor, tilt_axis: Axis, first: Axis, second: Axis) -> WedgeFit:
    starts, widths = np.meshgrid(np.arange(180), np.arange(_SMALLEST, _LARGEST + 1), indexing="ij")
    sums, counts = _angle_histogram(power, first, second)
    gains, depths = _rate_intervals(sums, counts, starts.ravel(), widths.ravel())
    best = int(np.where(depths < 1, gains, -math.inf).argmax())
    start, width = int(starts.flat[best]), int(widths.flat[best])
    depth, gain = float(depths[best]), float(gains[best])
    # What is measured begins where the missing interval ends and ends where it begins again, half a turn on.
    low, high = start + width - 180.5, start - 0.5
    if 45 <= (start + width / 2) % 180 < 135:
        return WedgeFit(tilt_axis, first, _near_zero(low, high), depth, gain)
    return WedgeFit(tilt_axis, second, _near_zero(90 - high, 90 - low), depth, gain)


def _near_zero(low: float, high: float) -> tuple[float, float]:
    turn = 180 * round((low + high) / 360)
    return low - turn, high - turn


def _angle_histogram(power: Tensor, first: Axis, second: Axis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power and number of voxels by shell and by degree, ``(shells, 180)``, angles from the second axis."""
    box = power.shape[0]
    k = frequency_grid(box).double()
    one, other = k[..., _INDEX[first]], k[..., _INDEX[second]]
    shells = shell_index(box)
    # Within two voxels of the tilt axis an angle means nothing; at Nyquist it has two signs.
    inside = (shells >= _FIRST_SHELL) & (k.abs().amax(dim=-1) < box // 2) & (one**2 + other**2 >= 4)
    inside &= shells < box // 2
    angle = torch.rad2deg(torch.atan2(one, other)).round().long() % 180
    place = (shells * 180 + angle)[inside]
    count = hermitian_count(box).double().expand(shells.shape)
    sums, counts = (
        torch.zeros(box // 2 * 180, dtype=torch.float64).index_add_(0, place, values[inside]).reshape(-1, 180)
        for values in (power.double().cpu() * count, count)
    )
    return sums[_FIRST_SHELL:].numpy(), counts[_FIRST_SHELL:].numpy()


def _rate_intervals(
    sums: NDArray[np.float64], counts: NDArray[np.float64], starts: NDArray[np.int64], widths: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain and depth of each missing interval of degrees."""
    all_power, all_voxels = sums.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True)
    missing_power, missing = (
        running[:, starts + widths] - running[:, starts]
        for running in (np.cumsum(np.pad(np.tile(table, 2), ((0, 0), (1, 0))), axis=1) for table in (sums, counts))
    )
    mean = all_power / all_voxels
    low = missing_power / missing.clip(1)
    high = (all_power - missing_power) / (all_voxels - missing).clip(1)
    least = (_FLOOR * mean).clip(1e-300)
    explained = all_voxels * np.log(mean.clip(1e-300))
    explained = explained - missing * np.log(low.clip(least)) - (all_voxels - missing) * np.log(high.clip(least))
    depths = (low * missing).sum(axis=0) / (high * missing).sum(axis=0).clip(1e-300)
    gains = explained.sum(axis=0) / all_voxels.sum()
    return np.where(depths < 1, gains, -gains), depths
