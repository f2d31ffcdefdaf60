"""The window: a run in napari, with its codes, sets and classes in a dock."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cryodc.runs import RunFolder
from cryodc.viewer.display import require_display
from cryodc.viewer.layers import run_layers
from cryodc.viewer.session import Session

if TYPE_CHECKING:
    import napari


def open_viewer(run: RunFolder, *, show: bool = True, tell: Callable[[str], None] = lambda _: None) -> "napari.Viewer":
    """Open a run in napari; the caller starts the event loop.

    The canvas holds every class average as a volume in its class's colour, in Å, and below them the particle that was
    clicked. Half maps, masks, states, axes and traversals are hidden in the same place. The dock holds the content
    codes, the sets of particles chosen on them, and the classes.

    Parameters
    ----------
    run
        Trained; clustered and averaged or not.
    show
        Whether a window appears.
    tell
        Told what is left out, a line at a time.

    Raises
    ------
    InputError
        If napari is not installed, there is no display, or the run has not been trained.
    """
    session = Session.open(run)
    layers = run_layers(run, tell)
    require_display()
    from qtpy.QtCore import QTimer

    from cryodc.viewer.dock import CodesDock
    from cryodc.viewer.framing import RunViewer

    viewer = RunViewer(title=f"cryodc · {run.path.resolve().name}", show=show)
    if (run.averages / "summary.json").exists() and not session.averaged:
        viewer.title += " · averages of an earlier clustering are left out"
    for data, how, _ in layers:
        viewer.add_image(data, **how)
    dock = CodesDock(session, viewer)
    viewer.window.add_dock_widget(dock, name="codes and classes", area="right")
    dock.show_particle(0)
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.dims.ndisplay = 2
    # States put a time axis before z.
    viewer.dims.set_point(viewer.dims.ndim - 3, session.box_angstrom / 2)
    # When the window has its size.
    QTimer.singleShot(0, viewer.window._qt_window, viewer.reset_view)
    return viewer


def run_viewer(run: RunFolder, tell: Callable[[str], None] = lambda _: None) -> None:
    """Open a run in napari and stay until its window is closed.

    Parameters
    ----------
    run, tell
        As in :func:`open_viewer`.

    Raises
    ------
    InputError
        As :func:`open_viewer`.
    """
    open_viewer(run, tell=tell)
    import napari

    napari.run()
