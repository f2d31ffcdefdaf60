"""Valleys: whether the density of the codes falls between two clusters as it does between two proteins."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

VALLEY = 0.7
_HALF = 0.5
_WIDEST = 2.0
"""Spread of the particles of one protein towards another, at most, in units of what noise alone does."""
_N_BOOTSTRAPS = 200
_CONFIDENCE = 0.9
_MOST_DRAWN = 5000


def valley_limit(
    features: Float[NDArray[np.float64], "n p"],
    labels: Int[NDArray[np.int64], " n"],
    precision: Float[NDArray[np.float64], "p p"],
    seed: int,
    in_units: bool = False,
) -> tuple[float, float]:
    """Upper 90 % confidence limit of the density between the two clusters that are least apart.

    For each pair, members of both are projected on the direction that separates them best (Fisher's), and
    :func:`valley_between` tells how far the density falls; the pair with the shallowest valley, over its
    threshold, counts. Few particles make valleys by chance: so the upper end of a bootstrap over the members of that
    pair, at most 5,000 of each, or the valley itself where that is already too shallow for separate clusters.

    Parameters
    ----------
    features, labels
        Points and the cluster, 0-based, of each.
    precision
        Inverse of the covariance that clusters share.
    seed
        Of the bootstrap.
    in_units
        As in :func:`choose_mixture`.

    Returns
    -------
    The valley, and its threshold.
    """
    pair = _closest_pair(features, labels, precision, in_units)
    ratio, threshold = valley_between(*pair), _threshold_between(pair, in_units)
    if ratio > threshold:
        return ratio, threshold
    generator = np.random.default_rng(seed)
    above, below = (
        part if len(part) <= _MOST_DRAWN else generator.choice(part, _MOST_DRAWN, replace=False) for part in pair
    )
    drawn = [
        valley_between(generator.choice(above, len(above)), generator.choice(below, len(below)))
        for _ in range(_N_BOOTSTRAPS)
    ]
    return max(ratio, float(np.quantile(drawn, _CONFIDENCE))), threshold


def valley_threshold(gap: float) -> float:
    """Threshold of the valley between two clusters, given the gap between their medians in units of the noise.

    Noise fills the valley between two proteins to ``2 exp(−gap² / 8 s²)`` of the peaks, with ``s`` at most 2. Where it
    cannot fill half of it, what does is particles that lie in between: one protein that moves. So 0.7 up to a gap of
    5.8, and from 6.7 on 0.5.

    Examples
    --------
    >>> valley_threshold(3.0), valley_threshold(8.0)
    (0.7, 0.5)
    """
    return min(VALLEY, max(_HALF, 2 * math.exp(-(gap**2) / (8 * _WIDEST**2))))


def valley_between(above: Float[NDArray[np.float64], " a"], below: Float[NDArray[np.float64], " b"]) -> float:
    """Lowest density between the peaks of two groups on a line, each given the same weight, over the lower peak.

    0 is nothing in between; 1 no gap, too few points (3 of each) or groups that lie the wrong way round.
    """
    if min(len(above), len(below)) < 3 or np.median(above) <= np.median(below):
        return 1.0
    weights = np.concatenate([np.full(len(part), 0.5 / len(part)) for part in (above, below)])
    # The kernel is as wide as Scott's rule has it for one cluster of the smaller size, not for both together.
    points = np.concatenate([above, below])
    within = math.sqrt(0.5 * (above.var() + below.var()))
    spread = math.sqrt(np.cov(points, aweights=weights))
    density = gaussian_kde(points, 1.5 * within / spread * min(len(above), len(below)) ** -0.2, weights=weights)
    profile = density(np.linspace(np.median(below), np.median(above), 101))
    left, right = int(profile[:51].argmax()), 50 + int(profile[50:].argmax())
    return float(profile[left : right + 1].min() / min(profile[left], profile[right]))


def _closest_pair(
    features: Float[NDArray[np.float64], "n p"],
    labels: Int[NDArray[np.int64], " n"],
    precision: Float[NDArray[np.float64], "p p"],
    in_units: bool,
) -> tuple[Float[NDArray[np.float64], " a"], Float[NDArray[np.float64], " b"]]:
    """Members of the two clusters least apart, projected on the direction that separates them best (Fisher's)."""
    members = [features[labels == label] for label in range(labels.max() + 1)]
    pairs = [
        (first @ axis, second @ axis)
        for i, first in enumerate(members)
        for second in members[:i]
        for axis in [_unit(precision @ (first.mean(axis=0) - second.mean(axis=0)))]
    ]
    return max(pairs, key=lambda pair: valley_between(*pair) / _threshold_between(pair, in_units))


def _threshold_between(
    pair: tuple[Float[NDArray[np.float64], " a"], Float[NDArray[np.float64], " b"]], in_units: bool
) -> float:
    """The threshold of the valley between two groups on a line."""
    return valley_threshold(float(np.median(pair[0]) - np.median(pair[1]))) if in_units else VALLEY


def _unit(axis: Float[NDArray[np.float64], " p"]) -> Float[NDArray[np.float64], " p"]:
    return axis / max(float(np.linalg.norm(axis)), 1e-300)
