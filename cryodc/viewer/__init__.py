"""The napari viewer: a run to look at and to act on; the only room that knows napari and Qt."""

from cryodc.viewer.window import open_viewer, run_viewer

__all__ = [
    "open_viewer",
    "run_viewer",
]
