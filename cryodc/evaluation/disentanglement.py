"""Disentanglement: how well each code tells protein, pose and state, ``D(factor | code)``, and SAP, the difference."""

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cryodc.codes import Codes
from cryodc.evaluation.factors import Factor
from cryodc.evaluation.leakage import MAX_PARTICLES
from cryodc.simulation import Truth

_N_FOLDS = 5
_N_REPEATS = 3
_N_RESAMPLES = 1000
_N_BINS = 4


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a label predicted from codes, with its 95 % bootstrap interval over particles.

    Parameters
    ----------
    value, low, high
        Share of particles right, from fits that did not see them; mean over seeds.
    seeds
        The share for each seed of the folds.
    chance
        Share that always naming the most frequent label gets right.
    corrected, corrected_low, corrected_high
        ``(accuracy − chance) / (1 − chance)``: 0 by chance, 1 perfect.
    """

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]
    chance: float
    corrected: float
    corrected_low: float
    corrected_high: float


@dataclass(frozen=True)
class Disentanglement:
    """One label from both codes.

    Parameters
    ----------
    factor
        ``protein``, ``pose`` or ``state``.
    content, transformation
        ``D(factor | c)`` and ``D(factor | z)``; None where not computable.
    sap, sap_low, sap_high
        ``|D(factor | c) − D(factor | z)|`` with its 95 % bootstrap interval.
    sap_corrected
        The same of the corrected accuracies.
    n_particles, n_labels
        How many were judged, and between how many labels the most.
    reason
        Why it is not computable; empty where it is.
    """

    factor: str
    content: Accuracy | None = None
    transformation: Accuracy | None = None
    sap: float = math.nan
    sap_low: float = math.nan
    sap_high: float = math.nan
    sap_corrected: float = math.nan
    n_particles: int = 0
    n_labels: int = 0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain numbers; what is missing is None."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def disentangle(
    codes: Codes, truth: Truth, order: Int[NDArray[np.int64], " n"], orientation: Factor
) -> list[Disentanglement]:
    """Judge both codes by protein, pose and state.

    Parameters
    ----------
    codes
        Of every particle; 2,000 are drawn where there are more.
    truth, order
        The truth, and its row for each particle.
    orientation
        The true orientation within each protein, as :func:`cryodc.evaluation.true_factors` gives it: pose labels
        are its four k-means bins in each protein. State labels are thirds of the states of a protein that moves.
    """
    drawn = np.sort(np.random.default_rng(0).permutation(len(codes))[:MAX_PARTICLES])
    content, transformation = codes.content_points[drawn], codes.transformation_told[drawn]
    proteins, states = truth.labels[order][drawn], truth.states[order][drawn]
    whole = np.zeros(len(drawn), dtype=np.int64)
    poses, bins = np.full(len(drawn), -1), np.full(len(drawn), -1)
    for protein in np.unique(proteins):
        rows = np.flatnonzero(proteins == protein)
        if orientation.values is not None:
            poses[rows] = _pose_bins(orientation.values[drawn][rows])
        bins[rows] = _thirds(states[rows])
    still = "no protein has states" if (bins < 0).all() else ""
    return [
        disentangle_labels("protein", content, transformation, proteins, whole),
        disentangle_labels("pose", content, transformation, poses, proteins),
        Disentanglement("state", reason=still)
        if still
        else disentangle_labels("state", content, transformation, bins, proteins),
    ]


def disentangle_labels(
    factor: str,
    content: Float[NDArray[np.float32], "n c"],
    transformation: Float[NDArray[np.float32], "n z"],
    labels: Int[NDArray[np.int64], " n"],
    strata: Int[NDArray[np.int64], " n"],
) -> Disentanglement:
    """Accuracy of labels from both codes by logistic regression, fitted and judged within each stratum.

    Parameters
    ----------
    factor
        Its name.
    content, transformation
        The codes.
    labels
        ``(n,)``; below 0 none. Labels of fewer than 5 particles of a stratum, one for each fold, are left out.
    strata
        ``(n,)`` groups, as proteins are.
    """
    groups = [
        rows[np.isin(labels[rows], _frequent(labels[rows]))]
        for rows in (np.flatnonzero((strata == stratum) & (labels >= 0)) for stratum in np.unique(strata))
    ]
    groups = [rows for rows in groups if len(np.unique(labels[rows])) > 1]
    if not groups:
        return Disentanglement(factor, reason=f"fewer than two labels with {_N_FOLDS} particles each")
    kept = np.concatenate(groups)
    right = [np.concatenate([_right(codes[rows], labels[rows]) for rows in groups], axis=1)
             for codes in (content, transformation)]  # fmt: skip
    chance = sum(int(np.unique(labels[rows], return_counts=True)[1].max()) for rows in groups) / len(kept)
    counts = np.random.default_rng(0).multinomial(len(kept), np.full(len(kept), 1 / len(kept)), size=_N_RESAMPLES)
    resampled = [counts @ r.mean(axis=0) / len(kept) for r in right]
    first, second = (_accuracy(r, drawn, chance) for r, drawn in zip(right, resampled, strict=True))
    low, high = np.percentile(np.abs(resampled[0] - resampled[1]), [2.5, 97.5])
    n_labels = max(len(np.unique(labels[rows])) for rows in groups)
    sap, sap_corrected = abs(first.value - second.value), abs(first.corrected - second.corrected)
    return Disentanglement(
        factor, first, second, sap, float(low), float(high), sap_corrected, len(kept), n_labels
    )  # fmt: skip


def _right(codes: NDArray[np.float32], labels: NDArray[np.int64]) -> Float[NDArray[np.float64], "s n"]:
    """Whether each particle's label was predicted, for each seed, by a fit that did not see it."""
    right = np.zeros((_N_REPEATS, len(codes)))
    if codes.shape[1] == 0:
        # A code of length 0 tells nothing: the most frequent label is named.
        codes = np.zeros((len(codes), 1), np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        # An unfinished fit is a poorer predictor, and is judged as one.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(_N_REPEATS):
            folds = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=seed)
            for train, test in folds.split(codes, labels):
                predicted = model.fit(codes[train], labels[train]).predict(codes[test])
                right[seed, test] = predicted == labels[test]
    return right


