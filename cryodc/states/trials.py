"""How many states held-out particles support: models of each half set, scored on the other half."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from cryodc.clustering import VALLEY, valley_between
from cryodc.states.missing_data import AxisModel, Measurements, StateModel, average_of, fit_axes, fit_states

MIN_PARTICLES = 20
"""Below this nothing can be held out, and a class counts as one state."""
STABLE = 0.8
"""ARI between the states that the two half sets find, from which states count as found again."""
SUPPORTED = 3.0
"""Standard errors by which held-out particles must prefer a model."""
MIN_GAIN = 0.1
"""Nats per held-out particle that a model must gain at least."""
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
    """Fits models from several starts, each its own random numbers."""

    def __init__(self, seed: int, n_starts: int) -> None:
        self.seed, self.n_starts = seed, n_starts

    def axes(self, particles: Measurements, n_axes: int) -> tuple[AxisModel, float]:
        """Principal axes, from random coordinates."""
        return fit_axes(particles, n_axes, torch.Generator().manual_seed(self.seed))

    def states(
        self, particles: Measurements, n_states: int, axes: AxisModel, known: Sequence[StateModel] = ()
    ) -> tuple[StateModel, float]:
        """The best of several starts: known models, and k-means of the coordinates along one axis, two and so on.

        Parameters
        ----------
        particles
            Measurements.
        n_states
            How many.
        axes
            Axes of variation, from which starts are made.
        known
            Maps to start from.
        """
        if n_states == 1:
            model = StateModel(torch.zeros_like(axes.maps[:1]), torch.ones(1, device=particles.device))
            return model, 0.0
        coordinates = axes.posterior(particles)[0].double().cpu().numpy()
        fits = [fit_states(particles, model.posterior(particles)[0]) for model in known]
        for start in range(self.n_starts):
            used = coordinates[:, : 1 + start % coordinates.shape[1]]
            distinct = len(np.unique(used, axis=0))
            means = KMeans(min(n_states, distinct), n_init=1, random_state=self.seed + start).fit(used)
            hard = torch.nn.functional.one_hot(torch.from_numpy(means.labels_).long(), n_states).float()
            fits.append(fit_states(particles, hard.to(particles.device)))
        return max(fits, key=lambda fit: fit[1])


class Judge:
    """Models of each half set, scored on the other half."""

    def __init__(self, particles: Measurements, halves: list[Tensor], fitter: Fitter) -> None:
        self.fitter, self.halves = fitter, halves
        self.rest = []
        self.axes: list[AxisModel] = []
        for rows in halves:
            own = particles.select(rows)
            self.rest.append(particles.relative_to(average_of(own)))
            self.axes.append(fitter.axes(self.rest[-1].select(rows), min(N_AXES, len(rows) - 1))[0])
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
            self.fitter.states(rest.select(rows), n_states, axes)[0]
            for rest, rows, axes in zip(self.rest, self.halves, self.axes, strict=True)
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
