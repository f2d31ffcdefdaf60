"""Linear probes: how well a quantity can be predicted from codes, compared with the shuffled quantity.

The prediction of each particle comes from ridge regressions that did not see it, averaged over repeated
cross-validation. It is linear in the quantity, so one matrix predicts the quantity and all its shufflings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.model_selection import KFold

MIN_PARTICLES = 20
_N_FOLDS = 5
_N_REPEATS = 3
N_SHUFFLES = 200
_N_RESAMPLES = 200
_SHUFFLES_AT_A_TIME = 20
_MIN_LABEL = 8
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Probe:
    """How well codes tell a quantity; everything but ``reason`` is nan where it is not computable.

    Parameters
    ----------
    measure
        ``R2``: share of the variance predicted, 1 perfect, 0 or below nothing. ``AUC``: area under the ROC curve,
        one label against the rest, mean over labels; 1 perfect, 0.5 nothing.
    value
        From particles the fit did not see.
    low, high
        95 % bootstrap interval over particles.
    shuffled_mean, shuffled_95
        Mean and 95 % quantile of the value after shuffling the quantity.
    p_value
        Share of shufflings that do as well, never below 1 / (shufflings + 1).
    corrected
        ``(value − shuffled mean) / (1 − shuffled mean)``: 0 by chance, 1 perfect.
    n_particles
        How many were judged.
    reason
        Why it is not computable; empty where it is.
    """

    measure: Literal["R2", "AUC"]
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    shuffled_mean: float = float("nan")
    shuffled_95: float = float("nan")
    p_value: float = float("nan")
    corrected: float = float("nan")
    n_particles: int = 0
    reason: str = ""


class LinearProbe:
    """Out-of-fold ridge predictions from one code, within each stratum.

    Parameters
    ----------
    codes
        ``(n, dims)``, finite.
    strata
        ``(n,)`` groups that are fitted and shuffled apart, as proteins are: what differs between them is no leak.
        Those of fewer than 20 particles, and those below 0, are left out.
    seed
        Folds, shufflings and resamplings.

    Examples
    --------
    >>> codes = np.random.default_rng(0).normal(size=(200, 4))
    >>> probe = LinearProbe(codes, np.zeros(200, dtype=np.int64))
    >>> round(probe.values(codes[:, :1] * 3 + 5).value, 2)
    1.0
    """

    def __init__(
        self, codes: Float[NDArray[np.floating], "n dims"], strata: Int[NDArray[np.int64], " n"], seed: int = 0
    ):
        numbers, sizes = np.unique(strata, return_counts=True)
        large = numbers[(sizes >= MIN_PARTICLES) & (numbers >= 0)]
        self.members = [np.flatnonzero(strata == number) for number in large]
        self.rows = np.concatenate(self.members) if self.members else np.zeros(0, dtype=np.int64)
        self._seed = seed
        self._operators = [_operator(codes[rows].astype(np.float64), seed) for rows in self.members]
        self._blind = all(not operator.any() for operator in self._operators)

    def values(self, values: Float[NDArray[np.float64], "n q"]) -> Probe:
        """R² of numbers, summed over columns: ``1 − Σ|y − ŷ|² / Σ|y − ȳ|²``, ``ȳ`` the mean of each stratum.

        Parameters
        ----------
        values
            ``(n, q)``, finite; columns share a unit.
        """
        if reason := self._reason():
            return Probe("R2", reason=reason)
        centred = [_condensed(_centred(values[rows])) for rows in self.members]
        total = sum(float(np.square(block).sum()) for block in centred)
        if total == 0:
            return Probe("R2", reason="the same for every particle")
        shuffled = np.zeros(N_SHUFFLES)
        errors, variances = [], []
        for block, operator, orders in self._blocks(centred):
            errors.append(np.square(block - operator @ block).sum(axis=1))
            variances.append(np.square(block).sum(axis=1))
            for start in range(0, N_SHUFFLES, _SHUFFLES_AT_A_TIME):
                tried = block[orders[start : start + _SHUFFLES_AT_A_TIME]]
                left = tried - _predict(operator, tried)
                shuffled[start : start + len(tried)] += np.square(left).sum(axis=(1, 2))
        error, variance = np.concatenate(errors), np.concatenate(variances)
        counts = self._resampled()
        resampled = 1 - (counts @ error) / (counts @ variance).clip(1e-300)
        return self._summary("R2", 1 - error.sum() / total, 1 - shuffled / total, resampled)

    def labels(self, labels: Int[NDArray[np.int64], " n"], n_largest: int = 20) -> Probe:
        """AUC of labels: each against the rest of its stratum, weighted by its particles.

        Parameters
        ----------
        labels
            ``(n,)``. A label, and its rest, count in a stratum from 8 particles on.
        n_largest
            Only so many of the most frequent labels of each stratum are judged, to bound the time.
        """
        if reason := self._reason():
            return Probe("AUC", reason=reason)
        one_hot = [_one_hot(labels[rows], n_largest) for rows in self.members]
        total = sum(float(block.sum()) for block in one_hot)
        if total == 0:
            return Probe("AUC", reason=f"fewer than two groups of {_MIN_LABEL} particles to tell apart")
        value, shuffled, resampled = 0.0, np.zeros(N_SHUFFLES), np.zeros(_N_RESAMPLES)
        counts, start = self._resampled(), 0
        for block, operator, orders in self._blocks(one_hot):
            share = block.sum(axis=0) / total
            scores = operator @ block
            value += float(areas(scores, block) @ share)
            for first in range(0, N_SHUFFLES, _SHUFFLES_AT_A_TIME):
                tried = block[orders[first : first + _SHUFFLES_AT_A_TIME]]
                shuffled[first : first + len(tried)] += areas(_predict(operator, tried), tried) @ share
            weights = counts[:, start : start + len(block)]
            resampled += (
                np.stack([_resampled_areas(s, b, weights) for s, b in zip(scores.T, block.T, strict=True)]).T @ share
            )
            start += len(block)
        return self._summary("AUC", value, shuffled, resampled)

    def _reason(self) -> str:
        if not self.members:
            return f"fewer than {MIN_PARTICLES} particles"
        return "this code is the same for every particle" if self._blind else ""

    def _blocks(
        self, quantities: list[NDArray[np.float64]]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]]:
        """Each stratum's quantity, operator and shuffled orders, but those with nothing to tell."""
        generator = np.random.default_rng(self._seed + 1)
        for block, operator in zip(quantities, self._operators, strict=True):
            orders = generator.permuted(np.tile(np.arange(len(block)), (N_SHUFFLES, 1)), axis=1)
            yield block, operator, orders

    def _resampled(self) -> Float[NDArray[np.float64], "b n"]:
        """How often each particle is drawn in each bootstrap sample."""
        generator, n = np.random.default_rng(self._seed + 2), len(self.rows)
        return generator.multinomial(n, np.full(n, 1 / n), size=_N_RESAMPLES).astype(np.float64)

    def _summary(
        self, measure: Literal["R2", "AUC"], value: float, shuffled: NDArray[np.float64], resampled: NDArray[np.float64]
    ) -> Probe:
        low, high = np.percentile(resampled, [2.5, 97.5])
        mean = float(shuffled.mean())
        return Probe(
            measure,
            float(value),
            float(low),
            float(high),
            mean,
            float(np.quantile(shuffled, 0.95)),
            float((1 + np.sum(shuffled >= value)) / (1 + len(shuffled))),
            (float(value) - mean) / (1 - mean),
            len(self.rows),
        )


