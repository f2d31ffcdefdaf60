"""What codes may hold of each particle: identity, pose, wedge, tomogram, defocus, signal; from the run or the truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.evaluation.moments import N_ORIENTATION, orientation_moments, wedge_in_reference
from cryodc.evaluation.sources import RunSources
from cryodc.geometry import POINT_GROUPS, symmetry_rotations
from cryodc.particles import Poses
from cryodc.simulation import Truth

FactorName = Literal[
    "orientation", "shift", "wedge_particle", "wedge_tomogram", "tomogram", "defocus", "signal", "identity"
]


@dataclass(frozen=True)
class Factor:
    """One quantity that codes may hold.

    Parameters
    ----------
    name
        See ``docs/metrics.md``.
    source
        Where it was read.
    strata
        ``(n,)`` groups it is judged within; below 0 left out.
    values
        ``(n, q)`` numbers; a row with nan is left out.
    labels
        ``(n,)`` instead of numbers.
    reason
        Why there are neither.
    content_reason
        Why it says nothing of the content code, where that is so.
    note
        What to keep in mind.
    """

    name: FactorName
    source: str
    strata: Int[NDArray[np.int64], " n"]
    values: Float[NDArray[np.float64], "n q"] | None = None
    labels: Int[NDArray[np.int64], " n"] | None = None
    reason: str = ""
    content_reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Known:
    """Poses and tomograms, and the groups they are judged within."""

    poses: Poses | None
    source: str
    pose_strata: Int[NDArray[np.int64], " n"]
    symmetries: Mapping[int, str]
    strata: Int[NDArray[np.int64], " n"]
    tomograms: tuple[str, ...]


def run_factors(sources: RunSources, symmetries: Mapping[int, str] | None = None) -> list[Factor]:
    """Every factor a run knows without truth.

    Poses are those of the STAR, else those that averaging found, for classes that could be aligned. Those of the STAR
    share one reference and are judged over all particles; found ones, and any under a symmetry, within each class.

    Parameters
    ----------
    sources
        Of the run.
    symmetries
        Point group by rlnClassNumber.

    Raises
    ------
    InputError
        If files of the run do not name the same particles, or there is no such class or symmetry.
    """
    whole = np.zeros(len(sources.names), dtype=np.int64)
    classes = sources.classes
    groups = _checked(symmetries or {}, classes, sources)
    poses, source, strata = sources.poses, "poses of the STAR", whole
    if poses is not None and groups and classes is not None:
        strata = classes
    if poses is None and (found := sources.found_poses()) is not None:
        source, (poses, strata) = "poses found by averaging, within each class", found
    known = _Known(poses, source, strata, groups, whole, sources.tomograms)
    factors = [*_pose_factors(sources, known), *_star_factors(sources, known)]
    if classes is None:
        return [*factors, Factor("identity", "", whole, reason="no classes yet: run `cryodc cluster`")]
    own = "by design: the classes were found from this code"
    return [*factors, Factor("identity", "class of each particle", whole, labels=classes, content_reason=own)]


def true_factors(
    sources: RunSources, truth: Truth, order: Int[NDArray[np.int64], " n"], groups: Mapping[str, str]
) -> list[Factor]:
    """Every factor, with true poses, proteins and tomograms; all but identity within each protein.

    Parameters
    ----------
    sources
        Of the run.
    truth, order
        The truth, and its row for each particle.
    groups
        Point group by protein.
    """
    proteins = truth.labels[order]
    symmetries = {label: groups[protein] for label, protein in enumerate(truth.proteins)}
    tomograms = tuple(truth.tomograms[row] for row in order)
    if not any(tomograms):
        tomograms = sources.tomograms
    source = "true poses, within each protein"
    known = _Known(truth.poses[order], source, proteins, symmetries, proteins, tomograms)
    whole = np.zeros(len(proteins), dtype=np.int64)
    identity = Factor("identity", "true protein of each particle", whole, labels=proteins)
    return [*_pose_factors(sources, known), *_star_factors(sources, known), identity]


def _pose_factors(sources: RunSources, known: _Known) -> list[Factor]:
    """Orientation, shift, and the wedge as particle and box see it."""
    wedges, why_not = sources.wedges(known.tomograms)
    boxes = None if wedges is None else wedges.reshape(-1, 9)
    note = "the same for all particles of a tomogram: read it beside the tomogram"
    wedge = Factor("wedge_tomogram", "weights", known.strata, values=boxes, reason=why_not, note=note)
    if known.poses is None:
        missing = "the STAR has no poses, and averaging has found none: run `cryodc average`"
        names: tuple[FactorName, ...] = ("orientation", "shift", "wedge_particle")
        return [*(Factor(name, "", known.strata, reason=missing) for name in names), wedge]
    n, strata, groups = len(sources.names), known.pose_strata, known.symmetries
    moments, seen = np.zeros((n, N_ORIENTATION)), np.full((n, 9), np.nan)
    judged = set()
    for stratum in np.unique(strata[strata >= 0]).tolist():
        rows, symmetry = np.flatnonzero(strata == stratum), groups.get(stratum, "C1")
        judged.add(symmetry)
        rotations = known.poses.rotations[rows]
        moments[rows] = orientation_moments(rotations, symmetry)
        if wedges is not None:
            seen[rows] = wedge_in_reference(rotations, wedges[rows], symmetry)
    note = "symmetry " + ", ".join(sorted(judged)) if judged else ""
    if not groups:
        note += ": where a particle has more, give --symmetry, or a leak is understated"
    return [
        Factor("orientation", known.source, strata, values=moments, note=note),
        Factor("shift", known.source, strata, values=known.poses.origins_angstrom),
        Factor("wedge_particle", known.source, strata, values=None if why_not else seen, reason=why_not, note=note),
        wedge,
    ]


def _star_factors(sources: RunSources, known: _Known) -> list[Factor]:
    """Tomogram, defocus, and how clear each particle is, as the STAR has them."""
    numbers = np.unique(np.array(known.tomograms, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    if len(set(known.tomograms)) > 1:
        tomogram = Factor("tomogram", "tomogram names", known.strata, labels=numbers)
    else:
        one = "all particles are of one tomogram" if known.tomograms[0] else "the STAR does not name tomograms"
        tomogram = Factor("tomogram", "", known.strata, reason=one)
    no_signal = "the STAR has no rlnLogLikeliContribution; the images alone do not say how clear a particle is"
    return [
        tomogram,
        _column_factor(sources, known, "defocus", ("rlnDefocusU", "rlnDefocusV"), "the STAR has no rlnDefocusU"),
        _column_factor(sources, known, "signal", ("rlnLogLikeliContribution",), no_signal),
    ]


def _column_factor(
    sources: RunSources, known: _Known, name: FactorName, labels: tuple[str, ...], missing: str
) -> Factor:
    values = sources.column(labels)
    if values is None:
        return Factor(name, "", known.strata, reason=missing)
    n_bad = int(np.isnan(values).sum())
    note = f"{n_bad} particles without a number are left out" if n_bad else ""
    return Factor(name, " and ".join(labels), known.strata, values=values[:, None], note=note)


def _checked(
    symmetries: Mapping[int, str], classes: NDArray[np.int64] | None, sources: RunSources
) -> Mapping[int, str]:
    known = [] if classes is None else np.unique(classes).tolist()
    for number, symmetry in symmetries.items():
        if number not in known:
            raise InputError(
                "a symmetry is given for a class that is not there",
                file=sources.run.path,
                expected="class " + ", ".join(map(str, known)) if known else "a run with classes",
                found=str(number),
                remedy="name classes by number, for example --symmetry 1=D7, after `cryodc cluster`",
            )
        try:
            symmetry_rotations(symmetry)
        except ValueError as error:
            raise InputError(
                f"class {number}: {error}", file=sources.run.path, expected=POINT_GROUPS, remedy="correct --symmetry"
            ) from error
    return symmetries
