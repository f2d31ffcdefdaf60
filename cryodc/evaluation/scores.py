"""Found against true: composition scores, and pose errors modulo symmetry and a global rotation and shift."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn import metrics

from cryodc.geometry import geodesic_degrees, symmetry_rotations
from cryodc.particles import Poses

CLOSE_DEGREES = 10.0
_INLIER_DEGREES = 20.0
_OUTLIER_DEGREES = 30.0
_MAX_CANDIDATES = 400
_N_REFINEMENTS = 10


@dataclass(frozen=True)
class CompositionScores:
    """How well found classes match true proteins; 1 is perfect in each.

    Parameters
    ----------
    n_found, n_true
        Distinct classes and proteins.
    ari, ami
        Adjusted Rand index and adjusted mutual information: 0 by chance.
    homogeneity, completeness, v_measure
        Each class one protein; each protein in one class; their harmonic mean.
    accuracy
        Share of particles in the class matched to their protein, classes matched one to one (Hungarian method).
    """

    n_found: int
    n_true: int
    ari: float
    ami: float
    homogeneity: float
    completeness: float
    v_measure: float
    accuracy: float


@dataclass(frozen=True)
class PoseErrors:
    """Pose errors of one class, after the global rotation and shift between the two references are undone.

    Parameters
    ----------
    angles_degrees
        ``(n,)`` geodesic angles.
    shifts_angstrom
        ``(n,)`` distances between true and estimated origins.
    rotation, offset_angstrom
        ``G`` and ``t``, zyx: ``A_true S ≈ A_est G`` and ``o_true ≈ o_est + A_est G t``.
    """

    angles_degrees: Float[NDArray[np.float64], " n"]
    shifts_angstrom: Float[NDArray[np.float64], " n"]
    rotation: Float[NDArray[np.float64], "3 3"]
    offset_angstrom: Float[NDArray[np.float64], " 3"]

    @property
    def median_degrees(self) -> float:
        """Median angle."""
        return float(np.median(self.angles_degrees))

    @property
    def share_close(self) -> float:
        """Share of particles below 10°."""
        return float(np.mean(self.angles_degrees < CLOSE_DEGREES))

    @property
    def median_shift_angstrom(self) -> float:
        """Median shift error."""
        return float(np.median(self.shifts_angstrom))


def composition_scores(found: Int[NDArray[np.int64], " n"], true: Int[NDArray[np.int64], " n"]) -> CompositionScores:
    """Compare classes with proteins; their numbering does not matter.

    Parameters
    ----------
    found, true
        ``(n,)`` labels. An unassigned class is a class like any other.

    Examples
    --------
    >>> composition_scores(np.array([1, 1, 0, 0]), np.array([5, 5, 7, 7])).accuracy
    1.0
    """
    counts = metrics.cluster.contingency_matrix(true, found)
    rows, columns = linear_sum_assignment(-counts)
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(true, found)
    with warnings.catch_warnings():
        # scikit-learn suspects a regression where almost every particle has a label of its own.
        warnings.simplefilter("ignore", UserWarning)
        ari, ami = metrics.adjusted_rand_score(true, found), metrics.adjusted_mutual_info_score(true, found)
    return CompositionScores(
        n_found=len(np.unique(found)),
        n_true=len(np.unique(true)),
        ari=float(ari),
        ami=float(ami),
        homogeneity=float(homogeneity),
        completeness=float(completeness),
        v_measure=float(v_measure),
        accuracy=float(counts[rows, columns].sum() / len(true)),
    )


def pose_errors(estimated: Poses, true: Poses, symmetry: str = "C1") -> PoseErrors:
    """Pose errors of particles of one reference.

    The estimate's reference may stand in any orientation and off centre: ``V_est(x) = V_true(Gᵀ x + t)``. A pose is
    then right if ``A_true S = A_est G`` for some symmetry ``S`` of the true map, and ``o_true = o_est + A_est G t``.
    ``G`` is the candidate ``A_estᵀ A_true`` of one particle that leaves the least mean angle, each capped at 30°,
    refined to the mean over the particles within 20°; ``t`` is the least-squares shift of those. So many wrong
    poses do not drag along the rest.

    Parameters
    ----------
    estimated, true
        Poses of the same particles in the same order; at least one.
    symmetry
        Point group of the true map, in RELION's orientation.

    Raises
    ------
    ValueError
        If lengths differ or are 0, or the symmetry is unknown.
    """
    if len(estimated) != len(true) or not len(true):
        raise ValueError(f"expected as many estimated as true poses, found {len(estimated)} and {len(true)}")
    group = symmetry_rotations(symmetry)
    # A_estᵀ A_true S for every particle and symmetry: all of them equal G where the estimate is right.
    relative = np.swapaxes(estimated.rotations, 1, 2) @ true.rotations
    mates = np.einsum("nij,gjk->ngik", relative, group)
    rotation = _refine(_best_candidate(relative, mates), mates)
    angles = geodesic_degrees(rotation, mates).min(axis=1)
    turned = estimated.rotations @ rotation
    difference = true.origins_angstrom - estimated.origins_angstrom
    inliers = _inliers(angles)
    offset = np.einsum("nji,nj->ni", turned[inliers], difference[inliers]).mean(axis=0)
    shifts = np.linalg.norm(difference - turned @ offset, axis=1)
    return PoseErrors(angles, shifts, rotation, offset)


def _best_candidate(
    relative: Float[NDArray[np.float64], "n 3 3"], mates: Float[NDArray[np.float64], "n g 3 3"]
) -> NDArray[np.float64]:
    step = max(1, len(relative) // _MAX_CANDIDATES)
    candidates = relative[::step]
    best, lowest = candidates[0], np.inf
    for candidate in candidates:
        # trace(Gᵀ M) = 1 + 2 cos(angle)
        traces = np.einsum("ij,ngij->ng", candidate, mates).max(axis=1)
        angles = np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))
        mean = np.minimum(angles, _OUTLIER_DEGREES).mean()
        if mean < lowest:
            best, lowest = candidate, mean
    return best


def _refine(rotation: NDArray[np.float64], mates: Float[NDArray[np.float64], "n g 3 3"]) -> NDArray[np.float64]:
    for _ in range(_N_REFINEMENTS):
        angles = geodesic_degrees(rotation, mates)
        nearest = mates[np.arange(len(mates)), angles.argmin(axis=1)]
        u, _, vt = np.linalg.svd(nearest[_inliers(angles.min(axis=1))].sum(axis=0))
        rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return rotation


def _inliers(angles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Poses that look right; the better half where hardly any does."""
    inliers = angles < _INLIER_DEGREES
    return inliers if inliers.any() else angles <= np.median(angles)
