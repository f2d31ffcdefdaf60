"""Particles that represent many: those in the middle of groups, and those spread over all codes.

Points are content codes as they are compared (:attr:`cryodc.codes.Codes.content_points`), at length 1 where only their
direction counts: there a squared distance is twice the cosine distance. Transformation codes are compared as they are.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

_CENTRAL_SHARE = 0.9


def middle_code(
    codes: Float[NDArray[np.float32], "n dims"], *, directional: bool
) -> Float[NDArray[np.float32], " dims"]:
    """A code in the middle of others: their mean, or the mean of their directions at their mean length."""
    exact = codes.astype(np.float64)
    if not directional:
        return exact.mean(axis=0).astype(np.float32)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    middle = (exact / np.maximum(lengths, 1e-12)).mean(axis=0)
    return (middle / max(float(np.linalg.norm(middle)), 1e-12) * lengths.mean()).astype(np.float32)


def medoids(
    points: Float[NDArray[np.float32], "n dims"], labels: Int[NDArray[np.int64], " n"]
) -> Int[NDArray[np.int64], " k"]:
    """Row of the medoid of each group, in the order of the labels: the least sum of squared distances to the members.

    That sum is least for the member nearest the mean. Points of no group are labelled −1.
    """
    exact = points.astype(np.float64)
    found = []
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        found.append(rows[np.square(exact[rows] - exact[rows].mean(axis=0)).sum(axis=1).argmin()])
    return np.array(found, dtype=np.int64)


def k_medoids(
    points: Float[NDArray[np.float32], "n dims"], n_groups: int, *, seed: int = 0
) -> tuple[Int[NDArray[np.int64], " k"], Int[NDArray[np.int64], " n"]]:
    """Medoids of k groups by squared distance, largest group first, and the group (0-based) of each point.

    Groups are those of k-means. Where fewer points than groups differ, there are fewer groups.

    Raises
    ------
    ValueError
        If there are fewer points than groups, or no group is asked for.
    """
    if not 1 <= n_groups <= len(points):
        raise ValueError(f"expected 1 to {len(points)} groups, found {n_groups}")
    exact = points.astype(np.float64)
    n_different = len(np.unique(exact, axis=0))
    labels = KMeans(min(n_groups, n_different), n_init=10, random_state=seed).fit_predict(exact)
    by_size = np.argsort(-np.bincount(labels), kind="stable")
    rank = np.empty_like(by_size)
    rank[by_size] = np.arange(len(by_size))
    ranked = rank[labels].astype(np.int64)
    return medoids(points, ranked), ranked


def spread_codes(
    codes: Float[NDArray[np.float32], "n dims"], n_codes: int, *, seed: int = 0
) -> Int[NDArray[np.int64], " k"]:
    """Rows of codes that lie far from each other: each next one is the farthest from those chosen (Gonzalez 1985).

    The first is drawn. Only the 90 % of the codes nearest their mean are chosen from, so that no outlier is. Of fewer
    different codes fewer are chosen.

    Raises
    ------
    ValueError
        If none is asked for.
    """
    if n_codes < 1:
        raise ValueError(f"expected at least 1 code, found {n_codes}")
    exact = codes.astype(np.float64)
    beyond = np.linalg.norm(exact - exact.mean(axis=0), axis=1)
    n_central = max(min(n_codes, len(codes)), int(np.ceil(_CENTRAL_SHARE * len(codes))))
    central = np.sort(np.argsort(beyond, kind="stable")[:n_central])
    chosen = [int(np.random.default_rng(seed).choice(central))]
    distance = np.linalg.norm(exact[central] - exact[chosen[0]], axis=1)
    while len(chosen) < min(n_codes, len(central)) and distance.max() > 0:
        chosen.append(int(central[distance.argmax()]))
        distance = np.minimum(distance, np.linalg.norm(exact[central] - exact[chosen[-1]], axis=1))
    return np.array(chosen, dtype=np.int64)


def principal_axes(
    codes: Float[NDArray[np.float32], "n dims"], n_axes: int
) -> tuple[Float[NDArray[np.float64], "q dims"], Float[NDArray[np.float64], " q"]]:
    """Principal axes of codes, at unit length, and the share of the variance along each; fewer where there are none.

    The largest entry of an axis is positive, so that its sign does not hang on rounding.
    """
    if not codes.size or np.ptp(codes, axis=0).max() == 0:
        return np.zeros((0, codes.shape[1])), np.zeros(0)
    found = PCA(svd_solver="full").fit(codes.astype(np.float64))
    s = found.singular_values_
    rank = min(n_axes, int((s > 1e-9 * s[0]).sum()) if s[0] > 1e-9 else 0)
    axes = found.components_[:rank]
    signs = np.sign(axes[np.arange(rank), np.abs(axes).argmax(axis=1)])
    return axes * signs[:, None], found.explained_variance_ratio_[:rank]
