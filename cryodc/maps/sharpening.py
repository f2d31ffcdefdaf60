"""The map to look at and deposit: weighted by the agreement of the half maps, sharpened if a B-factor can be measured.

Rosenthal & Henderson (2003, J. Mol. Biol. 333:721): the average of all particles agrees with the truth by
``C_ref = √(2 FSC / (1 + FSC))``, so each shell is multiplied by it; and the falling of amplitudes with resolution,
``exp(−B s² / 4)``, is undone by the ``B`` that a straight line through ``ln |F|`` over ``s²`` gives.

That line exists only where the spectrum of proteins is flat, beyond 10 Å (Wilson statistics): coarser, ``|F|`` is the
shape of the particle, and a fitted ``B`` would sharpen one shape into another. So ``B`` is fitted only where at least
``MIN_FIT_SHELLS`` shells lie between 10 Å and the resolution.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import hermitian_count, low_pass, shell_frequencies, shell_index, shell_radius

COARSEST_FIT_ANGSTROM = 10.0
"""Where the Guinier fit begins: RELION's default too."""
MIN_FIT_SHELLS = 5
"""A line through fewer shells is not fitted."""


@dataclass(frozen=True)
class SharpenedMap:
    """The map ``(d, h, w)``, and the B-factor in Å² that its amplitudes fell by, or None where none can be fitted."""

    voxels: Float[Tensor, "d h w"]
    b_factor: float | None


def sharpen(
    halves: Float[Tensor, "2 d h w"],
    fsc: Float[NDArray[np.float64], " shells"],
    spacing_angstrom: float,
    resolution_angstrom: float,
) -> SharpenedMap:
    """Mean of the half maps × ``C_ref`` × ``exp(B s² / 4)``, low-passed at the resolution.

    Parameters
    ----------
    halves
        Unfiltered half maps.
    fsc
        Between them, corrected for the mask.
    spacing_angstrom
        Of their voxels.
    resolution_angstrom
        Where the map ends, with a raised-cosine edge of two shells.
    """
    mean = halves.mean(dim=0)
    box_size = mean.shape[-1]
    known = fsc.clip(0, 1)
    weight = torch.from_numpy(np.sqrt(2 * known / (1 + known))).to(mean)
    weight[0] = 1.0
    index = shell_index(box_size, mean.device)
    weighted = torch.fft.rfftn(mean) * weight[index.clamp_max(len(weight) - 1)]
    b_factor = fit_b_factor(_amplitudes(weighted), spacing_angstrom, resolution_angstrom)
    if b_factor is not None:
        frequency = shell_radius(box_size, mean.device) / (box_size * spacing_angstrom)
        weighted = weighted * torch.exp(0.25 * b_factor * frequency**2)
    voxels = torch.fft.irfftn(weighted, s=mean.shape)
    return SharpenedMap(low_pass(voxels, box_size * spacing_angstrom / resolution_angstrom), b_factor)


def fit_b_factor(
    amplitudes: Float[NDArray[np.float64], " shells"], spacing_angstrom: float, resolution_angstrom: float
) -> float | None:
    """``B`` of ``|F| ∝ exp(−B s² / 4)`` between 10 Å and the resolution, at least 0; None where no line can be drawn.

    Parameters
    ----------
    amplitudes
        Root mean square of ``|F|`` in each shell.
    spacing_angstrom
        Of the voxels.
    resolution_angstrom
        End of the fit.

    Examples
    --------
    Amplitudes that fall by 100 Å² in a box of 64 voxels of 2 Å, and the same at 10 Å:

    >>> s = shell_frequencies(64, 2.0)
    >>> round(fit_b_factor(np.exp(-25.0 * s**2), 2.0, 4.5), 3)
    100.0
    >>> fit_b_factor(np.exp(-25.0 * s**2), 10.0, 25.0) is None
    True
    """
    frequency = shell_frequencies(2 * (len(amplitudes) - 1), spacing_angstrom)
    fitted = (frequency >= 1 / COARSEST_FIT_ANGSTROM) & (frequency <= 1 / resolution_angstrom) & (amplitudes > 0)
    if fitted.sum() < MIN_FIT_SHELLS:
        return None
    slope = np.polyfit(frequency[fitted] ** 2, np.log(amplitudes[fitted]), 1)[0]
    return max(0.0, float(-4 * slope))


def _amplitudes(spectrum: Tensor) -> NDArray[np.float64]:
    box_size = spectrum.shape[0]
    count = hermitian_count(box_size, spectrum.device).double().expand(spectrum.shape)
    index = shell_index(box_size, spectrum.device).reshape(-1)
    sums = [
        torch.zeros(int(index.max()) + 1, dtype=torch.float64, device=spectrum.device).index_add_(
            0, index, values.reshape(-1)
        )
        for values in (spectrum.abs().double().square() * count, count)
    ]
    return (sums[0] / sums[1].clamp_min(1)).sqrt()[: box_size // 2 + 1].cpu().numpy()
