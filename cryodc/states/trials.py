"""How many states held-out particles support: models of each half set, scored on the other half."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from cryodc.clustering import VALLEY, valley_between
from cryodc.device import by_leader
from cryodc.states.measurements import Measurements
from cryodc.states.missing_data import AxisModel, StateModel, average_of, fit_axes, fit_states
from cryodc.unfinished import DoneSteps, on_device

MIN_PARTICLES = 20
"""Below this nothing can be held out, and a class counts as one state."""
STABLE = 0.8
"""ARI between the states that the two half sets find, from which states count as found again."""
SUPPORTED = 3.0
"""Standard errors by which held-out particles must prefer a model."""
MIN_GAIN = 0.1
"""Nats per held-out particle that a model must gain at least."""
_HALVES = ("half 1", "half 2")
_CLEARLY = 1.1
"""Axes bend to a particle's own amplitude, which states do not: by less than a tenth that is no sign of motion."""
MAX_STATES = 6
"""States that are tried at most where no number is given."""
N_AXES = MAX_STATES - 1
"""Principal axes that are looked for: as many as so many states could lie along."""


@dataclass(frozen=True)
class StateTrial:
    """The evidence for one number of states.

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
    valley
        How far the density of held-out particles along the axes falls between the two states least apart: 0 nothing in
        between, 1 not at all (:func:`cryodc.clustering.valley.valley_between`).
    """

    n_states: int
    gain: float
    gain_error: float
    better: float
    stability: float
    axes_better: float
    valley: float

    @property
    def holds(self) -> bool:
        """Whether held-out particles prefer it, both halves find the same states, and they are no continuous motion."""
        preferred = self.better >= SUPPORTED and self.gain >= MIN_GAIN
        return preferred and self.stability >= STABLE and not self.is_motion

    @property
    def promises_more(self) -> bool:
        """Whether it holds, or fails only because halves divide the states differently, as too few do.

        Three states apart from one another are two in three ways.
        """
        return self.better >= SUPPORTED and self.gain >= MIN_GAIN and not self.is_motion

    @property
    def is_motion(self) -> bool:
        """Whether particles rather lie along an axis than in states."""
        return self.axes_better >= SUPPORTED or self.valley > VALLEY


class Fitter:
    """Fits models from several starts, each its own random numbers.

    Parameters
    ----------
    seed, n_starts
        As :func:`cryodc.states.conformations.find_conformations` takes them.
    done
        Fits that are done, by the name of their particles.
    """

    def __init__(self, seed: int, n_starts: int, done: DoneSteps) -> None:
        self.seed, self.n_starts, self.done = seed, n_starts, done

    def axes(self, particles: Measurements, n_axes: int, name: str) -> AxisModel:
        """Principal axes, from random coordinates."""

        def fit(_: DoneSteps) -> dict[str, Any]:
            return {"model": fit_axes(particles, n_axes, torch.Generator().manual_seed(self.seed))[0]}

        state = self.done.once(f"axes of {name}", fit)
        return AxisModel(**on_device(state["model"], particles.device))

    def states(
        self, particles: Measurements, n_states: int, axes: AxisModel, name: str, known: Sequence[StateModel] = ()
    ) -> StateModel:
        """The best of several starts: known models, and k-means of the coordinates along one axis, two and so on.

        Parameters
        ----------
        particles
            Measurements.
        n_states
            How many.
        axes
            Axes of variation, from which starts are made.
        name
            Of the particles.
        known
            Maps to start from.
        """
        if n_states == 1:
            return StateModel(torch.zeros_like(axes.maps[:1]), torch.ones(1, device=particles.device))
        state = self.done.once(
            f"{n_states} states of {name}", partial(self._best_fit, particles, n_states, axes, known)
        )
        return StateModel(**on_device(state["model"], particles.device))

    def _best_fit(
        self, particles: Measurements, n_states: int, axes: AxisModel, known: Sequence[StateModel], done: DoneSteps
    ) -> dict[str, Any]:
        coordinates = axes.posterior(particles)[0].double().cpu().numpy()

        def fit(start: int, _: DoneSteps) -> dict[str, Any]:
            if start < len(known):
                memberships = known[start].posterior(particles)[0]
            else:
                number = start - len(known)
                used = coordinates[:, : 1 + number % coordinates.shape[1]]
                distinct = len(np.unique(used, axis=0))
                means = KMeans(min(n_states, distinct), n_init=1, random_state=self.seed + number)
                labels = by_leader(partial(means.fit_predict, used))
                hard = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), n_states).float()
                memberships = hard.to(particles.device)
            model, likelihood = fit_states(particles, memberships)
            return {"model": model, "likelihood": likelihood}

        n_fits = len(known) + self.n_starts
        fits = [done.once(f"start {start + 1}", partial(fit, start)) for start in range(n_fits)]
        return max(fits, key=lambda fit: float(fit["likelihood"]))


