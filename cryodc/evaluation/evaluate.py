"""A run against a known truth: composition, poses, and the averages against the true maps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.evaluation.agreement import MapAgreement, compare_maps
from cryodc.evaluation.disentanglement import Disentanglement, disentangle
from cryodc.evaluation.factors import true_factors
from cryodc.evaluation.leakage import LeakageTable, measure_leakage, run_leakage
from cryodc.evaluation.scores import CompositionScores, PoseErrors, composition_scores, pose_errors
from cryodc.evaluation.sources import RunSources
from cryodc.geometry import POINT_GROUPS, symmetry_rotations
from cryodc.io import read_volume
from cryodc.particles import Poses, read_particles
from cryodc.runs import RunFolder, current_averages, load_clusters, load_codes
from cryodc.simulation import Truth, read_map, read_truth
from cryodc.star import particle_block, read_star, read_whole_numbers


@dataclass(frozen=True)
class ClassEvaluation:
    """One final class.

    Parameters
    ----------
    number
        rlnClassNumber.
    protein, symmetry
        The protein most of its particles are, and the symmetry its poses are judged by.
    n_particles, purity
        Size, and the share of that protein.
    poses
        Errors over the particles of that protein.
    agreement
        Of the class average with the true map; None where there is no map.
    half_map_resolution_angstrom, aligned
        What the run states itself: the resolution of the half maps, None if there is none, and whether it was aligned.
    """

    number: int
    protein: str
    symmetry: str
    n_particles: int
    purity: float
    poses: PoseErrors | None
    agreement: MapAgreement | None
    half_map_resolution_angstrom: float | None
    aligned: bool | None


@dataclass(frozen=True)
class Evaluation:
    """Everything about a run that the truth can judge; final classes where it has averages, codes where they are.

    Parameters
    ----------
    clusters, final_classes, classes
        Composition, and each class.
    disentanglement
        ``D(factor | code)`` and SAP of protein, pose and state.
    leakage, leakage_without_truth
        With the true poses and proteins; and what a user without them sees.
    """

    clusters: CompositionScores
    final_classes: CompositionScores | None = None
    classes: list[ClassEvaluation] = field(default_factory=list)
    disentanglement: list[Disentanglement] = field(default_factory=list)
    leakage: LeakageTable | None = None
    leakage_without_truth: LeakageTable | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain numbers and lists; what is infinite or missing is None."""
        return {
            "clusters": _rounded(asdict(self.clusters)),
            "final_classes": None if self.final_classes is None else _rounded(asdict(self.final_classes)),
            "classes": [_class_json(row) for row in self.classes],
            "disentanglement": [row.to_json() for row in self.disentanglement],
            "leakage": None if self.leakage is None else self.leakage.to_json(),
            "leakage_without_truth": None
            if self.leakage_without_truth is None
            else self.leakage_without_truth.to_json(),
        }


