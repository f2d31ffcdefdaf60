"""What share of the particles each class holds, over all and in each tomogram, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

N_DRAWS = 2000
LEVEL = 0.95
ALL = "(all)"
"""Stands for all tomograms together."""


@dataclass(frozen=True)
class ClassFractions:
    """Shares of the classes in a tomogram, or in all: counts, fractions, bounds of their 95 % intervals, ``(k,)``."""

    tomogram: str
    counts: Int[NDArray[np.int64], " k"]
    fractions: Float[NDArray[np.float64], " k"]
    low: Float[NDArray[np.float64], " k"]
    high: Float[NDArray[np.float64], " k"]


def class_fractions(
    labels: Int[NDArray[np.int64], " n"], tomograms: Sequence[str], n_classes: int, seed: int = 0
) -> list[ClassFractions]:
    """Fractions with intervals: of all particles first, then of each tomogram.

    A Bayesian bootstrap (Rubin 1981, Ann. Statist. 9:130): particles are weighted at random within their tomogram, so
    tomograms keep their sizes. Half a particle is added to each class, spread over the tomograms where they are taken
    together (Jeffreys' prior), so that a class of which none was found still has an upper bound. The interval says how
    far the counts of these tomograms are to be trusted; how much another tomogram may differ is seen in theirs.

    Parameters
    ----------
    labels
        ``(n,)`` 0-based class of each particle; those of none (−1) are left out.
    tomograms
        ``n`` names.
    n_classes
        How many classes there are.
    seed
        Of the draws.

    Examples
    --------
    >>> everything = class_fractions(np.array([0] * 30 + [1] * 70), ["TS_01"] * 100, 2)[0]
    >>> everything.fractions, everything.low.round(1), everything.high.round(1)
    (array([0.3, 0.7]), array([0.2, 0.6]), array([0.4, 0.8]))
    """
    generator = np.random.default_rng(seed)
    assigned = labels >= 0
    labels, tomograms = labels[assigned], np.array(tomograms, dtype=str)[assigned].tolist()
    names, place = np.unique(np.array(tomograms, dtype=str), return_inverse=True)
    counts: NDArray[np.int64] = np.zeros((len(names), n_classes), dtype=np.int64)
    np.add.at(counts, (place, labels), 1)
    together = np.zeros((N_DRAWS, n_classes))
    each = []
    for name, count in zip(names.tolist(), counts, strict=True):
        together += count.sum() * _draw(count + 0.5 / len(names), generator)
        each.append(_summarise(name, count, _draw(count + 0.5, generator)))
    return [_summarise(ALL, counts.sum(axis=0), together / max(1, len(labels))), *each]


def fractions_table(fractions: Sequence[ClassFractions]) -> str:
    """Lines ``tomogram,class,n_particles,fraction,low,high``; tomogram ``(all)`` is all together."""
    lines = ["tomogram,class,n_particles,fraction,low,high"]
    for row in fractions:
        name = f'"{row.tomogram}"' if "," in row.tomogram else row.tomogram
        bounds = np.stack([row.fractions, row.low, row.high], axis=1)
        for k, (count, (fraction, low, high)) in enumerate(zip(row.counts, bounds, strict=True), start=1):
            lines += [f"{name},{k},{count},{fraction:.4f},{low:.4f},{high:.4f}"]
    return "\n".join(lines) + "\n"


def _draw(alpha: NDArray[np.floating], generator: np.random.Generator) -> NDArray[np.float64]:
    gammas = generator.standard_gamma(alpha, size=(N_DRAWS, len(alpha)))
    return np.asarray(gammas / np.maximum(gammas.sum(axis=1, keepdims=True), 1e-300))


def _summarise(name: str, counts: NDArray[np.int64], draws: NDArray[np.float64]) -> ClassFractions:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    fractions = counts / max(1, int(counts.sum()))
    # The draws are centred near the fraction, not on it: the interval holds it.
    return ClassFractions(name, counts, fractions, np.minimum(low, fractions), np.maximum(high, fractions))
