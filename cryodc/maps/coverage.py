"""How much of Fourier space the particles of a class measured, in their poses."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import FourierBall, volume_from_ball

MEASURED = 0.5
"""Particles' worth of measurement from which a Fourier voxel counts as measured: half, for the voxels at an edge."""


@dataclass(frozen=True)
class Coverage:
    """What the poses of a class measured.

    Parameters
    ----------
    volume
        ``(d, h, w)``, DC at ``N // 2``: the share of the particles that measured each Fourier voxel.
    measured
        ``(shells,)`` share of each shell's voxels that at least one particle measured.
    efficiency
        ``(shells,)`` sampling compensation of each shell, 0 to 1: harmonic over arithmetic mean of the coverage of its
        measured voxels, times ``measured``.
    evenness
        ``(shells,)`` least over largest coverage in each shell.
    """

    volume: Float[Tensor, "d h w"]
    measured: Float[NDArray[np.float64], " shells"]
    efficiency: Float[NDArray[np.float64], " shells"]
    evenness: Float[NDArray[np.float64], " shells"]

    def to_shell(self, last: int) -> tuple[float, float, float]:
        """Measured, efficiency and evenness up to a shell: means over its voxels, and the least evenness."""
        shells = np.arange(1, max(2, min(last, len(self.measured) - 2)) + 1)
        share = shells.astype(np.float64) ** 2
        measured, efficiency = (float(np.average(v[shells], weights=share)) for v in (self.measured, self.efficiency))
        return measured, efficiency, float(self.evenness[shells].min())


def measure_coverage(
    power: Float[Tensor, " p"],
    squared: Float[Tensor, " s"],
    seen: Float[Tensor, " s"],
    n_particles: int,
    ball: FourierBall,
) -> Coverage:
    """Coverage from the sum of the turned weights.

    ``c(k) = Σ A⁻¹[H²](k) / (n · h)``, ``h`` the mean of ``H²`` over what a particle measured in that shell: for
    weights of 0 and 1 the share of the particles that measured ``k``. The noise of the average in a shell is the mean
    of ``1 / c``, so even poses would do with the share ``harmonic / arithmetic mean of c`` of the particles (Baldwin &
    Lyumkis 2020, Prog. Biophys. Mol. Biol. 150:160, the sampling compensation factor).

    Parameters
    ----------
    power
        Denominator of :func:`cryodc.fourier.sums_in_ball`.
    squared, seen
        Of the weights in use, as :func:`cryodc.fourier.mean_weights` gives them.
    n_particles
        How many were summed.
    ball
        Of ``power``.
    """
    typical = (squared / seen.clamp_min(1e-9)).clamp_min(1e-12)
    count = power / typical[ball.shells]
    known = (count >= MEASURED).float()
    inverse = known / count.clamp_min(MEASURED)
    measured = ball.shell_mean(known)
    harmonic = measured / ball.shell_mean(inverse).clamp_min(1e-12)
    arithmetic = ball.shell_mean(count * known) / measured.clamp_min(1e-12)
    efficiency = torch.where(measured > 0, measured * harmonic / arithmetic.clamp_min(1e-12), 0.0)
    largest, least = (
        torch.zeros_like(measured).scatter_reduce(0, ball.shells, count, how, include_self=False)
        for how in ("amax", "amin")
    )
    evenness = least.clamp_min(0) / largest.clamp_min(1e-12)
    return Coverage(
        _as_volume(count / n_particles, ball),
        *(values.double().cpu().numpy().clip(0, 1) for values in (measured, efficiency, evenness)),
    )


def view_directions(rotations: Float[NDArray[np.float64], "n 3 3"]) -> Float[NDArray[np.float64], "n 3"]:
    """Direction of the tomogram's z axis in the frame of the reference, zyx: from where each particle was seen."""
    return rotations[:, 0, :]


def _as_volume(values: Tensor, ball: FourierBall) -> Tensor:
    # The spectrum of this volume is the coverage at k and at −k, on the full grid.
    spectrum = torch.fft.fftn(torch.fft.ifftshift(volume_from_ball(values + 0j, ball)))
    return torch.fft.fftshift(spectrum.real)
