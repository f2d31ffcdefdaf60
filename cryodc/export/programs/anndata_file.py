"""Codes, embedding, coordinates and every column of the STAR as one AnnData file, which scanpy and its friends open."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.export.named import particle_names
from cryodc.export.rows import current_star
from cryodc.figures import principal_plane
from cryodc.io import atomic_path
from cryodc.particles import has_coordinates, read_positions
from cryodc.runs import (
    NO_NAME,
    RunFolder,
    classes_if_any,
    current_averages,
    current_names,
    damaged,
    fingerprint_of_averages,
    fingerprint_of_clusters,
    fingerprint_of_codes,
    load_codes,
    load_config,
)
from cryodc.star import StarBlock, find_particle_block, numbers_of, read_star

_WHOLE = re.compile(r"[+-]?\d{1,18}")


def export_anndata(run: RunFolder, out: Path) -> int:
    """Write the particles of a run as ``.h5ad``, in the order of its STAR; how many.

    ``X`` has the content codes as they are clustered. ``obsm`` has ``X_transformation``, ``X_pca`` (the two principal
    components of the content codes, as the report draws them), ``spatial`` (x, y, z in Å, where the STAR has
    coordinates) and, where codes are made of templates, ``X_network_content`` and ``X_network_transformation``.
    ``obs`` has every column of the STAR by its name, whole numbers, numbers or text; and ``class`` (0 for none),
    ``confidence``, ``verdict`` and ``name`` (by identify), as far as the run has them. ``uns["cryodc"]`` says what it
    was made of.

    Parameters
    ----------
    run
        A trained run; clustered and averaged, or not.
    out
        The file to write; it must not exist.

    Raises
    ------
    InputError
        If ``out`` exists, anndata is not installed, or a file of the run is missing, stale or damaged.
    """
    try:
        import anndata
        import h5py
    except ImportError as error:
        raise InputError(
            "anndata is not installed", remedy="in your clone of cryodc: pip install '.[anndata]'"
        ) from error
    if out.exists():
        raise InputError("refusing to overwrite", file=out, remedy="choose another name, or remove this file")
    document = read_star(current_star(run))
    block = find_particle_block(document)
    names = particle_names(block)
    try:
        codes = load_codes(run).select(names)
    except KeyError as error:
        raise damaged(document.source, "cryodc train", f"{error.args[0]}, which has no code") from error
    points = codes.content_points
    embeddings: dict[str, NDArray[Any]] = {
        "X_pca": principal_plane(points)[0],
        "X_transformation": codes.transformation_points,
    }
    if codes.template_content is not None and codes.of_network:
        embeddings |= {"X_network_content": codes.content, "X_network_transformation": codes.transformation}
    about = _about(run)
    if has_coordinates(block):
        positions = read_positions(document, block)
        spacing = float(load_config(run)["dataset"]["spacing_angstrom"])
        embeddings["spatial"] = np.ascontiguousarray(positions.angstrom(spacing)[:, ::-1])
        origin = "centre" if positions.frame.from_centre else "first voxel"
        about["spatial"] = f"x, y, z in Å from the {origin} of the tomogram"
    table = anndata.AnnData(
        X=points,
        obs=_table(names, _columns(block) | _classes(run, names)),
        var=_table([f"content_{i}" for i in range(1, points.shape[1] + 1)], {}),
        obsm=embeddings,
        uns={"cryodc": about},
    )
    # The temporary is locked already, and HDF5 would lock it again.
    with atomic_path(out) as temporary, h5py.File(temporary, "w", locking=False) as file:
        anndata.io.write_elem(file, "/", table)
    return len(names)


def typed(cells: Sequence[str]) -> NDArray[Any]:
    """A column as whole numbers if all its cells are, else as numbers if all are, else as text.

    Examples
    --------
    >>> [typed(cells).dtype.name for cells in (["1", "-2"], ["1", "2.0"], ["1", "x"])]
    ['int64', 'float64', 'object']
    """
    if all(_WHOLE.fullmatch(cell) for cell in cells):
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    numbers = numbers_of(cells)
    return np.array(cells, dtype=object) if np.isnan(numbers).any() else numbers


def _columns(block: StarBlock) -> dict[str, NDArray[Any]]:
    unnamed = next((label for label in block.labels if "/" in label), None)
    if unnamed is not None:
        raise InputError(
            "a column of the STAR has a name that no column of an h5ad file can have",
            expected="no slash",
            found=unnamed,
            remedy="rename the column",
        )
    return {label: typed(cells) for label, cells in block.columns(block.labels).items()}


def _classes(run: RunFolder, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Class, confidence and verdict of each particle, as far as the run has them."""
    clusters, averages = classes_if_any(run), current_averages(run)
    if clusters is None:
        return {}
    row = {name: i for i, name in enumerate(clusters.names)}
    order = np.array([row[name] for name in names], dtype=np.int64)
    numbers = clusters.labels[order] + 1
    columns: dict[str, NDArray[Any]] = {"class": numbers, "confidence": clusters.confidence[order]}
    known = current_names(run)
    if known:
        columns["name"] = np.array([known.get(number, NO_NAME) for number in numbers.tolist()], dtype=object)
    if averages is not None:
        verdicts = {entry.class_number: entry.verdict for entry in averages.classes}
        columns["verdict"] = np.array([verdicts.get(number, "unassigned") for number in numbers.tolist()], dtype=object)
    return columns


def _about(run: RunFolder) -> dict[str, str]:
    about = {"run": str(run.path.resolve()), "codes": fingerprint_of_codes(run)}
    if classes_if_any(run) is not None:
        about["clusters"] = fingerprint_of_clusters(run)
    if current_averages(run) is not None:
        about["averages"] = fingerprint_of_averages(run)
    return about


def _table(names: Sequence[str], columns: dict[str, NDArray[Any]]) -> pd.DataFrame:
    """Text as objects: what pandas 3 makes of it, anndata before 0.13 cannot write."""
    index = pd.Index(list(names), dtype=object)
    series = {label: pd.Series(values, index=index, dtype=values.dtype) for label, values in columns.items()}
    return pd.DataFrame(series, index=index)
