"""A napari viewer whose Home and sliders go by the layers that are shown."""

from typing import Any

import napari
import numpy as np
from numpy.typing import NDArray


class RunViewer(napari.Viewer):  # type: ignore[misc]
    """As napari's, but hidden layers count neither for the view nor for sliders, and a look at 3D leaves the plane."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.layers.events.inserted.connect(self._follow)
        self.layers.events.removed.connect(lambda _: self._limit_sliders())
        self.dims.events.range.connect(lambda _: self._limit_sliders())
        self._plane = self.dims.point
        self.dims.events.ndisplay.connect(self._keep_plane, position="last")

    def _sliced_extent_world_augmented(self, layers: Any = None) -> NDArray[np.float64]:
        """What napari fits into the canvas: by default of the layers that are shown; of all, where none is."""
        shown = layers or [layer for layer in self.layers if layer.visible] or list(self.layers)
        if not shown:
            return np.asarray(super()._sliced_extent_world_augmented(layers))
        # A layer lacks the axes that come before its own, such as time: it lies all along them.
        missing = [self.dims.ndim - layer.ndim for layer in shown]
        extents = [
            np.pad(layer._extent_augmented.world, ((0, 0), (n, 0))) for layer, n in zip(shown, missing, strict=True)
        ]
        whole = np.stack([np.min(extents, axis=0)[0], np.max(extents, axis=0)[1]])
        return np.asarray(whole[:, list(self.dims.displayed)])

    def _keep_plane(self, event: Any) -> None:
        """Show the plane that was shown before the view in 3D: napari's sliders, shown again, begin at the first."""
        if event.value == 3:
            self._plane = self.dims.point
        elif len(self._plane) == self.dims.ndim:
            self.dims.point = self._plane

    def _follow(self, event: Any) -> None:
        event.value.events.visible.connect(lambda _: self._limit_sliders())
        self._limit_sliders()

    def _limit_sliders(self) -> None:
        """Let each slider go from the first to the last plane that some layer shows; without any it is hidden."""
        shown = [layer for layer in self.layers if layer.visible]
        if not shown:
            return
        n_dims = self.dims.ndim
        first, last, step = np.full(n_dims, np.inf), np.full(n_dims, -np.inf), np.full(n_dims, np.inf)
        for layer in shown:
            own = slice(n_dims - layer.ndim, n_dims)
            first[own] = np.minimum(first[own], layer.extent.world[0])
            last[own] = np.maximum(last[own], layer.extent.world[1])
            step[own] = np.minimum(step[own], layer.extent.step)
        none = ~np.isfinite(first)
        first[none], last[none], step[none] = 0, 0, 1
        ranges = tuple((float(a), float(b), float(s)) for a, b, s in zip(first, last, step, strict=True))
        if any(not np.allclose(old, new) for old, new in zip(self.dims.range, ranges, strict=True)):
            before = self.dims.point
            self.dims.range = ranges
            # With another step napari's sliders would move to another plane.
            self.dims.point = tuple(np.clip(p, low, high) for p, (low, high, _) in zip(before, ranges, strict=True))
