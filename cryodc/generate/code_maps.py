"""Two-dimensional maps of codes, of one run or of several side by side, coloured by class, tomogram or truth."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from cryodc.errors import InputError
from cryodc.figures import class_name, maps_png, principal_plane
from cryodc.generate.encoded_run import EncodedRun
from cryodc.simulation import read_truth

MapKind = Literal["pca", "tsne"]
"""Principal components, or t-SNE (van der Maaten & Hinton 2008)."""
MOST_FOR_TSNE = 5000
_TITLES = {"content": "content codes", "transformation": "transformation codes"}
ColourGroups = Mapping[str, Sequence[int]]
"""Rows of the particles of each group, by its name."""


def map_codes(
    points: Float[NDArray[np.float32], "n dims"], how: MapKind = "pca", *, seed: int = 0
) -> Float[NDArray[np.float64], "n 2"]:
    """Codes as they are compared (:attr:`cryodc.codes.Codes.content_points`), in two dimensions.

    Raises
    ------
    InputError
        If t-SNE is asked for more than 5000 particles.
    """
    if how == "pca" or len(points) < 5:
        return principal_plane(points)[0]
    if len(points) > MOST_FOR_TSNE:
        raise InputError(
            "too many particles for t-SNE",
            expected=f"at most {MOST_FOR_TSNE}",
            found=str(len(points)),
            remedy="use --map pca",
        )
    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(tsne.fit_transform(points), dtype=np.float64)


def groupings(encoded: EncodedRun, truth: Path | None = None) -> dict[str, ColourGroups]:
    """Everything particles can be coloured by: class, tomogram where there are several, truth where it is given.

    Raises
    ------
    InputError
        If the truth is damaged, or does not name every particle.
    """
    n = len(encoded.codes)
    numbers = [encoded.class_number(row) for row in range(n)]
    found = {"class": _grouped([class_name(number) for number in sorted(set(numbers))], map(class_name, numbers))}
    tomograms = encoded.previews.particles.tomograms
    if len(set(tomograms)) > 1:
        found["tomogram"] = _grouped(sorted(set(tomograms)), tomograms)
    if truth is not None:
        found["truth"] = _by_truth(encoded, truth)
    return found


def maps_picture(encoded: EncodedRun, how: MapKind = "pca", *, truth: Path | None = None, seed: int = 0) -> bytes:
    """Content and transformation codes of one run, a column for each grouping, as a PNG.

    Parameters
    ----------
    encoded
        The run.
    how
        How codes are brought to two dimensions.
    truth
        truth.csv of a simulation, to colour by.
    seed
        Of t-SNE.

    Raises
    ------
    InputError
        As :func:`map_codes` and :func:`groupings`.
    """
    coloured = groupings(encoded, truth)
    rows, groups = [], []
    for kind, title in _TITLES.items():
        points = map_codes(getattr(encoded.codes, f"{kind}_points"), how, seed=seed)
        rows.append([(f"{title} by {name}", points) for name in coloured])
        groups.append(list(coloured.values()))
    return maps_png(rows, groups)


def comparison_picture(
    runs: Sequence[EncodedRun], how: MapKind = "pca", *, truth: Path | None = None, seed: int = 0
) -> bytes:
    """Codes of several runs side by side, a column for each run, coloured by truth where it is given, else by class.

    Parameters
    ----------
    runs
        The runs, a row each.
    how
        How codes are brought to two dimensions.
    truth
        truth.csv of a simulation, to colour by.
    seed
        Of t-SNE.

    Raises
    ------
    InputError
        As :func:`map_codes` and :func:`groupings`.
    """
    coloured = [groupings(encoded, truth) for encoded in runs]
    chosen = [found["class" if truth is None else "truth"] for found in coloured]
    rows = []
    for kind, title in _TITLES.items():
        points = [map_codes(getattr(encoded.codes, f"{kind}_points"), how, seed=seed) for encoded in runs]
        names = [run_name(encoded) for encoded in runs]
        rows.append([(f"{name}\n{title}", found) for name, found in zip(names, points, strict=True)])
    return maps_png(rows, [chosen, chosen])


def run_name(encoded: EncodedRun) -> str:
    """How a run is called in a comparison: the last two parts of its path."""
    return " / ".join(encoded.run.path.resolve().parts[-2:])


def _by_truth(encoded: EncodedRun, path: Path) -> ColourGroups:
    truth = read_truth(path)
    label = {name: truth.proteins[int(i)] for name, i in zip(truth.names, truth.labels, strict=True)}
    unknown = [name for name in encoded.codes.names if name not in label]
    if unknown:
        raise InputError(
            "the truth does not name every particle of the run",
            file=path,
            expected=f"{len(encoded.codes)} particles of {encoded.run.path}",
            found=f"{len(unknown)} missing, for example {unknown[0]}",
            remedy="name the truth.csv these particles were simulated with",
        )
    return _grouped(list(truth.proteins), [label[name] for name in encoded.codes.names])


def _grouped(names: Sequence[str], members: Iterable[str]) -> ColourGroups:
    rows: dict[str, list[int]] = {name: [] for name in names}
    for row, name in enumerate(members):
        rows[name].append(row)
    return {name: found for name, found in rows.items() if found}
