"""The front of the page in plain words: what was found, what not to trust and why, and what to do next."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryodc.clustering import STABLE
from cryodc.evaluation import LeakageTable
from cryodc.export import classes_text
from cryodc.runs import Clusters, RunFolder, StatesSummary

_FEW = 20
_UNSURE = 0.8
_FROM_ONE = 0.9


@dataclass(frozen=True)
class Step:
    """Something to do next, and the command that does it."""

    text: str
    command: str


@dataclass(frozen=True)
class Findings:
    """What someone who did not run it should know.

    Parameters
    ----------
    found
        Sentences: classes, structures, resolution, states.
    doubts
        What not to trust, and why, a sentence or two each.
    steps
        What to do next, the most useful first.
    """

    found: list[str]
    doubts: list[str]
    steps: list[Step]


def at_voxel_limit(resolution_angstrom: float | None, spacing_angstrom: float) -> bool:
    """Whether a resolution is that of the voxels: half maps agree as far as there is anything to compare.

    Examples
    --------
    >>> at_voxel_limit(20.0, 10.0), at_voxel_limit(24.0, 10.0), at_voxel_limit(None, 10.0)
    (True, False, False)
    """
    return resolution_angstrom is not None and resolution_angstrom <= 2.01 * spacing_angstrom


def resolution_text(resolution_angstrom: float | None, spacing_angstrom: float) -> str:
    """A resolution in words; a dash where there is none.

    Examples
    --------
    >>> resolution_text(20.0, 10.0)
    '20.0 Å, limited by the voxel size'
    """
    if resolution_angstrom is None:
        return "–"
    limited = ", limited by the voxel size" if at_voxel_limit(resolution_angstrom, spacing_angstrom) else ""
    return f"{resolution_angstrom:.1f} Å{limited}"


def describe(
    run: RunFolder,
    tomograms: Sequence[str],
    spacing_angstrom: float,
    clusters: Clusters | None,
    averages: dict[str, Any] | None,
    states: dict[int, StatesSummary],
    leakage: LeakageTable | None,
    *,
    flat: bool,
    stale: bool,
    of_training: Sequence[str],
) -> Findings:
    """Put a run in plain words.

    Parameters
    ----------
    run
        Named in the commands.
    tomograms
        Of each particle.
    spacing_angstrom
        Of the voxels.
    clusters, averages, states, leakage
        What the run has; none of an earlier one.
    flat
        Whether the particles are images.
    stale
        Whether there are averages, of earlier classes.
    of_training
        What training could not do, and why, a sentence or two each.
    """
    rows = [] if averages is None else averages["classes"]
    return Findings(
        _found(tomograms, spacing_angstrom, clusters, rows, states, flat),
        [
            *_doubts_of_classes(tomograms, clusters, flat),
            *_doubts_of_averages(spacing_angstrom, clusters, averages, stale, flat),
            *_doubts_of_codes(leakage),
            *of_training,
        ],
        _steps(run, clusters, rows, states, flat),
    )


def _found(
    tomograms: Sequence[str],
    spacing: float,
    clusters: Clusters | None,
    rows: list[dict[str, Any]],
    states: dict[int, StatesSummary],
    flat: bool,
) -> list[str]:
    origins = "micrograph" if flat else "tomogram"
    among = f"{len(tomograms):,} particles of {_count(len(set(tomograms)), origins)}"
    if clusters is None:
        return [f"{among}, not sorted into classes yet."]
    told = [f"{_count(clusters.n_clusters, 'class', 'es')} among {among}."]
    if clusters.n_clusters == 1 and not clusters.n_unassigned:
        told = [f"One class: nothing was found that tells {among} apart."]
        if not clusters.trials:
            told = [f"One class of {among}: it was not tested whether they are several."]
    aligned = [row for row in rows if row["aligned"] and row["resolution_angstrom"] is not None]
    proteins = [row for row in aligned if row["verdict"] == "protein"]
    if rows and not flat:
        told.append(f"{_of_them(len(aligned), len(rows))} an average whose two halves agree, so a structure.")
        if len(proteins) < len(aligned):
            looking = "None looks" if not proteins else "One looks" if len(proteins) == 1 else f"{len(proteins)} look"
            told.append(f"{looking} like a protein.")
    if proteins:
        best = min(proteins, key=lambda row: row["resolution_angstrom"])
        told.append(
            f"The finest protein is class {best['class']}, at {resolution_text(best['resolution_angstrom'], spacing)}."
        )
    for number, summary in states.items():
        told.append(
            f"Class {number} is in {_count(summary.n_states, 'state')}"
            + (f", and varies along {_count(summary.axes_supported, 'ax', 'es', 'is')}." if summary.axes else ".")
        )
    return told


def _doubts_of_classes(tomograms: Sequence[str], clusters: Clusters | None, flat: bool) -> list[str]:
    if clusters is None:
        return []
    told = []
    if clusters.stability < STABLE and not clusters.forced:
        told.append(
            "Which particles are in which class changes when a fifth of the particles is left out (agreement "
            f"{max(clusters.stability, 0):.2f}, where 1 is the same classes and 0 is chance). Take the classes for a "
            "proposal: look at them, and compare with one class less."
        )
    if clusters.n_clusters > len(clusters.labels) / 10 and clusters.n_clusters > 1:
        told.append(
            f"{clusters.n_clusters} classes of {len(clusters.labels)} particles are fewer than ten each: too few to "
            "tell a class from chance."
        )
    few = [label + 1 for label, size in enumerate(clusters.sizes) if size < _FEW]
    if few:
        told.append(f"{_classes(few)} fewer than {_FEW} particles: too few to trust a map or a share.")
    means = {label + 1: clusters.mean_confidence(label) for label in range(clusters.n_clusters)}
    unsure = [number for number, mean in means.items() if mean is not None and mean < _UNSURE]
    if unsure:
        told.append(f"{_classes(unsure)} members that may belong to another class: their mean confidence is below 0.8.")
    from_one = _from_one_tomogram(tomograms, clusters)
    if from_one:
        told.append(
            f"Nearly all particles of {', '.join(f'class {number} ({name})' for number, name in from_one)} come from "
            f"one {'micrograph' if flat else 'tomogram'}: it may be a class of that and not of a protein."
        )
    if clusters.n_unassigned:
        told.append(
            f"{clusters.n_unassigned:,} particles are in no class, because none explains them better than noise would. "
            "Shares are of the others."
        )
    return told


def _from_one_tomogram(tomograms: Sequence[str], clusters: Clusters) -> list[tuple[int, str]]:
    names, codes = np.unique(np.array(tomograms, dtype=object).astype(str), return_inverse=True)
    if len(names) < 2:
        return []
    overall = np.bincount(codes, minlength=len(names)) / len(codes)
    found = []
    for label, size in enumerate(clusters.sizes):
        share = np.bincount(codes[clusters.labels == label], minlength=len(names)) / max(size, 1)
        top = int(share.argmax())
        if size >= _FEW / 2 and share[top] >= _FROM_ONE and overall[top] < _FROM_ONE / 2:
            found.append((label + 1, names[top] or "unnamed"))
    return found


def _doubts_of_averages(
    spacing: float, clusters: Clusters | None, averages: dict[str, Any] | None, stale: bool, flat: bool
) -> list[str]:
    if flat or clusters is None:
        return []
    if averages is None:
        earlier = "The averages are of earlier classes. " if stale else ""
        return [f"{earlier}No class has been averaged, so none has been tested against its own particles."]
    told = []
    failed = [row["class"] for row in averages["classes"] if not row["aligned"]]
    if failed:
        told.append(
            f"{_classes(failed)} no structure: the two halves of the particles do not give the same map. More than one "
            "protein, too few particles or too much noise all look like this."
        )
    odd = [row for row in averages["classes"] if row["aligned"] and row["verdict"] != "protein"]
    told += [f"Class {row['class']} may be no protein, but {row['verdict']}: {row['reason']}." for row in odd]
    limited = [row["class"] for row in averages["classes"] if at_voxel_limit(row["resolution_angstrom"], spacing)]
    if limited:
        told.append(
            f"{_classes(limited)} a resolution that is limited by the voxel size ({2 * spacing:g} Å is the finest that "
            "voxels of this size can hold): the particles may hold more."
        )
    if any(row["aligned"] for row in averages["classes"]) and "not gold standard" in averages["half_sets"]:
        told.append(f"Resolutions may be too good: the half sets are {averages['half_sets']}.")
    classification = averages.get("classification") or {}
    return [*told, *classification.get("warnings", [])]


def _doubts_of_codes(leakage: LeakageTable | None) -> list[str]:
    if leakage is None or not leakage.leaks:
        return []
    listed = ", ".join(f"“{row.title[0].lower()}{row.title[1:]}”" for row in leakage.leaks)
    return [
        f"The codes that classes are made of also tell {listed}. A class may be one of that and not of a protein: "
        "trust most what is found in every tomogram."
    ]


def _steps(
    run: RunFolder,
    clusters: Clusters | None,
    rows: list[dict[str, Any]],
    states: dict[int, StatesSummary],
    flat: bool,
) -> list[Step]:
    where = shlex.quote(str(run.path))
    if clusters is None:
        return [Step("Sort the particles into classes.", f"cryodc cluster {where}")]
    if flat:
        return [Step("Decode what the network has learned of each class.", f"cryodc generate {where}")]
    if not rows:
        return [Step("Average each class, and see whether its two halves agree.", f"cryodc average {where}")]
    aligned = [row["class"] for row in rows if row["aligned"] and row["verdict"] == "protein"]
    failed = [row["class"] for row in rows if not row["aligned"]]
    steps = []
    if aligned:
        chosen = classes_text(aligned)
        steps.append(
            Step(
                "Refine the classes that look like proteins in RELION.",
                f"cryodc export {where} --relion --class {chosen} --out for_relion",
            )
        )
        unasked = [number for number in aligned if number not in states]
        if unasked:
            steps.append(Step(f"Ask whether class {unasked[0]} moves.", f"cryodc states {where} --class {unasked[0]}"))
    if failed:
        steps.append(Step("Try the alignment from more starts.", f"cryodc average {where} --starts 6"))
    steps.append(
        Step(
            "Or draw a lasso around points under Codes, download the list, and average it by itself.",
            f"cryodc select {where} --names set1.txt --out-run picked",
        )
    )
    return steps


def _count(n: int, noun: str, plural: str = "s", singular: str = "") -> str:
    return f"{n:,} {noun}{singular if n == 1 else plural}"


def _of_them(n: int, total: int) -> str:
    if n == total:
        return "It has" if total == 1 else "Each has"
    return "None has" if n == 0 else f"{n} of them {'has' if n == 1 else 'have'}"


def _classes(numbers: Sequence[int]) -> str:
    """``Class 3 has`` or ``Classes 3, 4 and 7 have``."""
    if len(numbers) == 1:
        return f"Class {numbers[0]} has"
    if len(numbers) > 8:
        return f"{len(numbers)} classes ({', '.join(map(str, numbers[:6]))} …) have"
    return f"Classes {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} have"