def areas(
    scores: Float[NDArray[np.float64], "*batch n k"], one_hot: Float[NDArray[np.float64], "*batch n k"]
) -> Float[NDArray[np.float64], "*batch k"]:
    """Area under the ROC curve of each column: how often a particle of the label outranks another; ties count half.

    Examples
    --------
    >>> areas(np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0.0], [0.0], [1.0], [1.0]]))
    array([0.75])
    """
    ranks = rankdata(scores, axis=-2)
    positive = one_hot.sum(axis=-2)
    negative = one_hot.shape[-2] - positive
    return ((ranks * one_hot).sum(axis=-2) - positive * (positive + 1) / 2) / (positive * negative)


def _operator(codes: NDArray[np.float64], seed: int) -> Float[NDArray[np.float64], "n n"]:
    """``H`` with ``ŷ = ȳ + H (y − ȳ)``: ridge on standardised codes, row i from folds without particle i.

    The penalty equals the number of dimensions: the quantity is taken to be half signal, half noise.
    """
    n = len(codes)
    operator = np.zeros((n, n))
    least = _CONSTANT * (np.abs(codes.mean(axis=0)) + codes.std(axis=0) + _CONSTANT)
    for repeat in range(_N_REPEATS):
        for train, test in KFold(_N_FOLDS, shuffle=True, random_state=seed + repeat).split(codes):
            mean, spread = codes[train].mean(axis=0), codes[train].std(axis=0)
            varies = spread > least
            if not varies.any():
                continue
            x, x_test = ((codes[rows] - mean)[:, varies] / spread[varies] for rows in (train, test))
            gram = x.T @ x + varies.sum() * np.eye(int(varies.sum()))
            operator[np.ix_(test, train)] += x_test @ np.linalg.solve(gram, x.T) / _N_REPEATS
    return operator


