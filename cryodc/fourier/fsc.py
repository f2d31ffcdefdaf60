"""Fourier shell correlation, and the resolution read off it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier.filters import hermitian_count, shell_index


def fourier_shell_correlation(
    first: Float[Tensor, "d h w"], second: Float[Tensor, "d h w"]
) -> Float[NDArray[np.float64], " shells"]:
    """Correlation of two volumes in each Fourier shell, DC to Nyquist.

    ``FSC(s) = Re Σ F₁ F₂* / √(Σ|F₁|² Σ|F₂|²)`` over the voxels whose radius rounds to ``s`` (Harauz & van Heel
    1986). Nothing is interpolated between shells. A shell where either volume is empty has FSC 0.

    Parameters
    ----------
    first, second
        Real cubes of one even box size.

    Returns
    -------
    ``(N // 2 + 1,)``: entry ``s`` is the shell at ``s / (N · spacing)`` Å⁻¹.
    """
    box_size = first.shape[-1]
    a = torch.fft.rfftn(first.double())
    b = torch.fft.rfftn(second.double())
    count = hermitian_count(box_size, first.device).double()
    index = shell_index(box_size, first.device)
    cross, power_a, power_b = (
        _shell_sums(values * count, index) for values in ((a * b.conj()).real, a.abs() ** 2, b.abs() ** 2)
    )
    norm = (power_a * power_b).sqrt()
    # Single-precision filters leave about 1e-14 of the strongest shell's power in an empty one.
    empty = norm <= 1e-12 * float(norm.max())
    return torch.where(empty, torch.zeros_like(norm), cross / norm.clamp_min(1e-300)).cpu().numpy()


def shell_product(
    first: Float[Tensor, "d h w"], second: Float[Tensor, "d h w"]
) -> Float[NDArray[np.float64], " shells"]:
    """``Re Σ F₁ F₂*`` over each Fourier shell, DC to Nyquist: the numerator of an FSC.

    Parameters
    ----------
    first, second
        Real cubes of one even box size.
    """
    box_size = first.shape[-1]
    product = (torch.fft.rfftn(first.double()) * torch.fft.rfftn(second.double()).conj()).real
    count = hermitian_count(box_size, first.device).double()
    return _shell_sums(product * count, shell_index(box_size, first.device)).cpu().numpy()


def shell_frequencies(box_size: int, spacing_angstrom: float) -> Float[NDArray[np.float64], " shells"]:
    """Spatial frequency of each FSC shell, in Å⁻¹."""
    return np.arange(box_size // 2 + 1) / (box_size * spacing_angstrom)


def resolution_angstrom(
    fsc: Float[NDArray[np.float64], " shells"], spacing_angstrom: float, threshold: float = 0.143
) -> float:
    """Resolution where the FSC first falls below a threshold, linear between shells, in Å.

    Returns the Nyquist resolution if it never falls, and infinity if it is below from the first shell on.

    Examples
    --------
    >>> resolution_angstrom(np.array([1.0, 1.0, 0.9, 0.3, 0.0]), 10.0, threshold=0.6)
    32.0
    """
    box_size = 2 * (len(fsc) - 1)
    shell = agreeing_shells(fsc, threshold) + 1
    if shell == len(fsc):
        return 2 * spacing_angstrom
    if shell == 1:
        return float("inf")
    drop = (fsc[shell - 1] - threshold) / (fsc[shell - 1] - fsc[shell])
    return float(box_size * spacing_angstrom / (shell - 1 + drop))


def agreeing_shells(fsc: Float[NDArray[np.float64], " shells"] | Tensor, threshold: float = 0.143) -> int:
    """Shells beyond DC before the FSC first falls below a threshold; all of them if it never does.

    Examples
    --------
    >>> agreeing_shells(np.array([1.0, 1.0, 0.9, 0.1, 0.5])), agreeing_shells(np.ones(5))
    (2, 4)
    """
    below = (fsc[1:] < threshold).nonzero()[0] if isinstance(fsc, np.ndarray) else (fsc[1:] < threshold).nonzero()
    return int(below[0]) if len(below) else len(fsc) - 1


def _shell_sums(values: Tensor, index: Tensor) -> Tensor:
    n_shells = index.shape[-1]
    sums = torch.zeros(int(index.max()) + 1, dtype=values.dtype, device=values.device)
    return sums.index_add_(0, index.reshape(-1), values.reshape(-1))[:n_shells]


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
