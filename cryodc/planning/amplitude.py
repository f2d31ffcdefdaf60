"""How strong the protein is in particles, without poses: power in the middle of their boxes against power beyond it.

Of a particle ``F = a · H · V + noise`` with ``V`` of variance 1, ``a²`` is wanted. Noise is everywhere, the protein in
the middle. Through a mask, noise of power ``N(k)`` has the power ``N ⊛ |M|²``, which is exact, since noise is
stationary; how far it is not is seen in the finest shells. What a protein shows through a mask is measured on proteins
turned at random. So two masks give two equations for each shell, and noise drops out of their difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import apply_weight, frequency_grid, hermitian_count, shell_index, soft_sphere
from cryodc.simulation import SimulationConfig, Specimen, draw_truth, render

_HELD = 0.9
_FINE = 0.8
_TELLING = 0.3
_N_CLEAN = 48


@dataclass(frozen=True)
class CleanPower:
    """What the proteins look like without noise.

    Parameters
    ----------
    power
        ``(d, h, w // 2 + 1)`` mean ``|F|² / N³`` of proteins of variance 1: the same in all directions.
    masks
        ``(2, d, h, w)``: the middle, which holds nine tenths of their power, and what is beyond it in the sphere that
        fits the box.
    masked
        ``(2, s)`` the same through weights and each mask.
    """

    power: Float[Tensor, "d h hw"]
    masks: Float[Tensor, "2 d h w"]
    masked: Float[Tensor, "2 s"]


def clean_power(
    specimens: Mapping[str, Specimen],
    box_size: int,
    spacing_angstrom: float,
    weights: Float[Tensor, "m d h hw"],
    seed: int,
) -> CleanPower:
    """Turn the proteins at random, each seen through one of some weights, and measure their power.

    Parameters
    ----------
    specimens
        The proteins.
    box_size, spacing_angstrom
        Of the particles.
    weights
        Of some particles.
    seed
        Of the rotations and shifts.
    """
    n_each = -(-_N_CLEAN // len(specimens))
    config = SimulationConfig(n_per_map=n_each, box_size=box_size, spacing_angstrom=spacing_angstrom, seed=seed)
    truth = draw_truth(specimens, config)
    masks: Tensor | None = None
    power, masked = torch.zeros(()), torch.zeros(())
    for start in range(0, len(truth), 16):
        rows = slice(start, min(start + 16, len(truth)))
        clean = render(specimens, truth, rows, config)
        if masks is None:
            masks = _masks(clean)
        seen = apply_weight(clean, weights[torch.arange(rows.start, rows.stop) % len(weights)])
        # Particles are read with mean 0, whatever the protein's own mean is.
        seen = seen - seen.mean(dim=(1, 2, 3), keepdim=True)
        power = power + torch.fft.rfftn(clean, dim=(-3, -2, -1)).abs().square().double().sum(dim=0)
        masked = masked + torch.stack([shell_powers(seen * mask).sum(dim=0) for mask in masks])
    if masks is None:
        raise RuntimeError("there are proteins")
    power[0, 0, 0] = 0
    return CleanPower(_mean_over_directions(power / (len(truth) * box_size**3)), masks, masked / len(truth))


def shell_powers(volumes: Float[Tensor, "n d h w"]) -> Float[Tensor, "n s"]:
    """Mean ``|F|² / N³`` of each volume in each shell, to the corner of the box."""
    power = torch.fft.rfftn(volumes, dim=(-3, -2, -1)).abs().square().double() / volumes[0].numel()
    return shell_means(power)


def shell_means(power: Float[Tensor, "*n d h hw"]) -> Float[Tensor, "*n s"]:
    """Mean over each shell of the whole box, to its corner, of a half-Fourier table."""
    box_size = power.shape[-2]
    index = shell_index(box_size).flatten()
    count = hermitian_count(box_size).double().expand(power.shape[-3:]).flatten()
    empty = torch.zeros(*power.shape[:-3], int(index.max()) + 1, dtype=torch.float64)
    total = empty.index_add(-1, index, power.double().flatten(-3) * count)
    return total / torch.zeros(empty.shape[-1], dtype=torch.float64).index_add(0, index, count)


def masked_noise(power: Float[Tensor, "d h hw"], masks: Float[Tensor, "2 d h w"]) -> Float[Tensor, "2 s"]:
    """Power, by shell, of stationary noise seen through each mask: its own, convolved with that of the mask.

    Parameters
    ----------
    power
        ``|F|² / N³`` of the noise.
    masks
        Real.
    """
    covariance = torch.fft.irfftn(power.double(), s=masks.shape[1:])
    found = []
    for mask in masks.double():
        overlap = torch.fft.irfftn(torch.fft.rfftn(mask).abs().square(), s=mask.shape)
        found.append(shell_means(torch.fft.rfftn(covariance * overlap).real.clamp_min(0) / mask.numel()))
    return torch.stack(found)


def squared_amplitudes(
    masked: Float[Tensor, "n 2 s"], clean: CleanPower, noise: Float[Tensor, "2 s"]
) -> Float[NDArray[np.float64], " n"]:
    """``a²`` as each particle alone says it, unbiased and very uncertain; their mean is the estimate.

    With ``r`` the noise in the middle over that beyond, ``P_mid − r P_out = a² (A_mid − r A_out)`` in each shell.
    Shells count by the inverse variance of the left side.

    Parameters
    ----------
    masked
        ``(n, 2, s)`` power of each particle through the two masks.
    clean
        The same of proteins, without noise.
    noise
        ``(2, s)`` the same of noise, at any scale.
    """
    last = clean.masks.shape[-1] // 2
    shells = torch.arange(1, last)
    ratio = (noise[0] / noise[1].clamp_min(1e-12))[shells]
    seen = clean.masked[0, shells] - ratio * clean.masked[1, shells]
    difference = masked[:, 0, shells] - ratio * masked[:, 1, shells]
    # Each shell's share of the protein's power.
    importance = shells.double().square() * seen / noise[0, shells].clamp_min(1e-12).square()
    # Where a protein shows beyond the middle as much as noise does, nothing can be told.
    importance = torch.where(seen > _TELLING * clean.masked[0, shells], importance, 0)
    return ((difference * importance).sum(dim=1) / (seen * importance).sum()).numpy()


def middle_excess(
    masked: Float[Tensor, "2 s"], clean: CleanPower, noise: Float[Tensor, "2 s"], squared_amplitude: float
) -> float:
    """How much stronger noise is in the middle than stationary noise, by the finest fifth of the shells to Nyquist.

    Interpolation and images that do not cover the box weaken noise towards its faces. Where there is hardly any protein
    that can be seen; it is taken to be alike in all shells.

    Parameters
    ----------
    masked
        Mean power of the particles through the two masks.
    clean, noise
        The same of proteins, without noise, and of stationary noise.
    squared_amplitude
        Of the protein, which is taken off.
    """
    box_size = clean.masks.shape[-1]
    shells = torch.arange(round(_FINE * box_size / 2), box_size // 2)
    left = (masked - squared_amplitude * clean.masked)[:, shells]
    left = torch.maximum(left, 0.1 * masked[:, shells])
    count = shells.double().square()
    # Each shell counts by its voxels, however strong its noise is.
    ratio = (left[0] / left[1]) / (noise[0] / noise[1])[shells]
    return float((ratio * count).sum() / count.sum())


def noise_scale(masked: Float[Tensor, "2 s"], clean: CleanPower, noise: Float[Tensor, "2 s"]) -> Float[Tensor, " s"]:
    """What noise of each shell must be multiplied by, at most tenfold, to explain both masks together with a protein.

    Parameters
    ----------
    masked
        Mean power of the particles through the two masks.
    clean, noise
        The same of proteins, without noise, and of the noise that is assumed.
    """
    protein = clean.masked
    determinant = noise[1] * protein[0] - noise[0] * protein[1]
    found = (masked[1] * protein[0] - masked[0] * protein[1]) / determinant
    return torch.where(determinant > 0, found, 1.0).clamp(0.1, 10.0)


def _mean_over_directions(power: Float[Tensor, "d h hw"]) -> Float[Tensor, "d h hw"]:
    """Mean over all voxels of exactly the same radius: power falls within one shell."""
    box_size = power.shape[0]
    radius = frequency_grid(box_size).square().sum(dim=-1).round().long().flatten()
    count = hermitian_count(box_size).double().expand(power.shape).flatten()
    empty = torch.zeros(int(radius.max()) + 1, dtype=torch.float64)
    mean = empty.index_add(0, radius, power.flatten() * count) / empty.index_add(0, radius, count).clamp_min(1)
    return mean[radius].reshape(power.shape)


def _masks(clean: Float[Tensor, "n d h w"]) -> Float[Tensor, "2 d h w"]:
    """The middle, as large as holds nine tenths of the power of proteins, and what is beyond it in the largest sphere.

    Outside that sphere tilted images of the size of the box do not reach everywhere, so noise is weaker there.
    """
    box_size = clean.shape[-1]
    power = clean.square().mean(dim=0)
    edge = 0.06 * box_size
    radii = np.linspace(0.15, 0.34, 10) * box_size
    held = [float((power * soft_sphere(box_size, radius, edge)).sum() / power.sum()) for radius in radii]
    radius = next((radius for radius, share in zip(radii, held, strict=True) if share >= _HELD), radii[-1])
    sphere = soft_sphere(box_size, box_size / 2 - 1 - edge, edge)
    return torch.stack([soft_sphere(box_size, radius, edge), sphere - soft_sphere(box_size, radius + edge, edge)])
