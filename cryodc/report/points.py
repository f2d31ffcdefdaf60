"""The particles as points of the page: where their codes lie, what colours them, their rows, and their pictures."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.image import imsave
from numpy.typing import NDArray

from cryodc.codes import Codes
from cryodc.figures import ParticlePreviews, class_colour, colour_columns, name_column, principal_plane, star_of_now
from cryodc.report.embed import data_uri, packed, packed_json
from cryodc.runs import Clusters, RunFolder
from cryodc.star import StarBlock, StarDocument, find_particle_block, read_star

_MOST_BYTES = 7_000_000
"""Of rows of the STAR, packed; above it the page holds names alone."""
_THUMB = 32
_MOST_THUMBS = 800
_COLUMNS = 40


@dataclass(frozen=True)
class Points:
    """What the page's scatters are drawn of.

    Parameters
    ----------
    about
        Names, groups and colours, packed JSON.
    data
        Packed bytes by name: ``content`` and ``transformation``, ``(n, 2)`` uint16; ``labels``, ``(n,)`` int16;
        ``confidence``, ``(n,)`` uint8; ``rows``, the rows of the STAR, or the names.
    thumbs
        A picture of ``_COLUMNS`` cells a row: central slices of some particles, low-passed.
    n_thumbs
        How many.
    panels
        Of the scatters that there are: name, title and axes.
    whole
        Whether the rows of the STAR are there.
    """

    about: str
    data: dict[str, str]
    thumbs: str
    n_thumbs: int
    panels: list[dict[str, str]]
    whole: bool


def make_points(run: RunFolder, codes: Codes, clusters: Clusters | None, previews: ParticlePreviews) -> Points:
    """Gather what the scatters show, in the order of the run's STAR.

    Parameters
    ----------
    run
        Whose STAR has the columns to colour by.
    codes
        Drawn along their two principal axes.
    clusters
        Classes of the particles; None if there are none.
    previews
        Slices of particles, shown where the pointer is.
    """
    panels, data = [], {}
    kinds = {"content": codes.content_points}
    if codes.transformation_told.shape[1] > 0:
        kinds["transformation"] = codes.transformation_points
    for name, points in kinds.items():
        plane, shares = principal_plane(points)
        axes = [f"PC {i} · {share:.0%} of the variance" for i, share in enumerate(shares, start=1)]
        panels.append({"name": name, "title": f"{name.capitalize()} codes", "x": axes[0], "y": axes[1]})
        data[name] = packed(_quantised(plane).tobytes())
    n = len(codes)
    labels = np.zeros(n) if clusters is None else clusters.labels + 1
    data["labels"] = packed(labels.astype("<i2").tobytes())
    if clusters is not None and not clusters.forced:
        data["confidence"] = packed(np.round(255 * np.clip(clusters.confidence, 0, 1)).astype(np.uint8).tobytes())
    document = read_star(star_of_now(run, clusters))
    block = find_particle_block(document)
    rows = packed("\n".join(document.lines[i].rstrip("\r\n") for i in block.row_lines.tolist()).encode())
    whole = len(rows) <= _MOST_BYTES
    data["rows"] = rows if whole else packed("\n".join(codes.names).encode())
    drawn, thumbs = _thumbs(previews, labels.astype(np.int64))
    about = {
        "n": n,
        "panels": panels,
        "colours": [class_colour(number) for number in range(int(labels.max()) + 1)],
        "classed": clusters is not None,
        "origin": "micrograph" if previews.dims == 2 else "tomogram",
        "tomograms": _groups(previews.particles.tomograms),
        "columns": [asdict(column) for column in colour_columns(block)] if whole else [],
        "name": name_column(block) if whole else 0,
        "star": _around(document, block) if whole else None,
        "thumbs": {"rows": drawn, "size": _THUMB, "across": _COLUMNS, "slices": 1 if previews.dims == 2 else 3},
    }
    return Points(packed_json(about), data, thumbs, len(drawn), panels, whole)


def _around(document: StarDocument, block: StarBlock) -> list[str]:
    """What stands before the rows, and after them."""
    lines = block.row_lines.tolist()
    return ["".join(document.lines[: lines[0]]), "".join(document.lines[lines[-1] + 1 :])]


def _groups(names: Sequence[str]) -> dict[str, Any]:
    """Distinct names, and which each particle has, packed."""
    distinct = list(dict.fromkeys(names))
    at = {name: i for i, name in enumerate(distinct)}
    which = np.array([at[name] for name in names], dtype="<i4")
    return {"names": [name or "unnamed" for name in distinct], "which": packed(which.tobytes())}


def _quantised(plane: Float[NDArray[np.float64], "n 2"]) -> NDArray[np.uint16]:
    """Points as whole numbers on one scale for both axes, 0 to 65535."""
    low, high = plane.min(axis=0), plane.max(axis=0)
    middle, reach = (low + high) / 2, max(float((high - low).max()) / 2, 1e-12)
    return np.round((plane - middle) / reach * 32767 + 32767.5).astype("<u2")


def _thumbs(previews: ParticlePreviews, labels: NDArray[np.int64]) -> tuple[list[int], str]:
    """Central slices of particles drawn at random, and their rows; fewer where boxes are large."""
    n = len(labels)
    box = previews.particles.box_size
    dims = previews.dims
    most = int(np.clip(_MOST_THUMBS * (48 / box) ** dims, 100, _MOST_THUMBS))
    drawn = np.sort(np.random.default_rng(0).permutation(n)[:most])
    rows, cells = [], []
    for row in drawn.tolist():
        shown = previews.show(row)
        if shown.filtered is not None and shown.raw is not None:
            rows.append(row)
            cells.append(_thumb(shown.raw if dims == 2 else shown.filtered))
        elif not rows and row == drawn[min(20, len(drawn) - 1)]:
            break
    if not rows:
        return [], ""
    height, width = cells[0].shape
    sheet = np.zeros((-(-len(cells) // _COLUMNS) * height, min(_COLUMNS, len(cells)) * width), np.uint8)
    for i, cell in enumerate(cells):
        top, left = i // _COLUMNS * height, i % _COLUMNS * width
        sheet[top : top + height, left : left + width] = cell
    buffer = io.BytesIO()
    imsave(buffer, sheet, cmap="gray", vmin=0, vmax=255)
    return rows, data_uri(buffer.getvalue())


def _thumb(voxels: Float[NDArray[np.float32], "*image"]) -> NDArray[np.uint8]:
    """The central slices along z, y and x below each other, or the image; rows run upwards."""
    image = voxels.mean(axis=0) if voxels.ndim == 3 and len(voxels) == 3 else voxels
    centre = len(image) // 2
    slices = [image] if image.ndim == 2 else [image[centre], image[:, centre], image[:, :, centre]]
    stack = torch.from_numpy(np.stack([np.ascontiguousarray(part[::-1]) for part in slices]))[None]
    small = F.interpolate(stack.float(), size=(_THUMB, _THUMB), mode="area")[0].numpy()
    low, high = np.percentile(small, [1, 99.5])
    grey = np.clip((small - low) / max(float(high - low), 1e-9), 0, 1) * 255
    return grey.reshape(-1, _THUMB).astype(np.uint8)
