"""The scatter of codes as a picture, and which codes lie within a line: for hundreds of thousands of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib import colormaps
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from cryodc.figures import class_colour

BACKGROUND = 255
_FAINT = 0.25


@dataclass(frozen=True)
class View:
    """What part of the plane a picture shows.

    Parameters
    ----------
    centre
        Point of the plane, (right, up), in the middle of the picture.
    pixels_per_unit
        Magnification, the same both ways.
    width, height
        Of the picture, in pixels.
    """

    centre: tuple[float, float]
    pixels_per_unit: float
    width: int
    height: int

    def to_pixels(self, points: Float[NDArray[np.float64], "n 2"]) -> Float[NDArray[np.float64], "n 2"]:
        """(right, down) in pixels."""
        middle = np.array([self.width / 2, self.height / 2])
        return (points - self.centre) * np.array([1, -1]) * self.pixels_per_unit + middle

    def to_plane(self, pixels: Float[NDArray[np.float64], "n 2"]) -> Float[NDArray[np.float64], "n 2"]:
        """The inverse of :meth:`to_pixels`."""
        middle = np.array([self.width / 2, self.height / 2])
        return (pixels - middle) * np.array([1, -1]) / self.pixels_per_unit + self.centre

    def zoomed(self, factor: float, at: tuple[float, float]) -> "View":
        """Magnified, with what lies at a pixel staying there."""
        fixed = self.to_plane(np.array([at], dtype=np.float64))[0]
        right, up = fixed + (np.array(self.centre) - fixed) / factor
        return View((float(right), float(up)), self.pixels_per_unit * factor, self.width, self.height)

    def moved(self, right: float, down: float) -> "View":
        """With the points moved by so many pixels."""
        x, y = self.centre
        scale = self.pixels_per_unit
        return View((x - right / scale, y + down / scale), scale, self.width, self.height)


def view_of_all(points: Float[NDArray[np.float64], "n 2"], width: int, height: int) -> View:
    """The view in which every point is seen, with a margin of a twentieth."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum(high - low, 1e-9)
    right, up = (low + high) / 2
    return View((float(right), float(up)), float(0.9 * min(width / extent[0], height / extent[1])), width, height)


def point_colours(classes: Int[NDArray[np.int64], " n"]) -> UInt8[NDArray[np.uint8], "n 3"]:
    """Colour of each class number, as everywhere."""
    numbers, place = np.unique(classes, return_inverse=True)
    named = [class_colour(int(number)) for number in numbers]
    return np.array([list(bytes.fromhex(name[1:])) for name in named], dtype=np.uint8)[place]


def value_colours(values: Float[NDArray[np.float64], " n"]) -> UInt8[NDArray[np.uint8], "n 3"]:
    """Colour of each number, from the least (dark) to the largest (yellow)."""
    low, high = values.min(), values.max()
    parts = (values - low) / max(high - low, 1e-300)
    return np.asarray(colormaps["viridis"](parts, bytes=True)[:, :3], dtype=np.uint8)


def scatter_image(
    points: Float[NDArray[np.float64], "n 2"],
    colours: UInt8[NDArray[np.uint8], "n 3"],
    view: View,
    radius_pixels: int,
    chosen: Bool[NDArray[np.bool_], " n"] | None = None,
) -> UInt8[NDArray[np.uint8], "h w 3"]:
    """Draw points as discs on white; those that are not chosen pale, if some are.

    Of several points at one pixel the last is seen, and a chosen one rather than another.

    Parameters
    ----------
    points, colours
        Of every particle.
    view
        What is shown.
    radius_pixels
        Of a disc; 0 is a pixel.
    chosen
        The particles that are marked.
    """
    pixels = view.to_pixels(points).astype(np.int32)
    inside = (pixels[:, 0] >= 0) & (pixels[:, 0] < view.width) & (pixels[:, 1] >= 0) & (pixels[:, 1] < view.height)
    rows = np.flatnonzero(inside)
    if chosen is not None and chosen.any():
        rows = np.concatenate([rows[~chosen[rows]], rows[chosen[rows]]])
    place = pixels[rows, 1] * np.int32(view.width) + pixels[rows, 0]
    # At each pixel the row that is seen, from 1; a disc is drawn by moving this picture, so its cost is that of pixels.
    seen = np.zeros(view.width * view.height, dtype=np.int32)
    seen[place] = np.arange(1, len(rows) + 1, dtype=np.int32)
    discs = _grow(seen.reshape(view.height, view.width), radius_pixels)
    paint = colours[rows].astype(np.float32)
    if chosen is not None and chosen.any():
        pale = ~chosen[rows]
        paint[pale] = BACKGROUND + _FAINT * (paint[pale] - BACKGROUND)
    palette = np.concatenate([np.full((1, 3), BACKGROUND, dtype=np.uint8), paint.astype(np.uint8)])
    return palette[discs]


def within_outline(
    points: Float[NDArray[np.float64], "n 2"], outline: Sequence[tuple[float, float]]
) -> Int[NDArray[np.int64], " k"]:
    """Rows of the points that lie within a closed line; none where the line has fewer than three corners."""
    corners = np.array(outline, dtype=np.float64).reshape(-1, 2)
    if len(corners) < 3:
        return np.zeros(0, dtype=np.int64)
    near = np.flatnonzero(((points >= corners.min(axis=0)) & (points <= corners.max(axis=0))).all(axis=1))
    return near[Outline(corners).contains_points(points[near])]


def nearest_point(
    points: Float[NDArray[np.float64], "n 2"], view: View, pixel: tuple[float, float], most_pixels: float
) -> int | None:
    """Row of the point nearest to a pixel; None where there is none within a distance.

    Parameters
    ----------
    points
        ``(n, 2)`` in the plane of the codes.
    view
        What of the plane is shown.
    pixel
        Where the pointer is.
    most_pixels
        The distance.
    """
    distances = np.linalg.norm(points - view.to_plane(np.array([pixel], dtype=np.float64)), axis=1)
    row = int(distances.argmin())
    return row if distances[row] * view.pixels_per_unit <= most_pixels else None


def _grow(seen: Int[NDArray[np.int32], "h w"], radius: int) -> Int[NDArray[np.int32], "h w"]:
    grown = np.zeros_like(seen)
    padded = np.pad(seen, radius)
    height, width = seen.shape
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            if down**2 + right**2 <= radius**2 + 1:
                top, left = radius + down, radius + right
                np.maximum(grown, padded[top : top + height, left : left + width], out=grown)
    return grown
