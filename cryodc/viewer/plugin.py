"""What napari finds in napari.yaml: readers of run folders and of STAR files, and the dock for a run that is open."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryodc.errors import InputError
from cryodc.runs import RunFolder
from cryodc.viewer.layers import LayerData, run_layers, star_layers
from cryodc.viewer.session import Session

if TYPE_CHECKING:
    import napari

    from cryodc.viewer.dock import CodesDock

_RUN = "cryodc run"
_NOTHING: list[Any] = [(None,)]
"""What npe2 takes for a file that was read and holds no layer."""

Reader = Callable[[str | list[str]], list[LayerData]]


def get_run_reader(path: str | list[str]) -> Reader | None:
    """A reader of run folders; None for every other path."""
    return _read_run if isinstance(path, str) and (Path(path) / "config.yaml").is_file() else None


def get_star_reader(path: str | list[str]) -> Reader | None:
    """A reader of the places of particles in a STAR; None for every other path."""
    return _read_star if isinstance(path, str) and path.lower().endswith(".star") else None


def codes_widget(napari_viewer: "napari.Viewer") -> "CodesDock":
    """The codes, sets and classes of the run that was opened last in a viewer.

    Raises
    ------
    InputError
        If no run is open.
    """
    from cryodc.viewer.dock import CodesDock

    runs = [layer.metadata[_RUN] for layer in napari_viewer.layers if _RUN in layer.metadata]
    if not runs:
        raise InputError("no run is open", remedy="open a run folder that has averages, or start with `cryodc view`")
    return CodesDock(Session.open(RunFolder(Path(runs[-1]))), napari_viewer)


def _read_run(path: str | list[str]) -> list[LayerData]:
    run = RunFolder(Path(str(path)))
    layers = run_layers(run)
    for _, how, _ in layers:
        how["metadata"] = {_RUN: str(run.path.resolve())}
    return layers or _NOTHING


def _read_star(path: str | list[str]) -> list[LayerData]:
    return star_layers(Path(str(path))) or _NOTHING