def _predict(operator: NDArray[np.float64], quantities: Float[NDArray[np.float64], "p n q"]) -> NDArray[np.float64]:
    p, n, q = quantities.shape
    # Single precision is enough for what is only counted, and takes half the time.
    columns = operator.astype(np.float32) @ quantities.transpose(1, 0, 2).reshape(n, p * q).astype(np.float32)
    return columns.reshape(n, p, q).transpose(1, 0, 2).astype(np.float64)


def _centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minus the mean; columns that do not vary become exactly 0."""
    mean = values.mean(axis=0)
    centred = values - mean
    still = np.abs(centred).max(axis=0) <= _CONSTANT * (np.abs(mean) + _CONSTANT)
    return np.where(still, 0.0, centred)


def _condensed(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same in as many columns as are independent: sums of squares do not change under an orthogonal turn."""
    _, sizes, turn = np.linalg.svd(centred, full_matrices=False)
    return centred @ turn[sizes > 1e-6 * sizes.max(initial=0)].T


def _one_hot(labels: NDArray[np.int64], n_largest: int) -> Float[NDArray[np.float64], "n k"]:
    """A column for each label that is frequent enough, and not too frequent, to be told from the rest."""
    numbers, sizes = np.unique(labels, return_counts=True)
    usable = (sizes >= _MIN_LABEL) & (len(labels) - sizes >= _MIN_LABEL)
    largest = numbers[usable][np.argsort(-sizes[usable], kind="stable")][:n_largest]
    return (labels[:, None] == largest).astype(np.float64)


def _resampled_areas(
    scores: NDArray[np.float64], positive: NDArray[np.float64], counts: Float[NDArray[np.float64], "b n"]
) -> Float[NDArray[np.float64], " b"]:
    """The area under the ROC curve of each bootstrap sample."""
    order = np.argsort(scores, kind="stable")
    weights = counts[:, order]
    ones = weights * positive[order]
    zeros = weights - ones
    below = (ones * (np.cumsum(zeros, axis=1) - zeros / 2)).sum(axis=1)
    pairs = ones.sum(axis=1) * zeros.sum(axis=1)
    return np.where(pairs > 0, below / np.maximum(pairs, 1), 0.5)
