"""Wedge-consistent views of particles: rotate, shift, re-impose the weight, low-pass, mask, normalise.

A tilt series leaves the same wedge unmeasured in every particle, whatever its pose. Rotating an observed
particle rotates that wedge too, and would give the rotation away; re-imposing the particle's own weight makes
the view one the microscope could have recorded, less the Fourier voxels that both wedges miss.

Two views of one particle share its noise, by which a network can tell them from all others without ever looking at
the protein. Most of that noise is at high frequencies, where the signal is weakest, and each view is cut at a
random low one: what two views still share is the protein.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from cryodc.ops.filters import low_pass, standardise
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
    low_pass_shells
        The encoder sees each view up to a random shell (cycles per box) between these two; None: all of it. A
        particle as recorded is seen up to the middle of the range.
    """

    rotation: Literal["uniform", "vector"] = "uniform"
    max_shift_voxels: float = Field(default=2.0, ge=0)
    rotate_both: bool = True
    reimpose_weight: bool = True
    low_pass_shells: tuple[float, float] | None = (3.0, 9.0)

    @model_validator(mode="after")
    def _check_range(self) -> "ViewConfig":
        if self.low_pass_shells is not None and not 0 < self.low_pass_shells[0] <= self.low_pass_shells[1]:
            raise ValueError("low_pass_shells: expected 0 < lowest <= highest")
        return self


class View(NamedTuple):
    """Volumes the encoder sees, the same before the low-pass, and the weight reconstructions are compared under."""

    volumes: Float[Tensor, "b d h w"]
    target: Float[Tensor, "b d h w"]
    weights: Float[Tensor, "b d h hw"]


def recorded_view(
    volumes: Float[Tensor, "b d h w"],
    weights: Float[Tensor, "b d h hw"],
    mask: Float[Tensor, "d h w"],
    config: ViewConfig,
) -> View:
    """The particles as recorded, through the mask."""
    seen = volumes
    if config.low_pass_shells is not None:
        seen = low_pass(volumes, sum(config.low_pass_shells) / 2)
    return View(through_mask(seen, mask), through_mask(volumes, mask), weights)


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
    seen = through_mask(random_low_pass(rotated, config, generator), mask)
    return View(seen, through_mask(rotated, mask), rotated_weights)


def random_low_pass(
    volumes: Float[Tensor, "b d h w"], config: ViewConfig, generator: torch.Generator
) -> Float[Tensor, "b d h w"]:
    """Each volume up to a shell of its own, drawn uniformly from the configured range."""
    if config.low_pass_shells is None:
        return volumes
    lowest, highest = config.low_pass_shells
    uniform = torch.rand(len(volumes), generator=generator, device=volumes.device)
    return low_pass(volumes, lowest + uniform * (highest - lowest))


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
