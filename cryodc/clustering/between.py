"""Two proteins, or one that moves: whether particles lie between two references.

Between two proteins there are none. A protein that moves has particles in between, which fit both references. Noise of
both scores is 1 each, of their difference at most √2. So it alone fills the valley between the two peaks of the
difference to ``2 exp(−gap² / 16)`` of them.
"""

import math

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cryodc.alignment import FEWEST
from cryodc.clustering.valley import valley_between

_MOST_FILLED, _LEAST_FILLED = 0.5, 0.25
"""How full the valley between two classes may be where noise could fill it, and where it could not."""


def lie_apart(scores: Float[Tensor, "n 2"]) -> bool:
    """Whether hardly a particle lies between two references: no more than noise can put there.

    Where noise fills little, a quarter is allowed, since particles may be few; where it could fill all, half.

    Parameters
    ----------
    scores
        ``(n, 2)`` of particles of both.
    """
    first = scores[:, 0] >= scores[:, 1]
    if min(int(first.sum()), int((~first).sum())) < FEWEST:
        return False
    difference = (scores[:, 0] - scores[:, 1]).double().cpu()
    above, below = (difference[inside.cpu()].numpy() for inside in (first, ~first))
    gap = float(np.median(above) - np.median(below))
    filled_by_noise = 2 * math.exp(-(gap**2) / 16)
    return valley_between(above, below) <= min(_MOST_FILLED, max(_LEAST_FILLED, filled_by_noise))