class Judge:
    """Models of each half set, scored on the other half."""

    def __init__(self, particles: Measurements, halves: list[Tensor], fitter: Fitter) -> None:
        self.fitter, self.halves = fitter, halves
        self.rest = []
        self.axes: list[AxisModel] = []
        for name, rows in zip(_HALVES, halves, strict=True):
            own = particles.select(rows)
            self.rest.append(particles.relative_to(average_of(own)))
            self.axes.append(fitter.axes(self.rest[-1].select(rows), min(N_AXES, len(rows) - 1), name))
        self.best = np.zeros(len(particles))
        self.models: dict[int, list[StateModel]] = {}
        self.along_axes = self._score_axes()
        self.n_axes = self._supported_axes()

    def _score_axes(self) -> list[NDArray[np.float64]]:
        """Held-out log-likelihood of each particle with no axis, one, two and so on."""
        most = min(len(axes.maps) for axes in self.axes)
        models = [[AxisModel(axes.maps[:q]) for axes in self.axes] for q in range(1, most + 1)]
        return [np.zeros(len(self.best)), *(self._held_out(model) for model in models)]

    def _supported_axes(self) -> int:
        gains = [after - before for before, after in itertools.pairwise(self.along_axes)]
        return next((q for q, gain in enumerate(gains) if not _preferred(gain)), len(gains))

    def trial(self, n_states: int) -> StateTrial:
        """Judge a number of states. If it holds, the next number is compared with it."""
        models = [
            self.fitter.states(rest.select(rows), n_states, axes, name)
            for name, rest, rows, axes in zip(_HALVES, self.rest, self.halves, self.axes, strict=True)
        ]
        self.models[n_states] = models
        scores = self._held_out(models)
        first, second = (
            model.posterior(rest)[0].argmax(dim=1).cpu().numpy() for model, rest in zip(models, self.rest, strict=True)
        )
        better = _standard_errors(scores - self.best)
        trial = StateTrial(
            n_states,
            float(scores.mean()),
            float(scores.std(ddof=1) / math.sqrt(len(scores))),
            better,
            float(adjusted_rand_score(first, second)),
            _standard_errors(self.along_axes[min(n_states - 1, len(self.along_axes) - 1)] - _CLEARLY * scores),
            max(self._valley(model, half) for half, model in enumerate(models)),
        )
        if trial.holds:
            self.best = scores
        return trial

    def _valley(self, model: StateModel, half: int) -> float:
        """Between the states of one half least apart, among the particles of the other, on the line from map to map."""
        others = self.rest[half].select(self.halves[1 - half])
        labels = model.posterior(others)[0].argmax(dim=1)
        members = [others.select(torch.nonzero(labels == state)[:, 0]) for state in range(len(model.maps))]
        return max(
            valley_between(*(members[k].along(model.maps[i], model.maps[j]).double().cpu().numpy() for k in (j, i)))
            for i, j in itertools.combinations(range(len(members)), 2)
        )

    def _held_out(self, models: Sequence[StateModel | AxisModel]) -> NDArray[np.float64]:
        scores = np.zeros(len(self.best))
        for model, rest, rows in zip(models, self.rest, reversed(self.halves), strict=True):
            scores[rows.cpu().numpy()] = model.posterior(rest.select(rows))[-1].double().cpu().numpy()
        return scores


def _standard_errors(gains: NDArray[np.float64]) -> float:
    spread = gains.std(ddof=1) / math.sqrt(len(gains))
    return float(gains.mean() / max(spread, 1e-12))


def _preferred(gains: NDArray[np.float64]) -> bool:
    return float(gains.mean()) >= MIN_GAIN and _standard_errors(gains) >= SUPPORTED


def by_size(memberships: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels, the largest state 0 and empty ones gone, and their probabilities."""
    raw = memberships.argmax(axis=1)
    sizes = np.bincount(raw, minlength=memberships.shape[1])
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[raw], memberships.max(axis=1)
