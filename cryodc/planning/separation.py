"""From scores of a trial to what a classification would come to: wrong particles, adjusted Rand index, intervals."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import norm

_DRAWS = 400
_LIMITS = (2.5, 97.5)


@dataclass(frozen=True)
class Separation:
    """How well two maps come apart with templates of so many particles each.

    Parameters
    ----------
    first, second
        Names of the maps.
    n_particles
        Of each; infinity is with the maps themselves as templates.
    distance
        Mean over spread of the difference of a particle's two scores, the mean of both maps.
    wrong
        Share of particles whose score is higher on the other map.
    ari, ari_interval
        Adjusted Rand index of as many particles of either map, and 95 % of what it may be.
    """

    first: str
    second: str
    n_particles: float
    distance: float
    wrong: float
    ari: float
    ari_interval: tuple[float, float]


def large_ari(confusion: Float[NDArray[np.float64], "*d k c"]) -> Float[NDArray[np.float64], "*d"]:
    """Adjusted Rand index of many particles, as many of each kind, by the shares of each kind that go to each class.

    Examples
    --------
    >>> round(float(large_ari(np.array([[0.9, 0.1], [0.1, 0.9]]))), 2)
    0.64
    """
    joint = confusion / confusion.shape[-2]
    together = np.square(joint).sum(axis=(-2, -1))
    kinds, classes = np.square(joint.sum(axis=-1)).sum(axis=-1), np.square(joint.sum(axis=-2)).sum(axis=-1)
    chance = kinds * classes
    return np.asarray((together - chance) / ((kinds + classes) / 2 - chance))


def separate(
    first: tuple[str, Float[NDArray[np.float64], " n"]],
    second: tuple[str, Float[NDArray[np.float64], " m"]],
    n_particles: float,
    snr_error: float,
    seed: int,
) -> Separation:
    """Rate one pair of maps.

    The difference of a particle's two scores is taken as normal: the share below 0 is ``Φ(−mean / spread)``. For the
    interval, particles of the trial are drawn again, and the SNR, with whose root the mean grows, from what it may be.

    Parameters
    ----------
    first, second
        Name of either map, and the score of each of its particles on it less that on the other.
    n_particles
        Of each map, that templates are of.
    snr_error
        Standard error of the SNR over the SNR.
    seed
        Of the draws.
    """
    generator = np.random.default_rng(seed)
    root_snr = np.sqrt(np.maximum(1 + snr_error * generator.standard_normal(_DRAWS), 0.05))
    estimates, drawn = [], []
    for _, difference in (first, second):
        estimates.append(float(difference.mean() / max(difference.std(ddof=1), 1e-9)))
        again = generator.choice(difference, (_DRAWS, len(difference)))
        drawn.append(root_snr * again.mean(axis=1) / again.std(axis=1, ddof=1).clip(1e-9))
    wrong = norm.cdf(-np.array(estimates))
    low, high = np.percentile(_pair_ari(norm.cdf(-np.stack(drawn, axis=-1))), _LIMITS)
    ari = float(_pair_ari(wrong))
    return Separation(
        first[0],
        second[0],
        n_particles,
        float(np.mean(estimates)),
        float(wrong.mean()),
        ari,
        (min(float(low), ari), max(float(high), ari)),
    )


def first_reach(numbers: list[float], values: list[float], wanted: float) -> float | None:
    """The number at which growing values first reach what is wanted, interpolated in the logarithm; None if none does.

    Examples
    --------
    >>> round(first_reach([10, 100, 1000], [0.0, 0.5, 1.0], 0.75))
    316
    >>> first_reach([10, 100], [0.95, 1.0], 0.9), first_reach([10, 100], [0.1, 0.2], 0.9)
    (10.0, None)
    """
    for place, value in enumerate(values):
        if value >= wanted:
            if place == 0:
                return float(numbers[0])
            share = (wanted - values[place - 1]) / (value - values[place - 1])
            return np.exp(np.interp(share, [0, 1], np.log(numbers[place - 1 : place + 1])))
    return None


def _pair_ari(wrong: Float[NDArray[np.float64], "*d 2"]) -> Float[NDArray[np.float64], "*d"]:
    confusion = np.stack([1 - wrong, wrong], axis=-1)
    confusion[..., 1, :] = confusion[..., 1, ::-1]
    return large_ari(confusion)