def _accuracy(
    right: Float[NDArray[np.float64], "s n"], resampled: Float[NDArray[np.float64], " b"], chance: float
) -> Accuracy:
    value, (low, high) = float(right.mean()), np.percentile(resampled, [2.5, 97.5])
    corrected = [float((share - chance) / (1 - chance)) for share in (value, low, high)]
    seeds = tuple(float(share) for share in right.mean(axis=1))
    return Accuracy(value, float(low), float(high), seeds, chance, *corrected)


def _frequent(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    numbers, sizes = np.unique(labels, return_counts=True)
    return numbers[sizes >= _N_FOLDS]


def _pose_bins(moments: Float[NDArray[np.float64], "n q"]) -> NDArray[np.int64]:
    if len(np.unique(moments.round(6), axis=0)) < _N_BINS:
        return np.full(len(moments), -1)
    return KMeans(_N_BINS, n_init=3, random_state=0).fit_predict(moments).astype(np.int64)


def _thirds(states: Float[NDArray[np.float64], " n"]) -> NDArray[np.int64]:
    """Thirds of continuous states, or the states themselves where there are up to three; −1 for a rigid protein."""
    distinct, place = np.unique(states, return_inverse=True)
    if len(distinct) < 2:
        return np.full(len(states), -1)
    if len(distinct) <= 3:
        return place.astype(np.int64)
    return np.searchsorted(np.quantile(states, [1 / 3, 2 / 3]), states).astype(np.int64)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return (round(value, 4) if math.isfinite(value) else None) if isinstance(value, float) else value
