"""Pictures of many cells side by side: transfer grids, traversals, particles slice by slice, maps of codes.

A cell is a volume ``(d, h, w)`` or an image ``(h, w)`` or ``(3, h, w)``. Rows of a picture run upwards, as in
:mod:`cryodc.figures.volumes`; protein is white. Cells of one row of a grid share their grey values, as do all of a
traversal.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cryodc.figures.volumes import class_colour, scale_bar_angstrom

View = Literal["slices", "projection"]
"""How a volume becomes a cell: its three central slices along z, y and x, or its mean along z."""
Cell = NDArray[np.float32]
_DPI = 130
_GAP = 0.06
_EDGE = 0.8
_MOST_SLICES = 48
_INK, _SOFT = "#1b1f24", "#5b6570"


def cell_panels(cell: Cell, view: View) -> list[NDArray[np.float32]]:
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
    view: View = "slices",
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
    box_angstrom
        Width of a cell, for the scale bar; 0 where it is not known.
    """
    n_rows, n_columns = len(cells), len(cells[0])
    n_panels = len(cell_panels(cells[0][0], view))
    lead, top = int(row_particles is not None), int(column_particles is not None)
    page = _Page(n_rows + top, (n_columns + lead) * n_panels, left=0.8, above=0.3, group=n_panels, lead=lead)
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
        page.label_row(i + top, name, row_colours[i] if row_colours else _INK)
    if lead:
        page.title(0, n_panels, "content of")
    page.title(lead * n_panels, n_columns * n_panels, "transformation of" if top else "transformation codes")
    return page.png()


def traversal_png(
    axes: Sequence[tuple[str, Float[NDArray[np.float32], "n *shape"]]],
    *,
    view: View = "slices",
    colour: str = _INK,
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
    page = _Page(2 * len(axes), n_steps * n_panels, left=1.15, above=0.3, group=n_panels, lead=0)
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
        page.label_row(2 * a + 1, "less the middle", _SOFT)
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
    page = _Page(len(rows), max(len(images) for _, _, images in rows), left=0.8, above=0.05, group=1, lead=0, edge=0.6)
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
    page = _Page(len(shown), n_columns, left=1.25, above=0.05, group=n_columns, lead=0, edge=0.42)
    for i, (name, colour, slices) in enumerate(shown):
        limits = _grey_limits(slices)
        for j, panel in enumerate(slices):
            page.show(i, j, panel, limits)
        page.label_row(i, name, colour)
    page.scale_bar(0, 0, box_angstrom)
    return page.png()


def slice_step(box_size: int) -> int:
    """Every how manyth z slice :func:`slices_png` shows.

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
            axes.set_title(title, fontsize=9, color=_INK)
    return _png(figure)


class _Page:
    """Square panels in rows, with names at the left and titles above; a small gap parts groups of panels.

    Lengths are in inches. Panels are pasted into one image, which is quicker than axes of their own by far.
    """

    def __init__(
        self, n_rows: int, n_columns: int, *, left: float, above: float, group: int, lead: int, edge: float = _EDGE
    ) -> None:
        self.left, self.above, self.group, self.edge, self.lead = left, above, group, edge, lead
        width = left + self._x(n_columns - 1) + edge + _GAP
        height = above + n_rows * (edge + _GAP)
        self.pixels = np.ones((round(height * _DPI), round(width * _DPI), 3))
        self.width, self.height = self.pixels.shape[1] / _DPI, self.pixels.shape[0] / _DPI
        self.figure = Figure(figsize=(self.width, self.height), dpi=_DPI)

    def show(self, row: int, column: int, panel: NDArray[Any], limits: tuple[float, float] | None) -> None:
        """One panel; without limits its values are colours."""
        edge = round(self.edge * _DPI)
        top, left = round(self._y(row) * _DPI), round((self.left + self._x(column)) * _DPI)
        low, high = limits or (0.0, 1.0)
        shown = torch.from_numpy((np.atleast_3d(panel)[..., :3].astype(np.float64) - low) / (high - low))
        fine = F.interpolate(shown.permute(2, 0, 1)[None], size=(edge, edge), mode="bicubic", align_corners=False)
        self.pixels[top : top + edge, left : left + edge] = fine[0].permute(1, 2, 0).flip(0).clamp(0, 1).numpy()

    def label_row(self, row: int, text: str, colour: str) -> None:
        """A name at the left of a row."""
        place = 0.08 / self.width, 1 - (self._y(row) + self.edge / 2) / self.height
        self.figure.text(*place, text, color=colour, fontsize=8, va="center", linespacing=1.3)

    def title(self, column: int, n_columns: int, text: str) -> None:
        """A title above some columns."""
        middle = self.left + (self._x(column) + self._x(column + n_columns - 1) + self.edge) / 2
        place = middle / self.width, 1 - 0.5 * self.above / self.height
        self.figure.text(*place, text, color=_SOFT, fontsize=8, ha="center", va="center")

    def scale_bar(self, row: int, column: int, box_angstrom: float) -> None:
        """A scale bar in one panel; none where the width of the box is not known."""
        if box_angstrom <= 0:
            return
        length = scale_bar_angstrom(box_angstrom)
        n_pixels = round(self.edge * length / box_angstrom * _DPI)
        bottom = round((self._y(row) + 0.95 * self.edge) * _DPI)
        left = round((self.left + self._x(column) + 0.05 * self.edge) * _DPI)
        self.pixels[bottom - 5 : bottom + 1, left - 1 : left + n_pixels + 1] = 0
        self.pixels[bottom - 4 : bottom, left : left + n_pixels] = 1
        place = left / _DPI / self.width, 1 - (bottom - 7) / _DPI / self.height
        self.figure.text(*place, f"{length:g} Å", color="white", fontsize=min(6.5, 12 * self.edge), zorder=3)

    def png(self) -> bytes:
        """The whole page."""
        axes = self.figure.add_axes((0, 0, 1, 1), zorder=-1)
        axes.set_axis_off()
        axes.imshow(self.pixels, interpolation="nearest", aspect="auto")
        return _png(self.figure)

    def _x(self, column: int) -> float:
        groups = column // self.group
        return column * (self.edge + _GAP / 3) + 2 * _GAP * groups + (2 * _GAP if self.lead and groups else 0)

    def _y(self, row: int) -> float:
        return self.above + row * (self.edge + _GAP)


def _show_particle(page: _Page, row: int, column: int, particle: Cell | None, view: View) -> None:
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


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
