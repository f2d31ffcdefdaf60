"""Wedge-consistent views of particles: rotate, shift, re-impose the weight, mask, normalise.

A tilt series leaves the same wedge unmeasured in every particle, whatever its pose. Rotating an observed
particle rotates that wedge too, and would give the rotation away; re-imposing the particle's own weight makes
the view one the microscope could have recorded, less the Fourier voxels that both wedges miss.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor

from cryodc.ops.filters import standardise
from cryodc.ops.rotations import random_rotations, resample, rotations_from_vectors
from cryodc.ops.wedge import apply_weight


class ViewConfig(BaseModel, extra="forbid", frozen=True):
    """How views are drawn.

    Parameters
    ----------
    rotation
        ``uniform``: uniform on SO(3). ``vector``: a rotation vector with each component in ±90°, as published.
    max_shift_voxels
        Random shift, uniform in a cube of ± this: picks are never centred.
    rotate_both
        Both views of a pair are rotated; otherwise the first is the particle as recorded, as published.
    reimpose_weight
        Re-impose the particle's own weight after rotating.
    """

    rotation: Literal["uniform", "vector"] = "uniform"
    max_shift_voxels: float = Field(default=2.0, ge=0)
    rotate_both: bool = True
    reimpose_weight: bool = True


class View(NamedTuple):
    """Volumes the encoder sees, and the weight their reconstruction is compared under."""

    volumes: Float[Tensor, "b d h w"]
    weights: Float[Tensor, "b d h hw"]


def recorded_view(
    volumes: Float[Tensor, "b d h w"],
    weights: Float[Tensor, "b d h hw"],
    mask: Float[Tensor, "d h w"],
) -> View:
    """The particles as recorded, through the mask."""
    return View(through_mask(volumes, mask), weights)


def random_view(
    volumes: Float[Tensor, "b d h w"],
    weights: Float[Tensor, "b d h hw"],
    mask: Float[Tensor, "d h w"],
    config: ViewConfig,
    generator: torch.Generator,
) -> View:
    """``W_i [ R x_i + shift ]`` through the mask, ``R`` and shift drawn per particle.

    The weight of the view is ``W ∘ (R W)``: what was measured before and is kept after.
    """
    n_particles = len(volumes)
    rotations = _draw_rotations(n_particles, config, generator)
    uniform = torch.rand(n_particles, 3, generator=generator, device=volumes.device)
    shifts = (2 * uniform - 1) * config.max_shift_voxels
    rotated = resample(volumes, rotations, shifts)
    rotated_weights = rotate_weights(weights, rotations)
    if config.reimpose_weight:
        rotated = apply_weight(rotated, weights)
        rotated_weights = weights * rotated_weights
    return View(through_mask(rotated, mask), rotated_weights)


def through_mask(volumes: Float[Tensor, "b d h w"], mask: Float[Tensor, "d h w"]) -> Float[Tensor, "b d h w"]:
    """Volumes seen through a mask: mean 0 and variance 1 under it, nothing outside."""
    total = mask.sum()
    mean = (mask * volumes).sum(dim=(-3, -2, -1), keepdim=True) / total
    centred = mask * (volumes - mean)
    variance = (centred**2).sum(dim=(-3, -2, -1), keepdim=True) / (mask**2).sum()
    return centred / variance.sqrt().clamp_min(1e-12)


def rotate_weights(weights: Float[Tensor, "b d h hw"], rotations: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b d h hw"]:
    """Rotate half-Fourier weights as :func:`cryodc.ops.rotations.resample` rotates the volumes they belong to."""
    full = full_spectrum(weights)
    shifted = torch.fft.fftshift(full, dim=(-3, -2, -1))
    rotated = torch.fft.ifftshift(resample(shifted, rotations), dim=(-3, -2, -1))
    return rotated[..., : weights.shape[-1]]


def full_spectrum(weights: Float[Tensor, "b d h hw"]) -> Float[Tensor, "b d h w"]:
    """The other half of a real, centrosymmetric half-Fourier array, FFT order."""
    inner = weights[..., 1:-1]
    mirrored = inner.flip(-3, -2, -1).roll((1, 1), dims=(-3, -2))
    return torch.cat([weights, mirrored], dim=-1)


def add_noise(
    volumes: Float[Tensor, "b d h w"], weights: Float[Tensor, "b d h hw"], generator: torch.Generator
) -> Float[Tensor, "b d h w"]:
    """Decoded volumes as recorded: weighted, with the white noise that brings each to variance 1.

    Particles are standardised, so what a decoder leaves unexplained is noise of variance ``1 − var(x̂)``.
    """
    noise = torch.randn(volumes.shape, generator=generator, device=volumes.device)
    signal = apply_weight(volumes, weights)
    explained = signal.var(dim=(-3, -2, -1), keepdim=True)
    unexplained = (1 - explained).clamp_min(0.0).sqrt()
    return signal + unexplained * standardise(apply_weight(noise, weights))


def _draw_rotations(n_rotations: int, config: ViewConfig, generator: torch.Generator) -> Tensor:
    if config.rotation == "uniform":
        return random_rotations(n_rotations, generator)
    vectors = torch.rand(n_rotations, 3, generator=generator, device=generator.device)
    return rotations_from_vectors((2 * vectors - 1) * (math.pi / 2))
