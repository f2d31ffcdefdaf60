"""Particles picked twice: nearer to one another in their tomogram than proteins can be."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryodc.errors import InputError
from cryodc.io import Problem
from cryodc.particles import ParticleSet


def nearest_pairs(
    positions_angstrom: Float[NDArray[np.float64], "n 3"], tomograms: Sequence[str], distance_angstrom: float
) -> tuple[Int[NDArray[np.int64], "p 2"], Float[NDArray[np.float64], " p"]]:
    """Particles whose nearest neighbour in the same tomogram is within a distance.

    Returns
    -------
    ``(p, 2)`` positions, the earlier one first, each pair once; ``(p,)`` their distance in Å.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for i, tomogram in enumerate(tomograms):
        rows[tomogram].append(i)
    found: dict[tuple[int, int], float] = {}
    for members in rows.values():
        if len(members) < 2:
            continue
        points = positions_angstrom[members]
        distances, neighbours = (np.asarray(table) for table in cKDTree(points).query(points, k=2))
        # A particle on top of others may find itself second.
        own = neighbours[:, 1] == np.arange(len(points))
        other = np.where(own, neighbours[:, 0], neighbours[:, 1])
        for i in np.flatnonzero(distances[:, 1] <= distance_angstrom).tolist():
            first, second = sorted((members[i], members[int(other[i])]))
            found[first, second] = float(distances[i, 1])
    pairs = sorted(found)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array([found[pair] for pair in pairs])


def check_duplicates(
    particles: ParticleSet, positions_angstrom: Float[NDArray[np.float64], "n 3"], distance_angstrom: float
) -> list[Problem]:
    """One warning for each pair, at its later row; none where every position is the same and so says nothing."""
    if not np.ptp(positions_angstrom, axis=0).any():
        return []
    pairs, distances = nearest_pairs(positions_angstrom, particles.tomograms, distance_angstrom)
    warnings = []
    for (first, second), distance in zip(pairs.tolist(), distances.tolist(), strict=True):
        error = InputError(
            "two particles of a tomogram are nearer than --duplicate-distance",
            file=particles.source,
            row=int(particles.rows[second]),
            expected=f"more than {distance_angstrom:g} Å between them",
            found=f"{distance:.1f} Å between lines {particles.rows[first]} and {particles.rows[second]}",
            remedy="remove one of the two, or give a smaller --duplicate-distance",
        )
        warnings.append(Problem(int(particles.rows[second]), error, unreadable=False))
    return warnings
