"""Poses and wedges as numbers that do not change when a symmetric particle is turned onto itself."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.geometry import symmetry_rotations

_DEGREES = {"C": (1, 2), "D": (2,), "T": (3,), "O": (4,), "I": (6,)}
"""Of the moments that are compared; below them, those of T, O and I are the same for every pose."""
N_ORIENTATION = 48


def orientation_moments(
    rotations: Float[NDArray[np.float64], "n 3 3"], symmetry: str = "C1"
) -> Float[NDArray[np.float64], "n q"]:
    """What of an orientation can be seen of a symmetric particle, as numbers; the same for ``A`` and ``A S``.

    In C1 the nine entries of ``A``. Otherwise, for fixed directions ``w`` of the particle and ``v`` of the reference,
    the moments ``mean over S of (w · A S v)ᵏ`` with ``k`` = 1 and 2 (Cn), 2 (Dn), 3 (T), 4 (O), 6 (I), each scaled to
    one spread. In Cn and Dn with n ≥ 3 these tell the axis and not the turn about it.

    Parameters
    ----------
    rotations
        ``(n, 3, 3)``, reference → particle.
    symmetry
        Point group in RELION's orientation.

    Returns
    -------
    ``(n, 48)`` for every symmetry, filled with zeros.

    Raises
    ------
    ValueError
        If the symmetry is unknown.
    """
    group = symmetry_rotations(symmetry)
    if len(group) == 1:
        found = rotations.reshape(-1, 9)
    else:
        generator = np.random.default_rng(0)
        seen, axes = (generator.normal(size=(count, 3)) for count in (12, 2))
        seen, axes = (block / np.linalg.norm(block, axis=1, keepdims=True) for block in (seen, axes))
        mates = np.einsum("gij,vj->gvi", group, axes)
        cosines = np.einsum("wi,nij,gvj->ngwv", seen, rotations, mates)
        degrees = _DEGREES[symmetry.strip().upper()[0]]
        found = np.concatenate([(cosines**k).mean(axis=1).reshape(len(rotations), -1) for k in degrees], axis=1)
        spread = found.std(axis=0)
        found = np.where(spread > 1e-9, (found - found.mean(axis=0)) / np.maximum(spread, 1e-9), 0.0)
    return np.pad(found, ((0, 0), (0, N_ORIENTATION - found.shape[1])))


def wedge_in_reference(
    rotations: Float[NDArray[np.float64], "n 3 3"], moments: Float[NDArray[np.float64], "n 3 3"], symmetry: str = "C1"
) -> Float[NDArray[np.float64], "n 9"]:
    """The missing wedge as the particle sees it: ``mean over S of Sᵀ Aᵀ M A S``, its nine entries.

    Parameters
    ----------
    rotations
        ``(n, 3, 3)``, reference → particle.
    moments
        ``(n, 3, 3)``: ``M`` of each particle's box, :func:`cryodc.fourier.wedge.missing_moments`.
    symmetry
        Point group. Under T, O and I nothing is left that varies.
    """
    turned = np.swapaxes(rotations, 1, 2) @ moments @ rotations
    group = symmetry_rotations(symmetry)
    return np.einsum("gki,nkl,glj->nij", group, turned, group).reshape(-1, 9) / len(group)
