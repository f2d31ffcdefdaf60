"""Measurements of a class: each aligned particle in the frame of the map, in units of its noise."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cryodc.fourier import (
    FourierBall,
    ball_spectra,
    ball_weights,
    chunks,
    crop_weights,
    fine_spectrum,
    fourier_ball,
    fourier_crop,
    predict,
    soft_sphere,
    turn_back,
    volume_from_ball,
    weighted_spectra,
)
from cryodc.states.missing_data import Measurements

MOST_SHELLS = 16
"""Shells that are ever looked at: memory per particle grows with their cube."""
PosedBatch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Volumes, the weight of each, rotations and origins in voxels."""


def working_box(box_size: int, shells: int) -> int:
    """The smallest even box that holds so many shells with a margin."""
    return min(box_size, max(16, 2 * (shells + 2)))


@torch.no_grad()
def measure(
    batches: Callable[[], Iterable[PosedBatch]], mask: Float[Tensor, "d h w"], shells: int
) -> tuple[Measurements, Complex[Tensor, " p"]]:
    """Measure how each particle differs from the average, in units of its noise; return this and the average.

    Particles are seen through the sphere that every rotation keeps. The average is taken off each particle in its own
    pose and behind its own weight, ``F_i − a_i H_i V``, so that nothing of it is left at the edges of a wedge. Noise is
    what remains of each shell; the scale ``a_i`` is the fit to the average, shrunk towards 1 by how well it is known.

    Parameters
    ----------
    batches
        Gives the particles, a few at a time; called twice.
    mask
        ``(d, h, w)``: where states may differ.
    shells
        Radius in Fourier space, at most what the half maps support.
    """
    box_size = mask.shape[-1]
    shells = min(shells, MOST_SHELLS, box_size // 2 - 2)
    small = working_box(box_size, shells)
    sphere = soft_sphere(small, small / 2 - 2, 2.0, mask.device)
    ball = fourier_ball(small, float(shells), mask.device)

    def cropped() -> Iterator[PosedBatch]:
        for batch in batches():
            for c in chunks(len(batch[0]), 16):
                volumes, weights, rotations, origins = (values[c] for values in batch)
                if small < box_size:
                    volumes, weights = fourier_crop(volumes, small), crop_weights(weights, small)
                yield volumes * sphere, weights, rotations, origins * (small / box_size)

    data, power = _joined([_turned_back(batch, ball) for batch in cropped()])
    total = power.sum(dim=0)
    average = data.sum(dim=0) / (total + 0.02 * ball.shell_mean(total)[ball.shells].clamp_min(1e-12))
    fine = fine_spectrum(volume_from_ball(average, ball)[None] * sphere, float(shells))[0]
    average = ball_spectra(volume_from_ball(average, ball)[None] * sphere, ball)[0]
    seen = [_turned_back((_seen_as(fine, ball, *batch[1:]) * sphere, *batch[1:]), ball)[:1] for batch in cropped()]
    (model,) = _joined(seen)
    noise = _noise(data - model, power, ball, float(sphere.square().mean()))[ball.shells]
    scales = _scales(data, model, average / noise)
    small_mask = mask if small == box_size else fourier_crop(mask, small).clamp(0, 1)
    data = (data - scales[:, None] * model) * (scales[:, None] / noise)
    return Measurements(data, power * (scales.square()[:, None] / noise), ball, small_mask), average


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def _turned_back(batch: PosedBatch, ball: FourierBall) -> tuple[Tensor, Tensor]:
    """What each particle says of the map, and how much."""
    volumes, weights, rotations, origins = batch
    return turn_back(weighted_spectra(volumes, weights), ball, rotations, origins)


def _seen_as(fine: Tensor, ball: FourierBall, weights: Tensor, rotations: Tensor, origins: Tensor) -> Tensor:
    """A map as each particle would show it: in its pose, behind its weight, without noise."""
    spectra = predict(fine, ball, ball_weights(weights, ball), rotations, origins)
    return torch.stack([volume_from_ball(values, ball) for values in spectra])


def _noise(rest: Tensor, power: Tensor, ball: FourierBall, seen: float) -> Tensor:
    """Variance of each shell, but for the part of the box that is not seen."""
    variance = ball.shell_mean(rest.abs().square().sum(dim=0)) / ball.shell_mean(power.sum(dim=0)).clamp_min(1e-12)
    return (variance * (len(rest) / max(1, len(rest) - 1)) / seen).clamp_min(1e-12)


def _scales(data: Tensor, model: Tensor, average: Tensor) -> Tensor:
    """Scale of each particle against the average, its scatter beyond the error of the fit kept."""
    fitted, known = (values.real @ average.real + values.imag @ average.imag for values in (data, model))
    known = known.clamp_min(1e-6)
    error = 0.5 / known
    raw = fitted / known
    spread = float((raw.var() - error.mean()).clamp_min(0))
    return (1 + (raw - 1) * spread / (spread + error)).clamp(0.3, 3.0)
