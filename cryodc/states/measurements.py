"""Measurements of a class: each aligned particle in the frame of the map, in units of its noise."""

from collections.abc import Callable, Iterable, Iterator

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
from cryodc.states.storage import Storage

MOST_SHELLS = 16
"""Shells that are ever looked at: what is kept of a particle grows with their cube."""
_AT_ONCE = 64
PosedBatch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Volumes, the weight of each, rotations and origins in voxels."""


def working_box(box_size: int, shells: int) -> int:
    """The smallest even box that holds so many shells with a margin."""
    return min(box_size, max(16, 2 * (shells + 2)))


@torch.no_grad()
def measure(
    batches: Callable[[], Iterable[PosedBatch]],
    mask: Float[Tensor, "d h w"],
    shells: int,
    storage: Storage | None = None,
) -> tuple[Measurements, Complex[Tensor, " p"]]:
    """Measure how each particle differs from the average, in units of its noise; return this and the average.

    Particles are seen through the sphere that every rotation keeps. The average is taken off each particle in its own
    pose and behind its own weight, ``F_i − a_i H_i V``, so that nothing of it is left at the edges of a wedge. Noise is
    what remains of each shell; the scale ``a_i`` is the fit to the average, shrunk towards 1 by how well it is known.

    Parameters
    ----------
    batches
        Gives the particles, a few at a time; called more than once.
    mask
        ``(d, h, w)``: where states may differ.
    shells
        Radius in Fourier space, at most what the half maps support.
    storage
        Where what is measured is kept; in memory by default.
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

    storage = storage or Storage(sum(len(batch[0]) for batch in batches()))
    data, model, power = storage.empty(len(ball), (torch.complex64, torch.complex64, torch.float32), mask.device)
    data_sum, total = torch.zeros_like(ball.index, dtype=torch.complex64), torch.zeros_like(ball.frequencies[:, 0])
    for rows, batch in _numbered(cropped()):
        data[rows], power[rows] = part, weight = _turned_back(batch, ball)
        data_sum, total = data_sum + part.sum(dim=0), total + weight.sum(dim=0)
    average = data_sum / (total + 0.02 * ball.shell_mean(total)[ball.shells].clamp_min(1e-12))
    fine = fine_spectrum(volume_from_ball(average, ball)[None] * sphere, float(shells))[0]
    average = ball_spectra(volume_from_ball(average, ball)[None] * sphere, ball)[0]
    # Products of particles with the average, shell by shell: the noise that they are divided by is known at the end.
    on_average, rest = [], torch.zeros_like(total)
    for rows, batch in _numbered(cropped()):
        model[rows] = shown = _turned_back((_seen_as(fine, ball, *batch[1:]) * sphere, *batch[1:]), ball)[0]
        found = data[rows]
        rest = rest + (found - shown).abs().square().sum(dim=0)
        on_average.append(_by_shell((torch.stack([found, shown], dim=1) * average.conj()).real, ball))
    n = storage.n_particles
    shell_noise = _noise(rest, total, n, ball, float(sphere.square().mean()))
    scales = _scales(torch.cat(on_average) @ shell_noise.reciprocal())
    noise = shell_noise[ball.shells]
    for rows in chunks(n, _AT_ONCE):
        scale = scales[rows, None]
        data[rows] = (data[rows] - scale * model[rows]) * (scale / noise)
        power[rows] = power[rows] * (scale.square() / noise)
    small_mask = mask if small == box_size else fourier_crop(mask, small).clamp(0, 1)
    return Measurements(data, power, ball, small_mask), average


def _numbered(batches: Iterable[PosedBatch]) -> Iterator[tuple[slice, PosedBatch]]:
    """Batches, and which of all particles are in each."""
    start = 0
    for batch in batches:
        yield slice(start, start + len(batch[0])), batch
        start += len(batch[0])


def _by_shell(values: Float[Tensor, "n c p"], ball: FourierBall) -> Float[Tensor, "n c s"]:
    """Sums over each shell, 0 to Nyquist."""
    return values.new_zeros(*values.shape[:2], ball.box_size // 2 + 1).index_add(2, ball.shells, values)


def _turned_back(batch: PosedBatch, ball: FourierBall) -> tuple[Tensor, Tensor]:
    """What each particle says of the map, and how much."""
    volumes, weights, rotations, origins = batch
    return turn_back(weighted_spectra(volumes, weights), ball, rotations, origins)


def _seen_as(fine: Tensor, ball: FourierBall, weights: Tensor, rotations: Tensor, origins: Tensor) -> Tensor:
    """A map as each particle would show it: in its pose, behind its weight, without noise."""
    spectra = predict(fine, ball, ball_weights(weights, ball), rotations, origins)
    return torch.stack([volume_from_ball(values, ball) for values in spectra])


def _noise(rest: Tensor, power: Tensor, n_particles: int, ball: FourierBall, seen: float) -> Tensor:
    """Variance in each shell, from sums over all particles, but for the part of the box that is not seen."""
    variance = ball.shell_mean(rest) / ball.shell_mean(power).clamp_min(1e-12)
    return (variance * (n_particles / max(1, n_particles - 1)) / seen).clamp_min(1e-12)


def _scales(on_average: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Scale of each particle against the average, its scatter beyond the error of the fit kept.

    ``on_average`` is the product of the particle with the average, and of the average as the particle would show it.
    """
    fitted, known = on_average.unbind(dim=1)
    known = known.clamp_min(1e-6)
    error = 0.5 / known
    raw = fitted / known
    spread = float((raw.var() - error.mean()).clamp_min(0))
    return (1 + (raw - 1) * spread / (spread + error)).clamp(0.3, 3.0)
