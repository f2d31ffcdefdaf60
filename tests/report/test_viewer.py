import ctypes
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from cryodc.clustering import cluster_run
from cryodc.errors import InputError
from cryodc.io import read_volume
from cryodc.runs import RunFolder, load_run_particles

_NO_DISPLAY = "no display: run under xvfb-run with QT_QPA_PLATFORM=xcb"


@pytest.fixture(scope="module", autouse=True)
def none_outlives_napari():
    """On Python 3.11 napari 0.9 gives back references to None that it never took; at its end the interpreter aborts."""
    keep = ctypes.pythonapi.Py_IncRef
    keep.argtypes = [ctypes.py_object]
    keep.restype = None
    for _ in range(1_000_000):
        keep(None)


@pytest.fixture(scope="module")
def viewer(small_run: Path):
    # One for all tests: on Python 3.11 napari 0.9 takes some thousand references to None with each viewer it closes.
    if not os.environ.get("DISPLAY"):
        if os.environ.get("CRYODC_REQUIRE_VIEWER") == "1":
            pytest.fail(_NO_DISPLAY)
        pytest.skip(_NO_DISPLAY)
    if os.environ.get("CRYODC_REQUIRE_VIEWER") != "1":
        pytest.importorskip("napari")
    with warnings.catch_warnings():
        # napari's settings use options that pydantic has deprecated; they are read on import.
        warnings.simplefilter("ignore", DeprecationWarning)
        import napari

        _ = napari.Viewer
    from cryodc.report.viewer import open_viewer

    opened = open_viewer(RunFolder(small_run))
    yield opened
    opened.close()


def test_a_run_is_shown_and_a_click_shows_its_particle(viewer, small_run: Path) -> None:
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    run = RunFolder(small_run)
    particles = load_run_particles(run)
    average = read_volume(run.averages / "class001.mrc")
    layer = viewer.layers["class 1 average"]
    np.testing.assert_array_equal(layer.data, average.voxels)
    np.testing.assert_allclose(layer.scale, [average.spacing_angstrom] * 3)
    assert {str(unit) for layer in viewer.layers for unit in layer.units} == {"angstrom"}
    assert not viewer.layers["class 1 half map 1"].visible
    assert not viewer.layers["class 1 mask"].visible
    codes, particle = viewer.layers["content codes"], viewer.layers["particle"]
    assert list(codes.features["name"]) == list(particles.names)
    assert len(codes.data) == len(particles)

    canvas = viewer.window._qt_viewer.canvas
    before = particle.data.copy()
    for row, plane in ((7, 0.5), (20, 0.2)):
        # Codes answer in every slice.
        viewer.dims.set_point(0, plane * average.box_size * average.spacing_angstrom)
        QApplication.processEvents()
        y, x = codes.data[row]
        place = canvas.view.scene.transform.map([x, y, 0, 1])
        at = QPoint(round(place[0] / place[3]), round(place[1] / place[3]))
        QTest.mouseClick(canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)
        assert particle.metadata["name"] == particles.names[row]
    assert np.abs(particle.data - before).max() > 0
    # As a row of napari's features table does.
    codes.selected_data = {3}
    assert particle.metadata["name"] == viewer.canvas.overlays.text.text == particles.names[3]
    picture = viewer.screenshot(canvas_only=True, flash=False)
    assert picture[..., :3].std() > 5


def test_without_napari_the_remedy_is_named(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryodc.report.viewer import open_viewer

    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(InputError, match=r"cryodc\[view\]"):
        open_viewer(RunFolder(small_run))


def test_states_and_axes_are_shown_in_time_where_there_are_some(viewer, small_run: Path, tmp_path: Path) -> None:
    from cryodc.report.viewer import open_viewer
    from cryodc.states import find_states

    copied = RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))
    find_states(copied, 1, 2, n_starts=1)
    opened = open_viewer(copied)
    try:
        axis = next(layer for layer in opened.layers if layer.name.startswith("class 1 axis 1"))
        average = read_volume(copied.averages / "class001.mrc")
        box = average.box_size
        assert axis.data.shape == (9, box, box, box)
        assert opened.layers["class 1 states"].data.shape[0] == 2
        assert not axis.visible
        # Time comes before z, and the viewer opens on the central slice.
        assert opened.dims.ndim == 4
        np.testing.assert_allclose(opened.dims.point[1], box // 2 * average.spacing_angstrom)
    finally:
        opened.close()


def test_traversals_are_shown_in_time_and_what_is_of_an_earlier_clustering_is_not(
    viewer, small_run: Path, tmp_path: Path
) -> None:
    from cryodc.generate import GenerateRequest, generate_run
    from cryodc.report.viewer import open_viewer

    copied = RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))
    generate_run(copied, GenerateRequest(classes=(2,), n_steps=3, n_axes=1, device="cpu"))
    heard: list[str] = []
    opened = open_viewer(copied, tell=heard.append)
    try:
        layer = opened.layers["class 2 decoded axis 1"]
        middle = read_volume(copied.generated / "class002" / "axis1_02.mrc")
        np.testing.assert_array_equal(layer.data[1], middle.voxels)
        assert layer.data.shape[0] == 3
        assert "class 1 average" in opened.layers
        # Nothing is left out.
        told = ["positions: pixels of 15 Å (rlnMicrographPixelSize), from the corner of the tomogram"]
        assert heard == told
    finally:
        opened.close()
    cluster_run(copied, 3)
    opened = open_viewer(copied, tell=heard.append)
    try:
        assert [layer.name for layer in opened.layers] == ["particle", "content codes"]
        assert any("averages are of an earlier clustering" in line for line in heard)
        assert any("traversal of class 2 is of earlier" in line for line in heard)
        assert "earlier clustering" in opened.title
    finally:
        opened.close()


def test_positions_lie_in_their_tomograms_in_the_colours_of_their_classes(viewer, small_run: Path) -> None:
    import starfile

    table = starfile.read(small_run / "averages/particles.star")["particles"]
    for name, mine in table.groupby("rlnMicrographName"):
        layer = viewer.layers[f"positions {name}"]
        assert not layer.visible
        expected = [mine[f"rlnCoordinate{a}"] * 15.0 - mine[f"rlnOrigin{a}Angst"] for a in "ZYX"]
        np.testing.assert_allclose(layer.data, np.stack(expected, axis=1), atol=1e-2)
        assert list(layer.features["class"]) == list(mine["rlnClassNumber"])
        assert len(np.unique(layer.face_color, axis=0)) == mine["rlnClassNumber"].nunique()
