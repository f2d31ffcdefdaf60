"""Wedge-consistent views of particles: rotate, shift, re-impose the weight, low-pass, mask, normalise.

A tilt series leaves the same wedge unmeasured in every particle, whatever its pose. Rotating an observed
particle rotates that wedge too, and would give the rotation away; re-imposing the particle's own weight makes
the view one the microscope could have recorded, less the Fourier voxels that both wedges miss.

Two views of one particle share its noise, by which a network can tell them from all others without ever looking at
the protein. Most of that noise is at high frequencies, where the signal is weakest, and each view is cut at a
random low one: what two views still share is the protein.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cryodc.dataset.view_config import ViewConfig
from cryodc.fourier import apply_weight, low_pass, standardise, view_mask
from cryodc.geometry import n_rotation_parameters, random_rotations, resample, rotations_from_parameters

_ELASTIC_NODES = 5


class View(NamedTuple):
    """What the encoder sees, the same before the low-pass, and the weight reconstructions are compared under.

    Volumes are ``(b, d, h, w)``; images ``(b, h, w)`` or ``(b, ch, h, w)``, whose weights are None: all is measured.
    ``view(x) = particle(turns x + shifts)``; both are None of particles as recorded.
    """

    volumes: Float[Tensor, "b *image"]
    target: Float[Tensor, "b *image"]
    weights: Float[Tensor, "b d h hw"] | None
    turns: Float[Tensor, "b k k"] | None = None
    shifts: Float[Tensor, "b k"] | None = None


def mask_of_views(
    config: ViewConfig, box_size: int, device: torch.device | None = None, dims: int = 3
) -> Float[Tensor, "*space"]:
    """What every view is seen through: the soft sphere or disc that fills the box, or all of it.

    Parameters
    ----------
    config
        How views are made.
    box_size
        Voxels.
    device
        Where the mask lies.
    dims
        2 for images, 3 for volumes.
    """
    if config.masked:
        return view_mask(box_size, device, dims)
    return torch.ones([box_size] * dims, device=device)


def recorded_view(
    volumes: Float[Tensor, "b *image"],
    weights: Float[Tensor, "b d h hw"] | None,
    mask: Float[Tensor, "*space"],
    config: ViewConfig,
) -> View:
    """The particles as recorded, through the mask.

    Parameters
    ----------
    volumes, weights
        Particles, and the weight of each; None for images.
    mask
        What views are seen through.
    config
        How views are made.
    """
    seen = volumes
    if config.low_pass_shells is not None:
        middle = torch.full(volumes.shape[: -mask.ndim], sum(config.low_pass_shells) / 2, device=volumes.device)
        seen = low_pass(volumes, middle, dims=mask.ndim)
    return View(through_mask(seen, mask), through_mask(volumes, mask), weights)


def random_view(
    volumes: Float[Tensor, "b *image"],
    weights: Float[Tensor, "b d h hw"] | None,
    mask: Float[Tensor, "*space"],
    config: ViewConfig,
    generator: torch.Generator,
    *,
    seen_alone: bool = False,
) -> View:
    """``W_i [ R x_i + shift ]`` through the mask, ``R`` and shift drawn per particle.

    The weight of the view is ``W ∘ (R W)``: what was measured before and is kept after.

    Parameters
    ----------
    volumes, weights
        Particles, and the weight of each; None for images.
    mask
        What views are seen through.
    config
        How views are made.
    generator
        Draws all that is random.
    seen_alone
        For encoding: without what reconstructions are compared with. The target is then what is seen.
    """
    n_particles, dims = len(volumes), mask.ndim
    turns = _draw_rotations(n_particles, config, generator, dims)
    if config.stretch > 0:
        turns = turns @ _draw_stretches(n_particles, config, generator, dims)
    uniform = torch.rand(n_particles, dims, generator=generator, device=volumes.device)
    shifts = (2 * uniform - 1) * config.max_shift_voxels
    bends = draw_elastic_fields(n_particles, config, generator, mask) if config.elastic_voxels > 0 else None
    rotated = resample(volumes, turns, shifts, bends)
    if weights is not None and config.reimpose_weight:
        rotated = apply_weight(rotated, weights)
    seen = random_low_pass(add_fresh_noise(rotated, weights, mask, config, generator), config, dims, generator)
    seen = through_mask(cut_out(seen, mask, config, generator), mask)
    if seen_alone:
        return View(seen, seen, None, turns, shifts)
    kept = None
    if weights is not None:
        kept = rotate_weights(weights, turns)
        kept = weights * kept if config.reimpose_weight else kept
    return View(seen, through_mask(rotated, mask), kept, turns, shifts)


def add_fresh_noise(
    volumes: Float[Tensor, "b *image"],
    weights: Float[Tensor, "b d h hw"] | None,
    mask: Float[Tensor, "*space"],
    config: ViewConfig,
    generator: torch.Generator,
) -> Float[Tensor, "b *image"]:
    """White noise of the configured strength, under each particle's weight: noise that no other view shares.

    Parameters
    ----------
    volumes, weights
        Particles, and the weight of each; None for images.
    mask
        What views are seen through.
    config
        How views are made.
    generator
        Draws all that is random.
    """
    if config.fresh_noise == 0:
        return volumes
    noise = torch.randn(volumes.shape, generator=generator, device=volumes.device)
    noise = noise if weights is None else apply_weight(noise, weights)
    spread = _per_particle(volumes).std(dim=1).reshape(-1, *[1] * (volumes.ndim - 1))
    return volumes + config.fresh_noise * spread * noise


def cut_out(
    volumes: Float[Tensor, "b *image"], mask: Float[Tensor, "*space"], config: ViewConfig, generator: torch.Generator
) -> Float[Tensor, "b *image"]:
    """Each particle with a cube or square of the configured share of the box set to its mean, at random places.

    Parameters
    ----------
    volumes
        Views.
    mask
        What they are seen through.
    config
        How views are made.
    generator
        Draws all that is random.
    """
    if config.cutout_share == 0:
        return volumes
    box, dims = mask.shape[0], mask.ndim
    edge = max(1, round(box * config.cutout_share ** (1 / dims)))
    start = torch.randint(0, box - edge + 1, (len(volumes), dims), generator=generator, device=volumes.device)
    axis = torch.arange(box, device=volumes.device)
    hidden = torch.ones(len(volumes), *[1] * dims, dtype=torch.bool, device=volumes.device)
    for i in range(dims):
        within = (axis >= start[:, i, None]) & (axis < start[:, i, None] + edge)
        hidden = hidden & within.reshape(-1, *[box if i == j else 1 for j in range(dims)])
    hidden = hidden.reshape(len(volumes), *[1] * (volumes.ndim - 1 - dims), *mask.shape)
    mean = _per_particle(volumes).mean(dim=1).reshape(-1, *[1] * (volumes.ndim - 1))
    return torch.where(hidden, mean, volumes)


def draw_elastic_fields(
    n_particles: int, config: ViewConfig, generator: torch.Generator, mask: Float[Tensor, "*space"]
) -> Float[Tensor, "b *space k"]:
    """Smooth random displacements in voxels, yx: cubic between nodes that are drawn independently.

    Parameters
    ----------
    n_particles
        How many fields.
    config
        How views are made.
    generator
        Draws all that is random.
    mask
        What views are seen through: it gives box size and device.
    """
    nodes = torch.randn(n_particles, mask.ndim, *[_ELASTIC_NODES] * mask.ndim, generator=generator, device=mask.device)
    smooth = F.interpolate(nodes, size=mask.shape, mode="bicubic", align_corners=True)
    return config.elastic_voxels * smooth.movedim(1, -1)


def random_low_pass(
    volumes: Float[Tensor, "b *image"], config: ViewConfig, dims: int, generator: torch.Generator
) -> Float[Tensor, "b *image"]:
    """Each volume up to a shell of its own, drawn uniformly from the configured range.

    Parameters
    ----------
    volumes
        Views.
    config
        How views are made.
    dims
        2 for images, 3 for volumes.
    generator
        Draws all that is random.
    """
    if config.low_pass_shells is None:
        return volumes
    lowest, highest = config.low_pass_shells
    uniform = torch.rand(len(volumes), generator=generator, device=volumes.device)
    shells = (lowest + uniform * (highest - lowest)).reshape(-1, *[1] * (volumes.ndim - 1 - dims))
    return low_pass(volumes, shells, dims=dims)


def through_mask(volumes: Float[Tensor, "b *image"], mask: Float[Tensor, "*space"]) -> Float[Tensor, "b *image"]:
    """Volumes seen through a mask: mean 0 and variance 1 under it, nothing outside; colours are kept in proportion."""
    axes = tuple(range(1, volumes.ndim))
    n_channels = volumes[0].numel() // mask.numel()
    total = mask.sum() * n_channels
    mean = (mask * volumes).sum(dim=axes, keepdim=True) / total
    centred = mask * (volumes - mean)
    variance = (centred**2).sum(dim=axes, keepdim=True) / ((mask**2).sum() * n_channels)
    return centred / variance.sqrt().clamp_min(1e-12)


def rotate_weights(weights: Float[Tensor, "b d h hw"], rotations: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b d h hw"]:
    """Rotate half-Fourier weights as :func:`cryodc.geometry.rotations.resample` rotates the volumes they belong to."""
    # The other half of a real, centrosymmetric half-Fourier array.
    mirrored = weights[..., 1:-1].flip(-3, -2, -1).roll((1, 1), dims=(-3, -2))
    shifted = torch.fft.fftshift(torch.cat([weights, mirrored], dim=-1), dim=(-3, -2, -1))
    rotated = torch.fft.ifftshift(resample(shifted, rotations), dim=(-3, -2, -1))
    return rotated[..., : weights.shape[-1]]


def add_noise(
    volumes: Float[Tensor, "b *image"], weights: Float[Tensor, "b d h hw"] | None, generator: torch.Generator
) -> Float[Tensor, "b *image"]:
    """Decoded volumes as recorded: weighted, with the white noise that brings each to variance 1.

    Particles are standardised, so what a decoder leaves unexplained is noise of variance ``1 − var(x̂)``.
    """
    noise = torch.randn(volumes.shape, generator=generator, device=volumes.device)
    signal = volumes if weights is None else apply_weight(volumes, weights)
    noise = noise if weights is None else apply_weight(noise, weights)
    axes = tuple(range(1, volumes.ndim))
    explained = signal.var(dim=axes, keepdim=True)
    unexplained = (1 - explained).clamp_min(0.0).sqrt()
    return signal + unexplained * standardise(noise, dims=len(axes))


def _per_particle(volumes: Float[Tensor, "b *image"]) -> Float[Tensor, "b values"]:
    return volumes.reshape(len(volumes), -1)


def _draw_rotations(n_rotations: int, config: ViewConfig, generator: torch.Generator, dims: int) -> Tensor:
    if config.rotation == "none":
        return torch.eye(dims, device=generator.device).expand(n_rotations, dims, dims)
    if config.rotation == "uniform" and dims == 3:
        return random_rotations(n_rotations, generator)
    uniform = 2 * torch.rand(n_rotations, n_rotation_parameters(dims), generator=generator, device=generator.device) - 1
    # A quarter turn at most, as published, or in the plane all the way round.
    return rotations_from_parameters(uniform * (math.pi / 2 if config.rotation == "vector" else math.pi))


def _draw_stretches(n_particles: int, config: ViewConfig, generator: torch.Generator, dims: int) -> Tensor:
    uniform = 2 * torch.rand(n_particles, dims, dims, generator=generator, device=generator.device) - 1
    return torch.linalg.matrix_exp(config.stretch * uniform)
