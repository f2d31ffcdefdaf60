"""A page of square panels: where each is pasted, names, titles and the scale bar."""

import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryodc.figures.volumes import scale_bar_angstrom

_DPI = 130
_GAP = 0.06
_EDGE = 0.8
_READ_AT = 8.0
INK, SOFT = "#1b1f24", "#5b6570"


class PanelPage:
    """Square panels in rows, with names at the left and titles above; a small gap parts groups of panels.

    Lengths are in inches. Panels are pasted into one image: that is much quicker than an axis for each.
    """

    def __init__(
        self, n_rows: int, n_columns: int, *, left: float, above: float, group: int, lead: int, edge: float = _EDGE
    ) -> None:
        self.group, self.edge, self.lead = group, edge, lead
        panels = self._x(n_columns - 1) + edge + _GAP
        # Pages are shown at one width: where there are many panels, texts are larger, to be read there.
        self.enlarged = max(1.0, (left + panels) / _READ_AT)
        self.left, self.above = left * self.enlarged, above * self.enlarged
        width = self.left + panels
        height = self.above + n_rows * (edge + _GAP)
        self.pixels = np.ones((round(height * _DPI), round(width * _DPI), 3))
        self.width, self.height = self.pixels.shape[1] / _DPI, self.pixels.shape[0] / _DPI
        self.figure = Figure(figsize=(self.width, self.height), dpi=_DPI)

    def show(self, row: int, column: int, panel: NDArray[Any], limits: tuple[float, float] | None) -> None:
        """One panel; without limits its values are colours.

        Parameters
        ----------
        row, column
            Where.
        panel
            What is drawn.
        limits
            Grey values of black and white.
        """
        edge = round(self.edge * _DPI)
        top, left = round(self._y(row) * _DPI), round((self.left + self._x(column)) * _DPI)
        low, high = limits or (0.0, 1.0)
        shown = torch.from_numpy((np.atleast_3d(panel)[..., :3].astype(np.float64) - low) / (high - low))
        fine = F.interpolate(shown.permute(2, 0, 1)[None], size=(edge, edge), mode="bicubic", align_corners=False)
        self.pixels[top : top + edge, left : left + edge] = fine[0].permute(1, 2, 0).flip(0).clamp(0, 1).numpy()

    def label_row(self, row: int, text: str, colour: str) -> None:
        """A name at the left of a row."""
        place = 0.08 / self.width, 1 - (self._y(row) + self.edge / 2) / self.height
        self.figure.text(*place, text, color=colour, fontsize=8 * self.enlarged, va="center", linespacing=1.3)

    def title(self, column: int, n_columns: int, text: str) -> None:
        """A title above some columns."""
        middle = self.left + (self._x(column) + self._x(column + n_columns - 1) + self.edge) / 2
        place = middle / self.width, 1 - 0.5 * self.above / self.height
        self.figure.text(*place, text, color=SOFT, fontsize=8 * self.enlarged, ha="center", va="center")

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
        size = min(6.5 * self.enlarged, 14 * self.edge)
        self.figure.text(*place, f"{length:g} Å", color="white", fontsize=size, zorder=3)

    def png(self) -> bytes:
        """The whole page."""
        axes = self.figure.add_axes((0, 0, 1, 1), zorder=-1)
        axes.set_axis_off()
        axes.imshow(self.pixels, interpolation="nearest", aspect="auto")
        return figure_png(self.figure)

    def _x(self, column: int) -> float:
        groups = column // self.group
        return column * (self.edge + _GAP / 3) + 2 * _GAP * groups + (2 * _GAP if self.lead and groups else 0)

    def _y(self, row: int) -> float:
        return self.above + row * (self.edge + _GAP)


def figure_png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
