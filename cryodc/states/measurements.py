"""Measurements of a class: each aligned particle in the frame of the map, in units of its noise."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cryodc.device import sum_over_team
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
from cryodc.states.storage import Rows, Storage

MOST_SHELLS = 16
"""Shells that are ever looked at: what is kept of a particle grows with their cube."""
_AT_ONCE = 64
_MEASURED = 0.05
"""A voxel of less power than this, in units of its shell's mean, was not measured."""
_VALUES_AT_ONCE = 2**21
"""Values of particles that are looked at at once."""
PosedBatch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Volumes, the weight of each, rotations and origins in voxels."""


@dataclass(frozen=True)
class Measurements:
    """Aligned particles in the frame of the map, in units of their noise, looked at a few at a time.

    Of processes that share particles each holds some. What is computed of them all is the same on every process.

    Parameters
    ----------
    data, power
        ``(h, p)``: ``B = a H* F / σ²`` and ``W = a² H² / σ²`` of the particles that this process holds.
    ball
        Where: ``p`` Fourier voxels of the reference.
    mask
        ``(d, h, w)``: where maps may differ.
    first, n_held
        Which of all particles is the first that this process holds, and how many all processes hold; by default those
        here are all.
    rows
        Which of all particles are meant; all by default.
    averages
        Maps ``(p,)`` that data are relative to, one after the other, and where they were measured.
    """

    data: Rows
    power: Rows
    ball: FourierBall
    mask: Float[Tensor, "d h w"]
    rows: Int[Tensor, " m"] | None = None
    averages: tuple[tuple[Tensor, Tensor], ...] = ()
    first: int = 0
    n_held: int | None = None

    def __len__(self) -> int:
        if self.rows is not None:
            return len(self.rows)
        return len(self.data) if self.n_held is None else self.n_held

    @property
    def device(self) -> torch.device:
        """Where they are looked at."""
        return self.mask.device

    def parts(self) -> Iterator[tuple[Int[Tensor, " b"], Tensor, Tensor]]:
        """Which particles, and their ``B`` and ``W``: those that this process holds, in order, a few at a time."""
        stop = self.first + len(self.data)
        if self.rows is None:
            mine = torch.arange(self.first, stop, device=self.device)
        else:
            mine = torch.nonzero((self.rows >= self.first) & (self.rows < stop))[:, 0]
        for c in chunks(len(mine), max(1, _VALUES_AT_ONCE // len(self.ball))):
            # What lies side by side is not copied.
            which = c if self.rows is None else self.rows[mine[c]] - self.first
            data, power = self.data[which], self.power[which]
            for average, measured in self.averages:
                data = torch.where(measured, data - power * average, 0)
            yield mine[c], data, power

    def select(self, rows: Int[Tensor, " b"]) -> "Measurements":
        """What these particles say."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def relative_to(self, average: Complex[Tensor, " p"]) -> "Measurements":
        """The same, of a map's difference from an average; nothing where none of these particles was measured."""
        ones = torch.ones(len(self), 1, device=self.device)
        measured = measured_in(self.sums(ones, ones)[1][0], self.ball)
        return replace(self, averages=(*self.averages, (average, measured)))

    def masked(self, maps: Complex[Tensor, "k p"]) -> Complex[Tensor, "k p"]:
        """Maps with nothing outside the mask."""
        volumes = torch.stack([volume_from_ball(values, self.ball) for values in maps])
        return ball_spectra(volumes * self.mask, self.ball)

    def sums(
        self, of_data: Float[Tensor, "n k"], of_power: Float[Tensor, "n q"]
    ) -> tuple[Complex[Tensor, "k p"], Float[Tensor, "q p"]]:
        """``Σ B`` and ``Σ W`` over all particles, each counting by its shares."""
        shape = (of_data.shape[1], len(self.ball))
        data_sum = torch.zeros(*shape, 2, device=self.device)
        power_sum = torch.zeros(of_power.shape[1], shape[1], device=self.device)
        for which, data, power in self.parts():
            data_sum += (of_data[which].T @ _flat(data)).reshape(*shape, 2)
            power_sum += of_power[which].T @ power
        sum_over_team(data_sum, power_sum)
        return torch.view_as_complex(data_sum), power_sum

    def projections(
        self, maps: Complex[Tensor, "k p"], powers: Float[Tensor, "q p"]
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n q"]]:
        """``Σ Re(B* V)`` of each particle and map ``V``, and ``Σ W P`` of each particle and map of powers ``P``."""
        on_data = torch.zeros(len(self), len(maps), device=self.device)
        on_power = torch.zeros(len(self), len(powers), device=self.device)
        for which, data, power in self.parts():
            on_data[which] = _flat(data) @ _flat(maps).T
            on_power[which] = power @ powers.T
        # Each process has those of its own particles, and 0 of the others.
        sum_over_team(on_data, on_power)
        return on_data, on_power

    def log_likelihoods(self, maps: Complex[Tensor, "k p"]) -> Float[Tensor, "n k"]:
        """Log-likelihood of each map for each particle, in nats, less that of an empty map."""
        fitted, size = self.projections(maps, maps.abs().square())
        return 2 * fitted - size

    def along(self, first: Complex[Tensor, " p"], second: Complex[Tensor, " p"]) -> Float[Tensor, " n"]:
        """Where on the line from one map to another each particle fits best: 0 the first, 1 the second."""
        line = second - first
        powers = torch.stack([(first * line.conj()).real, line.abs().square()])
        fitted, known = self.projections(line[None], powers)
        return (fitted[:, 0] - known[:, 0]) / known[:, 1].clamp_min(1e-12)


def _flat(values: Complex[Tensor, "n p"]) -> Float[Tensor, "n q"]:
    """Real and imaginary parts in one row, so that a real product of two of them is ``Re(a* b)``."""
    return torch.view_as_real(values).flatten(1)


def measured_in(power: Float[Tensor, "*k p"], ball: FourierBall) -> Bool[Tensor, "*k p"]:
    """Where a map was measured, of which so much power was."""
    return power >= _MEASURED * ball.shell_mean(power)[..., ball.shells]


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
        Gives the particles that this process keeps (:func:`cryodc.device.own_part`), a few at a time; called more than
        once.
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

    if storage is None:
        count = torch.tensor(sum(len(batch[0]) for batch in batches()), device=mask.device)
        sum_over_team(count)
        storage = Storage(int(count))
    data, model, power = storage.empty(len(ball), (torch.complex64, torch.complex64, torch.float32), mask.device)
    data_sum, total = torch.zeros_like(ball.index, dtype=torch.complex64), torch.zeros_like(ball.frequencies[:, 0])
    for rows, batch in _numbered(cropped()):
        data[rows], power[rows] = part, weight = _turned_back(batch, ball)
        data_sum, total = data_sum + part.sum(dim=0), total + weight.sum(dim=0)
    sum_over_team(data_sum, total)
    average = data_sum / (total + 0.02 * ball.shell_mean(total)[ball.shells].clamp_min(1e-12))
    fine = fine_spectrum(volume_from_ball(average, ball)[None] * sphere, float(shells))[0]
    average = ball_spectra(volume_from_ball(average, ball)[None] * sphere, ball)[0]
    # Products of particles with the average, shell by shell: the noise that they are divided by is known at the end.
    n, first = storage.n_particles, storage.held.start
    on_average, rest = total.new_zeros(n, 2, small // 2 + 1), torch.zeros_like(total)
    for rows, batch in _numbered(cropped()):
        model[rows] = shown = _turned_back((_seen_as(fine, ball, *batch[1:]) * sphere, *batch[1:]), ball)[0]
        found = data[rows]
        rest = rest + (found - shown).abs().square().sum(dim=0)
        products = (torch.stack([found, shown], dim=1) * average.conj()).real
        on_average[first + rows.start : first + rows.stop] = _by_shell(products, ball)
    sum_over_team(on_average, rest)
    shell_noise = _noise(rest, total, n, ball, float(sphere.square().mean()))
    scales = _scales(on_average @ shell_noise.reciprocal())[storage.held]
    noise = shell_noise[ball.shells]
    for rows in chunks(len(scales), _AT_ONCE):
        scale = scales[rows, None]
        data[rows] = (data[rows] - scale * model[rows]) * (scale / noise)
        power[rows] = power[rows] * (scale.square() / noise)
    small_mask = mask if small == box_size else fourier_crop(mask, small).clamp(0, 1)
    return Measurements(data, power, ball, small_mask, first=first, n_held=n), average


def _numbered(batches: Iterable[PosedBatch]) -> Iterator[tuple[slice, PosedBatch]]:
    """Batches, and which of the particles held here are in each."""
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