def evaluate_run(
    run: RunFolder,
    truth_file: Path,
    *,
    symmetries: Mapping[str, str] | None = None,
    maps: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Compare a run with the truth, matched by particle name.

    Parameters
    ----------
    run
        Clustered; averaged too for poses and maps.
    truth_file
        truth.csv.
    symmetries
        Point group by protein; wins over the truth's own.
    maps
        True map by protein; others are looked for as ``maps/<protein>.mrc`` beside the truth.

    Raises
    ------
    InputError
        If the two do not name the same particles, a protein or symmetry is unknown, or a file is bad.
    """
    truth = read_truth(truth_file)
    groups = _symmetries(truth, symmetries or {}, truth_file)
    _require_known(maps or {}, truth, truth_file)
    clusters = load_clusters(run)
    order = match_names(clusters.names, truth, truth_file)
    result = Evaluation(composition_scores(clusters.labels, truth.labels[order]))
    if run.codes.exists():
        result = _with_codes(result, run, truth, truth_file, groups)
    averages = current_averages(run)
    if averages is None:
        return result
    names, numbers, poses = _final_particles(run)
    order = match_names(names, truth, truth_file)
    labels = truth.labels[order]
    classes = []
    for number in np.unique(numbers[numbers > 0]).tolist():
        members = np.flatnonzero(numbers == number)
        protein_label = int(np.bincount(labels[members]).argmax())
        protein = truth.proteins[protein_label]
        own = members[labels[members] == protein_label]
        errors = None if poses is None else pose_errors(poses[own], truth.poses[order[own]], groups[protein])
        average = run.averages / f"class{number:03d}.mrc"
        true_map = (maps or {}).get(protein, truth_file.parent / "maps" / f"{protein}.mrc")
        found = averages.of_class(number)
        classes.append(
            ClassEvaluation(
                number,
                protein,
                groups[protein],
                len(members),
                len(own) / len(members),
                errors,
                _compare_files(average, true_map, required=protein in (maps or {})),
                None if found is None else found.resolution_angstrom,
                None if found is None else found.aligned,
            )
        )
    return replace(result, final_classes=composition_scores(numbers, labels), classes=classes)


def match_names(names: tuple[str, ...], truth: Truth, truth_file: Path) -> Int[NDArray[np.int64], " n"]:
    """Row of the truth for each particle of a run.

    Raises
    ------
    InputError
        If a particle is not in the truth, or the truth holds others.
    """
    row = {name: i for i, name in enumerate(truth.names)}
    unknown = [name for name in names if name not in row]
    missing = sorted(set(truth.names) - set(names))
    for problem, listed in (
        ("the truth does not know every particle of the run", unknown),
        ("the run lacks particles of the truth", missing),
    ):
        if listed:
            raise InputError(
                problem,
                file=truth_file,
                expected=f"the same {len(names)} names as in the run",
                found=f"{len(listed)} differ, for example {listed[0]}",
                remedy="give the truth.csv of the simulation this run was trained on",
            )
    return np.array([row[name] for name in names], dtype=np.int64)


def _with_codes(
    result: Evaluation, run: RunFolder, truth: Truth, truth_file: Path, groups: Mapping[str, str]
) -> Evaluation:
    codes = load_codes(run)
    order = match_names(codes.names, truth, truth_file)
    factors = true_factors(RunSources(run, codes.names), truth, order, groups)
    orientation = next(factor for factor in factors if factor.name == "orientation")
    return replace(
        result,
        disentanglement=disentangle(codes, truth, order, orientation),
        leakage=measure_leakage(codes, factors),
        leakage_without_truth=run_leakage(run),
    )


def _final_particles(run: RunFolder) -> tuple[tuple[str, ...], NDArray[np.int64], Poses | None]:
    path = run.averages / "particles.star"
    particles = read_particles(path, check_images=False)
    document = read_star(path)
    numbers = read_whole_numbers(document, particle_block(document), "rlnClassNumber")
    return particles.names, numbers, particles.poses


def _compare_files(average: Path, true_map: Path, required: bool) -> MapAgreement | None:
    if not average.exists() or not (required or true_map.exists()):
        return None
    return compare_maps(read_volume(average), read_map(true_map))


def _symmetries(truth: Truth, given: Mapping[str, str], truth_file: Path) -> dict[str, str]:
    _require_known(given, truth, truth_file)
    groups = dict(zip(truth.proteins, truth.symmetries, strict=True)) | dict(given)
    for protein, symmetry in groups.items():
        try:
            symmetry_rotations(symmetry)
        except ValueError as error:
            raise InputError(
                f"protein {protein}: {error}",
                file=truth_file,
                expected=POINT_GROUPS,
                remedy="correct --symmetry, or the column symmetry of the truth",
            ) from error
    return groups


def _require_known(given: Mapping[str, object], truth: Truth, truth_file: Path) -> None:
    unknown = sorted(set(given) - set(truth.proteins))
    if unknown:
        raise InputError(
            "no such protein in the truth", file=truth_file, expected=", ".join(truth.proteins), found=unknown[0]
        )


def _class_json(row: ClassEvaluation) -> dict[str, Any]:
    poses, agreement = row.poses, row.agreement
    content = {
        "class": row.number,
        "protein": row.protein,
        "symmetry": row.symmetry,
        "n_particles": row.n_particles,
        "purity": row.purity,
        "pose_error_median_degrees": None if poses is None else poses.median_degrees,
        "pose_share_below_10_degrees": None if poses is None else poses.share_close,
        "shift_error_median_angstrom": None if poses is None else poses.median_shift_angstrom,
        "fsc_to_truth_0.5_angstrom": None if agreement is None else agreement.resolution_angstrom,
        "fsc_to_truth_0.5_fraction_of_nyquist": None if agreement is None else agreement.fraction_of_nyquist,
        "half_map_resolution_angstrom": row.half_map_resolution_angstrom,
        "aligned": row.aligned,
    }
    if agreement is not None:
        content["fsc_to_truth"] = [round(float(value), 4) for value in agreement.fsc]
    return _rounded(content)


def _rounded(content: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (round(value, 4) if np.isfinite(value) else None) if isinstance(value, float) else value
        for name, value in content.items()
    }
