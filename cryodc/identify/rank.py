"""Which of a library's structures a class is, if it is one of them at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cryodc.identify.compare import Match

MIN_AGREEMENT = 0.6
"""Least agreement of a class with the structure it is named after: between relatives (0.71) and decoys (0.47)."""
MIN_Z = 3.0
"""Least z-score against decoys."""


@dataclass(frozen=True)
class Ranking:
    """Candidates of a class, best first.

    Parameters
    ----------
    order
        Names of the library.
    z
        Of each, in that order: its agreement less the mean of the decoys', over their standard deviation.
    name
        Of the best; None where none stands out.
    why
        One sentence.
    """

    order: tuple[str, ...]
    z: tuple[float, ...]
    name: str | None
    why: str


def rank(matches: Mapping[str, Match], decoys: Sequence[Match]) -> Ranking:
    """Put candidates in order, and say whether the first stands out.

    Parameters
    ----------
    matches
        Of one class, by name.
    decoys
        Of the same class; two at least.
    """
    order = sorted(matches, key=lambda name: -matches[name].agreement)
    null = np.array([decoy.agreement for decoy in decoys])
    spread = max(float(null.std(ddof=1)), 1e-3)
    z = tuple((matches[name].agreement - float(null.mean())) / spread for name in order)
    best = matches[order[0]].agreement
    told = (
        f"{order[0]} agrees to {best:.2f} of what is expected, {z[0]:.1f} standard deviations above {len(null)} decoys"
    )
    if best >= MIN_AGREEMENT and z[0] >= MIN_Z:
        return Ranking(tuple(order), z, order[0], told)
    asked = f"{MIN_AGREEMENT:g} and {MIN_Z:g} are asked"
    return Ranking(tuple(order), z, None, f"none of these: {told}; {asked}")
