"""FSC of half maps within a mask, and what of it the mask made.

A mask correlates neighbouring Fourier voxels, so two masked maps of noise agree too. Chen et al. (2013,
Ultramicroscopy 135:24) measure how much: beyond a shell where the unmasked maps no longer surely agree, the phases of
both maps are drawn at random, and the FSC that is left within the mask is the mask's own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.ops.filters import shell_index
from cryodc.ops.fsc import fourier_shell_correlation

RANDOMISE_BELOW = 0.8
"""Phases are drawn at random from the first shell on where the unmasked FSC is below this."""

FIRST_SHELL = 2
"""Phases of coarser shells are never touched: without the overall shape there is nothing to correct."""

_N_DRAWS = 4


@dataclass(frozen=True)
class HalfMapFsc:
    """Four curves, ``(N // 2 + 1,)`` each, DC to Nyquist.

    Parameters
    ----------
    unmasked, masked
        Of the half maps as they are, and within the mask.
    randomised
        Within the mask, phases random from ``randomised_from`` on: the mean of several draws.
    corrected
        ``(masked − randomised) / (1 − randomised)`` from two shells beyond that; ``masked`` up to there.
    randomised_from
        Shell.
    """

    unmasked: Float[NDArray[np.float64], " shells"]
    masked: Float[NDArray[np.float64], " shells"]
    randomised: Float[NDArray[np.float64], " shells"]
    corrected: Float[NDArray[np.float64], " shells"]
    randomised_from: int


def half_map_fsc(halves: Float[Tensor, "2 d h w"], mask: Float[Tensor, "d h w"], seed: int = 0) -> HalfMapFsc:
    """FSC of two half maps, corrected for the mask (Chen et al. 2013, equation 4).

    Parameters
    ----------
    halves
        Unfiltered.
    mask
        Soft, 0 to 1.
    seed
        Of the random phases.
    """
    unmasked = fourier_shell_correlation(halves[0], halves[1])
    masked = fourier_shell_correlation(halves[0] * mask, halves[1] * mask)
    low = np.flatnonzero(unmasked[FIRST_SHELL:] < RANDOMISE_BELOW)
    start = FIRST_SHELL + int(low[0]) if len(low) else len(unmasked)
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(_N_DRAWS if start < len(unmasked) else 0):
        first, second = (randomise_phases(half, start, generator) for half in halves)
        draws.append(fourier_shell_correlation(first * mask, second * mask))
    randomised = np.mean(draws, axis=0) if draws else masked.copy()
    corrected = masked.copy()
    beyond = slice(start + 2, None)
    corrected[beyond] = (masked[beyond] - randomised[beyond]) / np.maximum(1 - randomised[beyond], 1e-3)
    return HalfMapFsc(unmasked, masked, randomised, corrected.clip(-1, 1), start)


def randomise_phases(
    volume: Float[Tensor, "d h w"], from_shell: int, generator: torch.Generator
) -> Float[Tensor, "d h w"]:
    """The volume with phases from a shell on replaced by those of white noise; amplitudes stay.

    Parameters
    ----------
    volume
        Real cube.
    from_shell
        First shell whose phases are drawn.
    generator
        On the CPU.
    """
    box_size = volume.shape[-1]
    noise = torch.randn((box_size,) * 3, generator=generator).to(volume)
    spectrum, drawn = torch.fft.rfftn(volume), torch.fft.rfftn(noise)
    random = spectrum.abs() * drawn / drawn.abs().clamp_min(1e-12)
    kept = shell_index(box_size, volume.device) < from_shell
    return torch.fft.irfftn(torch.where(kept, spectrum, random), s=volume.shape)
