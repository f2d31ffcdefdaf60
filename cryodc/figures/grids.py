"""Pictures of many cells side by side: transfer grids, traversals, particles slice by slice, maps of codes.

A cell is a volume ``(d, h, w)`` or an image ``(h, w)`` or ``(3, h, w)``. Rows of a picture run upwards, as in
:mod:`cryodc.figures.volumes`; protein is white. Cells of one row of a grid share their grey values, as do all of a
traversal.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cryodc.figures.panels import INK, SOFT, PanelPage, figure_png
from cryodc.figures.volumes import class_colour

PictureKind = Literal["slices", "projection"]
"""How a volume becomes a cell: its three central slices along z, y and x, or its mean along z."""
Cell = NDArray[np.float32]
_MOST_SLICES = 48


def cell_panels(cell: Cell, view: PictureKind) -> list[NDArray[np.float32]]:
    """The pictures of one cell, ``(h, w)`` or ``(h, w, 3)`` each: one of an image, one or three of a volume."""
    if cell.ndim == 2:
        return [cell]
    if cell.shape[0] == 3:
        return [np.moveaxis(cell, 0, -1)]
    if view == "projection":
        return [cell.mean(axis=0)]
    z, y, x = (edge // 2 for edge in cell.shape)
    return [cell[z], cell[:, y], cell[:, :, x]]


def grid_png(
    cells: Float[NDArray[np.float32], "rows columns *shape"],
    *,
    view: PictureKind = "slices",
    row_particles: Sequence[Cell | None] | None = None,
    column_particles: Sequence[Cell | None] | None = None,
    row_names: Sequence[str] = (),
    row_colours: Sequence[str] = (),
    box_angstrom: float = 0,
) -> bytes:
    """A transfer grid as a PNG: content codes down, transformation codes across.

    Parameters
    ----------
    cells
        Decoded.
    row_particles, column_particles
        The particles whose codes they are, drawn left of and above the grid with grey values of their own; a None
        among them leaves its place empty, none at all leaves out the row or column.
    row_names, row_colours
        At the left of each row.
    view
        How volumes are drawn.
    box_angstrom
        Width of a cell, for the scale bar; 0 where it is not known.
    """
    n_rows, n_columns = len(cells), len(cells[0])
    n_panels = len(cell_panels(cells[0][0], view))
    lead, top = int(row_particles is not None), int(column_particles is not None)
    page = PanelPage(n_rows + top, (n_columns + lead) * n_panels, left=0.8, above=0.3, group=n_panels, lead=lead)
    for i, row in enumerate(cells):
        limits = _grey_limits([panel for cell in row for panel in cell_panels(cell, view)])
        for j, cell in enumerate(row):
            for k, panel in enumerate(cell_panels(cell, view)):
                page.show(i + top, (j + lead) * n_panels + k, panel, limits)
    for i, particle in enumerate(row_particles or ()):
        _show_particle(page, i + top, 0, particle, view)
    for j, particle in enumerate(column_particles or ()):
        _show_particle(page, 0, (j + lead) * n_panels, particle, view)
    page.scale_bar(top, lead * n_panels, box_angstrom)
    for i, name in enumerate(row_names):
        page.label_row(i + top, name, row_colours[i] if row_colours else INK)
    if lead:
        page.title(0, n_panels, "content of")
    page.title(lead * n_panels, n_columns * n_panels, "transformation of" if top else "transformation codes")
    return page.png()


def traversal_png(
    axes: Sequence[tuple[str, Float[NDArray[np.float32], "n *shape"]]],
    *,
    view: PictureKind = "slices",
    colour: str = INK,
    box_angstrom: float = 0,
) -> bytes:
    """Traversals as a PNG: along each axis the cells, below them what is more (red) or less (blue) than in the middle.

    Parameters
    ----------
    axes
        For each axis its name and its cells, ``(n, *shape)``, n odd.
    view
        Of every cell.
    colour
        Of the names.
    box_angstrom
        Width of a cell, for the scale bar; 0 where it is not known.
    """
    steps = [[cell_panels(cell, view) for cell in cells] for _, cells in axes]
    n_steps, n_panels = len(steps[0]), len(steps[0][0])
    page = PanelPage(2 * len(axes), n_steps * n_panels, left=1.15, above=0.3, group=n_panels, lead=0)
    limits = _grey_limits([panel for cells in steps for panels in cells for panel in panels])
    for a, ((name, _), cells) in enumerate(zip(axes, steps, strict=True)):
        middle = cells[n_steps // 2]
        differences = [[p - m for p, m in zip(panels, middle, strict=True)] for panels in cells]
        largest = max(float(np.percentile(np.abs(np.stack(panels)), 99.8)) for panels in differences)
        for j, panels in enumerate(cells):
            for k, panel in enumerate(panels):
                page.show(2 * a, j * n_panels + k, panel, limits)
                page.show(2 * a + 1, j * n_panels + k, _diverging(differences[j][k], largest), None)
        page.label_row(2 * a, name, colour)
        page.label_row(2 * a + 1, "less the middle", SOFT)
    page.scale_bar(0, 0, box_angstrom)
    for j, quantile in enumerate(np.linspace(5, 95, n_steps)):
        page.title(j * n_panels, n_panels, f"{quantile:.0f} %")
    return page.png()


def gallery_png(rows: Sequence[tuple[str, str, Sequence[Cell]]], *, box_angstrom: float = 0) -> bytes:
    """Images in rows as a PNG, each with grey values of its own.

    Parameters
    ----------
    rows
        Name, colour and images of each row.
    box_angstrom
        Width of an image, for the scale bar; 0 where it is not known.
    """
    page = PanelPage(
        len(rows), max(len(images) for _, _, images in rows), left=0.8, above=0.05, group=1, lead=0, edge=0.6
    )
    for i, (name, colour, images) in enumerate(rows):
        for j, image in enumerate(images):
            page.show(i, j, image, _grey_limits([image]))
        page.label_row(i, name, colour)
    page.scale_bar(0, 0, box_angstrom)
    return page.png()


def slices_png(rows: Sequence[tuple[str, str, Cell]], *, box_angstrom: float = 0) -> bytes:
    """Every z slice of volumes, low z first, as a PNG; above 48 slices evenly spaced ones.

    Parameters
    ----------
    rows
        Name, colour and volume of each row; an image is one slice.
    box_angstrom
        Width of a volume, for the scale bar; 0 where it is not known.
    """
    shown = [(name, colour, _z_slices(cell)) for name, colour, cell in rows]
    n_columns = max(len(slices) for _, _, slices in shown)
    page = PanelPage(len(shown), n_columns, left=1.25, above=0.05, group=n_columns, lead=0, edge=0.42)
    for i, (name, colour, slices) in enumerate(shown):
        limits = _grey_limits(slices)
        for j, panel in enumerate(slices):
            page.show(i, j, panel, limits)
        page.label_row(i, name, colour)
    page.scale_bar(0, 0, box_angstrom)
    return page.png()


def slice_step(box_size: int) -> int:
    """Step between the z slices that :func:`slices_png` shows.

    Examples
    --------
    >>> slice_step(32), slice_step(64)
    (1, 2)
    """
    return -(-box_size // _MOST_SLICES)


def maps_png(
    maps: Sequence[Sequence[tuple[str, Float[NDArray[np.float64], "n 2"]]]],
    groups: Sequence[Sequence[Mapping[str, Sequence[int]]]],
) -> bytes:
    """Two-dimensional maps of codes as a PNG, one panel for each, coloured by group.

    Parameters
    ----------
    maps
        Rows of panels, each with its title and its points.
    groups
        For each panel its groups: name and rows. Names ``class N`` take the class's colour, others a colour of a
        sequence in their order.
    """
    n_rows, n_columns = len(maps), len(maps[0])
    figure = Figure(figsize=(3.4 * n_columns, 3.3 * n_rows + 0.3), dpi=150, layout="constrained")
    figure.patch.set_facecolor("white")
    for i, row in enumerate(maps):
        for j, (title, points) in enumerate(row):
            axes = figure.add_subplot(n_rows, n_columns, i * n_columns + j + 1)
            _scatter(axes, points, groups[i][j])
            axes.set_title(title, fontsize=9, color=INK)
    return figure_png(figure)


def _show_particle(page: PanelPage, row: int, column: int, particle: Cell | None, view: PictureKind) -> None:
    if particle is not None:
        panels = cell_panels(particle, view)
        limits = _grey_limits(panels)
        for k, panel in enumerate(panels):
            page.show(row, column + k, panel, limits)


def _z_slices(cell: Cell) -> list[NDArray[np.float32]]:
    return cell_panels(cell, "slices") if cell.ndim == 2 or len(cell) == 3 else list(cell[:: slice_step(len(cell))])


def _grey_limits(panels: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    low, high = np.percentile(np.concatenate([panel.ravel() for panel in panels]), [0.5, 99.8])
    return float(low), float(max(high, low + 1e-9))


def _diverging(panel: NDArray[np.float32], largest: float) -> NDArray[np.float64]:
    """Red for more, blue for less, white for no difference, as colours."""
    shown = panel.mean(axis=-1) if panel.ndim == 3 else panel
    return np.asarray(colormaps["RdBu_r"](0.5 + 0.5 * shown / max(largest, 1e-9)), dtype=np.float64)


def _scatter(axes: Axes, points: Float[NDArray[np.float64], "n 2"], groups: Mapping[str, Sequence[int]]) -> None:
    size = float(np.clip(40 / np.sqrt(max(len(points), 1)) * 4, 2, 18))
    handles = []
    for position, (name, rows) in enumerate(groups.items()):
        colour = _group_colour(name, position, len(groups))
        chosen = points[list(rows)]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=size, color=colour, linewidths=0, alpha=0.8, rasterized=True)
        handles.append(Line2D([], [], marker="o", ls="", color=colour, ms=4, label=name))
    if len(handles) <= 14:
        axes.legend(handles=handles, fontsize=6.5, frameon=False, loc="best", handletextpad=0.1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", "datalim")
    for spine in axes.spines.values():
        spine.set_color("#dcdfe3")


def _group_colour(name: str, position: int, n_groups: int) -> Any:
    number = name.removeprefix("class ")
    if number.isdigit():
        return class_colour(int(number))
    if n_groups <= 12:
        return class_colour(position + 1)
    return colormaps["viridis"](0.05 + 0.85 * position / max(n_groups - 1, 1))
