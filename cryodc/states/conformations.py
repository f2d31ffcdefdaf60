"""Conformations within one class of aligned particles: how many states, which particle is in which, along what axes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.states.measurements import Measurements
from cryodc.states.missing_data import average_of
from cryodc.states.trials import (
    MAX_STATES,
    MIN_PARTICLES,
    N_AXES,
    STABLE,
    SUPPORTED,
    Fitter,
    Judge,
    StateTrial,
    by_size,
)
from cryodc.unfinished import DoneSteps


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
        ``(n, q)`` along each axis, in standard deviations, shrunk towards 0 where the particle measured little.
    coordinate_errors
        ``(n, q)`` posterior standard deviation.
    axes
        ``(q, p)``: at one standard deviation, the difference from the average.
    axes_supported
        How many axes held-out particles prefer.
    trials
        The evidence for each number of states; None if there were too few particles.
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


@torch.no_grad()
def find_conformations(
    particles: Measurements,
    half_sets: Int[NDArray[np.int64], " n"],
    n_states: int | None = None,
    *,
    seed: int = 0,
    n_starts: int = 4,
    done: DoneSteps | None = None,
    progress: Callable[[str], None] | None = None,
) -> Conformations:
    """Find states and principal axes, and judge them on held-out particles.

    Each half set's models are scored on the other half. States are supported where held-out particles prefer them by
    three standard errors, both halves sort all particles alike (ARI ≥ 0.8), and there is a gap between any two; axes by
    the first alone.

    Parameters
    ----------
    particles
        As :func:`cryodc.states.measurements.measure` gives them.
    half_sets
        ``(n,)`` 1 or 2.
    n_states
        N, or None for the largest number supported.
    seed
        Same seed, same result.
    n_starts
        Starts of each fit; the best is kept.
    done
        Fits of a call that was stopped, and where they are kept.
    progress
        Called with a line about each step.

    Raises
    ------
    ValueError
        If there are fewer than 2 particles or fewer than states.
    """
    n = len(particles)
    if n < 2 or (n_states is not None and not 1 <= n_states <= n):
        raise ValueError(f"expected at least 2 particles and 1 to {n} states, found {n_states}")
    fitter = Fitter(seed, n_starts, done or DoneSteps())
    tell = progress or (lambda _: None)
    rest = particles.relative_to(average_of(particles))
    axes = fitter.axes(rest, min(N_AXES, n - 1), "all")
    halves = [torch.from_numpy(np.flatnonzero(half_sets == half)).to(particles.device) for half in (1, 2)]
    trials: list[StateTrial] = []
    axes_supported, known = 0, {}
    if n >= MIN_PARTICLES and min(len(rows) for rows in halves) >= MIN_PARTICLES // 4:
        judge = Judge(particles, halves, fitter)
        axes_supported = judge.n_axes
        tell(f"{axes_supported} axes of variation supported")
        for k in [n_states] if n_states is not None else range(2, MAX_STATES + 1):
            if k == 1 or k > min(len(rows) for rows in halves):
                break
            trials.append(judge.trial(k))
            tell(f"{k} states: {trials[-1].better:.1f} standard errors better, stability {trials[-1].stability:.2f}")
            if len(trials) > 1 and not (trials[-1].promises_more or trials[-2].holds):
                break
        known = judge.models
    chosen = n_states or max((trial.n_states for trial in trials if trial.holds), default=1)
    model = fitter.states(rest, chosen, axes, "all", known.get(chosen, ()))
    memberships = model.posterior(rest)[0].double().cpu().numpy()
    labels, confidence = by_size(memberships)
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


def _verdict(n: int, chosen: int, asked: bool, trials: list[StateTrial], n_axes: int, n_filled: int) -> str:
    """What was chosen, and what speaks for and against it."""
    text = f"{_states(chosen)}{', as asked' if asked else ''}"
    if n < MIN_PARTICLES:
        return f"{text}: {n} particles are too few to judge, {MIN_PARTICLES} are needed"
    trial = next((t for t in trials if t.n_states == chosen), trials[0] if trials else None)
    if trial is not None:
        text += f": {trial.n_states} gain {trial.gain:.2f} nats per held-out particle, {trial.better:.1f} standard "
        text += f"errors ({SUPPORTED:g} are asked); halves agree with ARI {trial.stability:.2f} ({STABLE:g} is asked)"
    if asked and trial is not None and not trial.holds:
        text += ". The data do not support this number"
    if n_filled < chosen:
        text += f". Only {n_filled} hold particles"
    if n_axes:
        text += f". {n_axes} of {N_AXES} axes of variation are supported"
    if trial is not None and n_axes and trial.is_motion:
        text += f", and no gap parts {trial.n_states} states along them: the motion may be continuous"
    return text


def _states(n_states: int) -> str:
    return "1 state" if n_states == 1 else f"{n_states} states"
