"""The scatter of codes as a Qt widget: a line is dragged, a code clicked; the wheel zooms, the right button moves."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from cryodc.viewer.raster import View, nearest_point, scatter_image, view_of_all

_CLICK_PIXELS = 4
_REACH_PIXELS = 12


class Scatter(QWidget):
    """Codes of every particle; says which was clicked, and what line was drawn, in the plane of the codes."""

    clicked = Signal(int)
    outlined = Signal(object)

    def __init__(self, points: Float[NDArray[np.float64], "n 2"], colours: UInt8[NDArray[np.uint8], "n 3"]) -> None:
        super().__init__()
        self.points, self.colours = points, colours
        self.marked: Bool[NDArray[np.bool_], " n"] | None = None
        self.shown_row: int | None = None
        self.view: View | None = None
        self._picture: QImage | None = None
        self._line: list[tuple[float, float]] = []
        self._drag: tuple[float, float] | None = None
        self.setMinimumSize(260, 200)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setToolTip("drag: a line round codes · click: a particle · wheel: zoom · right button: move")
        self.setAccessibleName("codes of all particles")

    @property
    def radius_pixels(self) -> int:
        """Of a point: smaller where there are many."""
        return 3 if len(self.points) < 3000 else 2 if len(self.points) < 30_000 else 1

    def recolour(self, colours: UInt8[NDArray[np.uint8], "n 3"]) -> None:
        """Give every point another colour."""
        self.colours = colours
        self._redraw()

    def mark(self, marked: Bool[NDArray[np.bool_], " n"] | None) -> None:
        """Let these points stand out."""
        self.marked = marked
        self._redraw()

    def point_to(self, row: int) -> None:
        """Draw a ring round one point."""
        self.shown_row = row
        self.update()

    def pixel_of(self, row: int) -> tuple[float, float]:
        """Where a point lies in the widget."""
        right, down = self._current_view().to_pixels(self.points[row : row + 1])[0]
        return float(right), float(down)

    def paintEvent(self, event: Any) -> None:  # noqa: N802
        """Draw the points, which are kept as a picture until they change, and the line over them."""
        if self._picture is None:
            image = scatter_image(self.points, self.colours, self._current_view(), self.radius_pixels, self.marked)
            height, width = image.shape[:2]
            pixels = np.ascontiguousarray(image)
            self._picture = QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
        painter = QPainter(self)
        painter.drawImage(0, 0, self._picture)
        painter.setPen(QPen(QColor("black"), 1.5))
        if self.shown_row is not None:
            painter.drawEllipse(QPointF(*self.pixel_of(self.shown_row)), 7, 7)
        if len(self._line) > 1:
            painter.drawPolygon(QPolygonF([QPointF(*corner) for corner in self._line]))
        painter.end()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """Fit all points into the new size."""
        self.view = None
        self._redraw()

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802
        """Begin a line, or a move with the right button."""
        at = event.position()
        if event.button() == Qt.MouseButton.LeftButton:
            self._line = [(at.x(), at.y())]
        else:
            self._drag = (at.x(), at.y())

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802
        """Go on with either."""
        at = event.position()
        if self._drag is not None:
            self.view = self._current_view().moved(at.x() - self._drag[0], at.y() - self._drag[1])
            self._drag = (at.x(), at.y())
            self._redraw()
        elif self._line:
            self._line.append((at.x(), at.y()))
            self.update()

    def mouseReleaseEvent(self, event: Any) -> None:  # noqa: N802
        """Say what was drawn: a line, or where the mouse hardly moved, a click."""
        line, self._line, self._drag = self._line, [], None
        if not line:
            return
        corners = np.array(line)
        if np.ptp(corners, axis=0).max() > _CLICK_PIXELS:
            self.outlined.emit([tuple(corner) for corner in self._current_view().to_plane(corners).tolist()])
        else:
            row = nearest_point(self.points, self._current_view(), line[0], _REACH_PIXELS)
            if row is not None:
                self.clicked.emit(row)
        self.update()

    def mouseDoubleClickEvent(self, event: Any) -> None:  # noqa: N802
        """See all points again."""
        self.view = None
        self._redraw()

    def wheelEvent(self, event: Any) -> None:  # noqa: N802
        """Zoom about the pointer."""
        at = event.position()
        self.view = self._current_view().zoomed(1.0015 ** event.angleDelta().y(), (at.x(), at.y()))
        self._redraw()

    def _current_view(self) -> View:
        self.view = self.view or view_of_all(self.points, max(1, self.width()), max(1, self.height()))
        return self.view

    def _redraw(self) -> None:
        self._picture = None
        self.update()
