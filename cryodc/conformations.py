"""Conformations within one class of aligned particles: how many states, which particle is in which, along what axes."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from cryodc.ops.correlate import (
    FourierBall,
    ball_spectra,
    ball_weights,
    chunks,
    fine_spectrum,
    fourier_ball,
    phase_ramps,
    slices,
)
from cryodc.ops.filters import crop_weights, fourier_crop, soft_sphere
from cryodc.ops.missing_data import (
    AxisModel,
    Measurements,
    StateModel,
    fit_axes,
    fit_states,
    states_of,
)
from cryodc.ops.reconstruct import aligned_spectra, volume_from_ball

MAX_STATES = 6
MIN_PARTICLES = 20
"""Below this nothing can be held out, and a class counts as one state."""

STABLE = 0.8
"""ARI between the states that the two half sets find, from which states count as found again."""

SUPPORTED = 3.0
"""Standard errors by which held-out particles must prefer a model."""

_CLEARLY = 1.1
"""Axes bend to a particle's own amplitude, which states do not: by less than a tenth that is no sign of motion."""

_MOST_SHELLS = 16
_N_AXES = 3

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Volumes, the weight of each, rotations and origins in voxels."""


@dataclass(frozen=True)
class StateTrial:
    """What speaks for a number of states.

    Parameters
    ----------
    n_states
        N.
    gain
        Held-out log-likelihood per particle beyond that of one state, nats.
    gain_error
        Its standard error.
    better
        Standard errors by which it is better than the largest number supported before it.
    stability
        ARI between the states of all particles that the two half sets find.
    axes_better
        Standard errors by which motion along N − 1 principal axes gains more than 1.1 times what these states gain.
    """

    n_states: int
    gain: float
    gain_error: float
    better: float
    stability: float
    axes_better: float

    @property
    def holds(self) -> bool:
        """Whether held-out particles prefer it, both halves find the same states, and they are no continuous motion."""
        return self.better >= SUPPORTED and self.stability >= STABLE and self.axes_better < SUPPORTED


@dataclass(frozen=True)
class Conformations:
    """States of the particles of a class, and their coordinates along the principal axes.

    Parameters
    ----------
    labels
        ``(n,)`` 0-based, state 0 the largest.
    confidence
        ``(n,)`` posterior probability of the label.
    coordinates
        ``(n, q)`` along each axis, in standard deviations, shrunk by what the particle does not say.
    coordinate_errors
        ``(n, q)`` posterior standard deviation.
    axes
        ``(q, p)``: at one standard deviation, the difference from the average.
    axes_supported
        How many axes held-out particles prefer.
    trials
        What spoke for each number of states; None where there were too few particles.
    stability
        As :class:`StateTrial`, of the states given.
    verdict
        A sentence for the user.
    """

    labels: Int[NDArray[np.int64], " n"]
    confidence: Float[NDArray[np.float64], " n"]
    coordinates: Float[NDArray[np.float64], "n q"]
    coordinate_errors: Float[NDArray[np.float64], "n q"]
    axes: Complex[Tensor, "q p"]
    axes_supported: int
    trials: tuple[StateTrial, ...]
    stability: float
    verdict: str

    @property
    def n_states(self) -> int:
        """How many states there are."""
        return int(self.labels.max()) + 1

    @property
    def sizes(self) -> list[int]:
        """Particles in each state."""
        return [int(size) for size in np.bincount(self.labels, minlength=self.n_states)]


def working_box(box_size: int, shells: int) -> int:
    """The smallest even box that holds so many shells with a margin."""
    return min(box_size, max(16, 2 * (shells + 2)))


@torch.no_grad()
def measure(
    batches: Callable[[], Iterable[Batch]], mask: Float[Tensor, "d h w"], shells: int
) -> tuple[Measurements, Complex[Tensor, " p"]]:
    """What particles say of a map's difference from their average, in units of their noise; and that average.

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
    shells = min(shells, _MOST_SHELLS, box_size // 2 - 2)
    small = working_box(box_size, shells)
    sphere = soft_sphere(small, small / 2 - 2, 2.0, mask.device)
    ball = fourier_ball(small, float(shells), mask.device)

    def cropped() -> Iterator[Batch]:
        for batch in batches():
            for c in chunks(len(batch[0]), 16):
                volumes, weights, rotations, origins = (values[c] for values in batch)
                if small < box_size:
                    volumes, weights = fourier_crop(volumes, small), crop_weights(weights, small)
                yield volumes * sphere, weights, rotations, origins * (small / box_size)

    seen = torch.zeros(1, len(ball), dtype=torch.complex64, device=mask.device)
    power = torch.zeros(1, len(ball), device=mask.device)
    for batch in cropped():
        data, known = aligned_spectra(*batch, ball)
        seen += data.sum(dim=0)
        power += known.sum(dim=0)
    average = (seen / (power + 0.02 * ball.shell_mean(power)[:, ball.shells].clamp_min(1e-12)))[0]
    fine = fine_spectrum(volume_from_ball(average, ball)[None] * sphere, float(shells))[0]
    average = ball_spectra(volume_from_ball(average, ball)[None] * sphere, ball)[0]
    parts = []
    for batch in cropped():
        model = _seen_as(fine, ball, *batch[1:]) * sphere
        parts.append((*aligned_spectra(*batch, ball), aligned_spectra(model, *batch[1:], ball)[0]))
    data, power, model = (torch.cat([part[i] for part in parts]) for i in range(3))
    noise = _noise(data - model, power, ball, float(sphere.square().mean()))[ball.shells]
    scales = _scales(data, model, average / noise)
    small_mask = mask if small == box_size else fourier_crop(mask, small).clamp(0, 1)
    data = (data - scales[:, None] * model) * (scales[:, None] / noise)
    return Measurements(data, power * (scales.square()[:, None] / noise), ball, small_mask), average


def _seen_as(fine: Tensor, ball: FourierBall, weights: Tensor, rotations: Tensor, origins: Tensor) -> Tensor:
    """A map as each particle would show it: in its pose, behind its weight, without noise."""
    turned = slices(fine, ball, rotations)
    spectra = torch.complex(turned[:, 0], turned[:, 1]) * phase_ramps(ball, origins) * ball_weights(weights, ball)
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


def _average(particles: Measurements) -> Tensor:
    everyone = torch.ones(len(particles), 1, device=particles.power.device)
    return states_of(particles, everyone).maps[0]


@torch.no_grad()
def find_conformations(
    particles: Measurements,
    half_sets: Int[NDArray[np.int64], " n"],
    n_states: int | None = None,
    *,
    seed: int = 0,
    n_starts: int = 4,
    progress: Callable[[str], None] | None = None,
) -> Conformations:
    """Find states and principal axes, and judge them on held-out particles.

    Each half set's models are scored on the other half. States are supported where held-out particles prefer them by
    three standard errors and both halves sort all particles alike (ARI ≥ 0.8); axes by the former alone.

    Parameters
    ----------
    particles
        As :func:`measure` gives them.
    half_sets
        ``(n,)`` 1 or 2.
    n_states
        N, or None for the largest number supported.
    seed
        Same seed, same result.
    n_starts
        Starts of each fit; the best is kept.
    progress
        Told what is being done.

    Raises
    ------
    ValueError
        If there are fewer than 2 particles or fewer than states.
    """
    n = len(particles)
    if n < 2 or (n_states is not None and not 1 <= n_states <= n):
        raise ValueError(f"expected at least 2 particles and 1 to {n} states, found {n_states}")
    fitter = _Fitter(seed, n_starts)
    tell = progress or (lambda _: None)
    rest = particles.relative_to(_average(particles))
    axes, _ = fitter.axes(rest, min(_N_AXES, n - 1))
    halves = [torch.from_numpy(np.flatnonzero(half_sets == half)).to(particles.power.device) for half in (1, 2)]
    trials: list[StateTrial] = []
    axes_supported = 0
    if n >= MIN_PARTICLES and min(len(rows) for rows in halves) >= MIN_PARTICLES // 4:
        judge = _Judge(particles, halves, fitter)
        axes_supported = judge.n_axes
        tell(f"{axes_supported} axes of variation supported")
        for k in [n_states] if n_states is not None else range(2, MAX_STATES + 1):
            if k == 1 or k > min(len(rows) for rows in halves):
                break
            trials.append(judge.trial(k))
            tell(f"{k} states: {trials[-1].better:.1f} standard errors better, stability {trials[-1].stability:.2f}")
            if len(trials) > 1 and not (trials[-1].holds or trials[-2].holds):
                break
    chosen = n_states or max((trial.n_states for trial in trials if trial.holds), default=1)
    model, _ = fitter.states(rest, chosen, axes)
    memberships = model.posterior(rest)[0].double().cpu().numpy()
    labels, confidence = _by_size(memberships)
    mean, covariance, _ = axes.posterior(rest)
    stability = next((trial.stability for trial in trials if trial.n_states == chosen), 1.0)
    return Conformations(
        labels,
        confidence,
        mean.double().cpu().numpy(),
        covariance.diagonal(dim1=1, dim2=2).sqrt().double().cpu().numpy(),
        axes.maps,
        axes_supported,
        tuple(trials),
        stability,
        _verdict(n, chosen, n_states is not None, trials, axes_supported, int(labels.max()) + 1),
    )


class _Fitter:
    """Fits models from several starts, each its own random numbers."""

    def __init__(self, seed: int, n_starts: int) -> None:
        self.seed, self.n_starts = seed, n_starts

    def axes(self, particles: Measurements, n_axes: int) -> tuple[AxisModel, float]:
        return fit_axes(particles, n_axes, torch.Generator().manual_seed(self.seed))

    def states(self, particles: Measurements, n_states: int, axes: AxisModel) -> tuple[StateModel, float]:
        """The best of several starts: k-means of the coordinates along one axis, two axes …"""
        if n_states == 1:
            model = StateModel(torch.zeros_like(axes.maps[:1]), torch.ones(1, device=particles.power.device))
            return model, 0.0
        coordinates = axes.posterior(particles)[0].double().cpu().numpy()
        fits = []
        for start in range(self.n_starts):
            used = coordinates[:, : 1 + start % coordinates.shape[1]]
            distinct = len(np.unique(used, axis=0))
            means = KMeans(min(n_states, distinct), n_init=1, random_state=self.seed + start).fit(used)
            hard = torch.nn.functional.one_hot(torch.from_numpy(means.labels_).long(), n_states).float()
            fits.append(fit_states(particles, hard.to(particles.power.device)))
        return max(fits, key=lambda fit: fit[1])


class _Judge:
    """Models of each half set, scored on the other half."""

    def __init__(self, particles: Measurements, halves: list[Tensor], fitter: _Fitter) -> None:
        self.fitter, self.halves = fitter, halves
        self.rest = []
        self.axes: list[AxisModel] = []
        for rows in halves:
            own = particles.select(rows)
            self.rest.append(particles.relative_to(_average(own)))
            self.axes.append(fitter.axes(self.rest[-1].select(rows), min(_N_AXES, len(rows) - 1))[0])
        self.best = np.zeros(len(particles))
        self.along_axes = self._score_axes()
        self.n_axes = self._supported_axes()

    def _score_axes(self) -> list[NDArray[np.float64]]:
        """Held-out log-likelihood of each particle with no axis, one, two …"""
        most = min(len(axes.maps) for axes in self.axes)
        models = [[AxisModel(axes.maps[:q]) for axes in self.axes] for q in range(1, most + 1)]
        return [np.zeros(len(self.best)), *(self._held_out(model) for model in models)]

    def _supported_axes(self) -> int:
        gains = [after - before for before, after in itertools.pairwise(self.along_axes)]
        return next((q for q, gain in enumerate(gains) if _standard_errors(gain) < SUPPORTED), len(gains))

    def trial(self, n_states: int) -> StateTrial:
        models = [
            self.fitter.states(rest.select(rows), n_states, axes)[0]
            for rest, rows, axes in zip(self.rest, self.halves, self.axes, strict=True)
        ]
        scores = self._held_out(models)
        first, second = (
            model.posterior(rest)[0].argmax(dim=1).cpu().numpy()
            for model, rest in zip(models, self.rest, strict=True)
        )
        better = _standard_errors(scores - self.best)
        trial = StateTrial(
            n_states,
            float(scores.mean()),
            float(scores.std(ddof=1) / math.sqrt(len(scores))),
            better,
            float(adjusted_rand_score(first, second)),
            _standard_errors(self.along_axes[min(n_states - 1, len(self.along_axes) - 1)] - _CLEARLY * scores),
        )
        if trial.holds:
            self.best = scores
        return trial

    def _held_out(self, models: list[StateModel] | list[AxisModel]) -> NDArray[np.float64]:
        scores = np.zeros(len(self.best))
        for model, rest, rows in zip(models, self.rest, reversed(self.halves), strict=True):
            scores[rows.cpu().numpy()] = model.posterior(rest.select(rows))[-1].double().cpu().numpy()
        return scores


def _standard_errors(gains: NDArray[np.float64]) -> float:
    spread = gains.std(ddof=1) / math.sqrt(len(gains))
    return float(gains.mean() / max(spread, 1e-12))


def _by_size(memberships: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels, the largest state 0 and empty ones gone, and their probabilities."""
    raw = memberships.argmax(axis=1)
    sizes = np.bincount(raw, minlength=memberships.shape[1])
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[raw], memberships.max(axis=1)


def _verdict(n: int, chosen: int, asked: bool, trials: list[StateTrial], n_axes: int, n_filled: int) -> str:
    """What was chosen, and what speaks for and against it."""
    text = f"{_states(chosen)}{', as asked' if asked else ''}"
    if n < MIN_PARTICLES:
        return f"{text}: {n} particles are too few to judge, {MIN_PARTICLES} are needed"
    trial = next((t for t in trials if t.n_states == chosen), trials[0] if trials else None)
    if trial is not None:
        text += f": {trial.n_states} gain {trial.gain:.2f} nats per held-out particle, {trial.better:.1f} standard errors "
        text += f"({SUPPORTED:g} are asked); halves agree with ARI {trial.stability:.2f} ({STABLE:g} is asked)"
    if asked and trial is not None and not trial.holds:
        text += ". The data do not support this number"
    if n_filled < chosen:
        text += f". Only {n_filled} hold particles"
    if n_axes:
        text += f". {n_axes} of {_N_AXES} axes of variation are supported"
    if trial is not None and n_axes and trial.axes_better >= SUPPORTED:
        text += f"; motion along {trial.n_states - 1} explains held-out particles clearly better: it may be continuous"
    return text


def _states(n_states: int) -> str:
    return "1 state" if n_states == 1 else f"{n_states} states"
