"""Ten things a user does in the viewer, with a real window and mouse: run under xvfb with QT_QPA_PLATFORM=xcb."""

import ctypes
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import starfile

from cryodc.io import read_volume
from cryodc.runs import RunFolder, load_clusters, load_run_particles
from cryodc.states import find_states

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
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A copy of the run, with two states of class 1, that the tests may change."""
    copied = RunFolder(Path(shutil.copytree(small_run, tmp_path_factory.mktemp("viewed") / "run")))
    find_states(copied, 1, 2, n_starts=1)
    return copied


@pytest.fixture(scope="module")
def viewer(run: RunFolder):
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
    from cryodc.viewer import open_viewer

    opened = open_viewer(run)
    opened.window._qt_window.resize(1500, 950)
    _settle()
    yield opened
    opened.close()


@pytest.fixture
def dock(viewer):
    from cryodc.viewer.dock import CodesDock

    return viewer.window._qt_window.findChild(CodesDock)


@pytest.fixture
def saves_to(monkeypatch: pytest.MonkeyPatch):
    """Answer the file dialog, which is of the system, with a path."""
    from qtpy.QtWidgets import QFileDialog

    return lambda path: monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(path), ""))


def _settle() -> None:
    from qtpy.QtWidgets import QApplication

    for _ in range(3):
        QApplication.processEvents()


def _click(widget) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)
    _settle()


def _click_code(dock, row: int) -> None:
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    at = QPoint(*(round(value) for value in dock.scatter.pixel_of(row)))
    QTest.mouseClick(dock.scatter, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)
    _settle()


def _lasso(dock, rows: np.ndarray) -> None:
    """Draw a rectangle round the codes of some particles, whatever else lies within it."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    at = np.array([dock.scatter.pixel_of(int(row)) for row in rows])
    (left, top), (right, bottom) = at.min(axis=0) - 6, at.max(axis=0) + 6
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    places = [QPoint(round(x), round(y)) for x, y in corners]
    button, key = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mousePress(dock.scatter, button, key, places[0])
    for place in places[1:]:
        QTest.mouseMove(dock.scatter, place)
    QTest.mouseRelease(dock.scatter, button, key, places[-1])
    _settle()


@pytest.fixture
def a_set(dock) -> None:
    """The first set is there and chosen, also where the tests before ran in another process."""
    if not dock.session.sets:
        _lasso(dock, np.flatnonzero(dock.session.classes == 1))
    dock.sets.setCurrentRow(0)


def _photograph(viewer, name: str) -> np.ndarray:
    """The whole window; kept as a file where CRYODC_SCREENSHOTS names a folder."""
    _settle()
    folder = os.environ.get("CRYODC_SCREENSHOTS")
    return viewer.screenshot(str(Path(folder) / name) if folder else None, canvas_only=False, flash=False)


def test_open_shows_each_average_in_angstrom_in_the_colour_of_its_class(viewer, dock, run: RunFolder) -> None:
    from cryodc.figures import class_colour

    average = read_volume(run.averages / "class001.mrc")
    layer = viewer.layers["class 1 average"]
    np.testing.assert_array_equal(layer.data, average.voxels)
    np.testing.assert_allclose(layer.scale, [average.spacing_angstrom] * 3)
    assert not viewer.layers["class 1 half map 1"].visible
    assert not viewer.layers["class 1 mask"].visible
    assert len(dock.scatter.points) == len(load_run_particles(run))
    # The dock has the colours of the classes, and each class its picture.
    picture = dock.scatter.grab().toImage()
    seen = {picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(0, picture.height(), 2)}
    assert {class_colour(1).lower(), class_colour(2).lower()} <= seen
    assert dock.classes.count() == 2
    assert _photograph(viewer, "open.png")[..., :3].std() > 5
    # All of it is in the frame, as Home would have it.
    opened_at = viewer.scene.camera.zoom
    _click(viewer.window._qt_viewer.viewerButtons.resetViewButton)
    np.testing.assert_allclose(viewer.scene.camera.zoom, opened_at, rtol=0.02)


def test_home_frames_what_is_shown_and_sliders_go_through_it(viewer, dock, run: RunFolder) -> None:
    box = dock.session.box_angstrom
    z = viewer.dims.ndim - 3
    viewer.scene.camera.zoom = 1e-3
    home = viewer.window._qt_viewer.viewerButtons.resetViewButton
    _click(home)
    zoom = viewer.scene.camera.zoom
    # Two boxes and the gap between them fill at least half the canvas one way.
    height, width = viewer.window._qt_viewer.canvas.size
    assert max(3.2 * box * zoom / width, 2.1 * box * zoom / height) > 0.5
    dock.tomograms.setCurrentIndex(1)
    dock.tomograms.textActivated.emit(dock.tomograms.currentText())
    positions = next(layer for layer in viewer.layers if layer.name.startswith("positions "))
    assert not positions.editable
    assert "15 Å (rlnMicrographPixelSize), from the corner of the tomogram" in dock.status.text()
    assert viewer.dims.range[z].stop > 2 * box
    positions.visible = False
    _click(home)
    np.testing.assert_allclose(viewer.scene.camera.zoom, zoom, rtol=0.02)
    assert viewer.dims.range[z].stop < box
    dock.tomograms.textActivated.emit(dock.tomograms.itemText(0))
    assert positions not in viewer.layers
    # The plane is the central one as before.
    np.testing.assert_allclose(viewer.dims.point[z], box / 2)


def test_the_cube_turns_to_surfaces_and_back_to_the_plane(viewer) -> None:
    button, plane = viewer.window._qt_viewer.viewerButtons.ndisplayButton, viewer.dims.point
    assert plane[-3] > 0
    _click(button)
    assert viewer.dims.ndisplay == 3
    assert viewer.layers["class 1 average"].rendering == "iso"
    _photograph(viewer, "surfaces.png")
    _click(button)
    assert viewer.dims.ndisplay == 2
    np.testing.assert_allclose(viewer.dims.point, plane)


def test_a_click_shows_the_particle_its_low_passed_copy_and_its_average_in_its_pose(viewer, dock) -> None:
    names = dock.session.previews.particles.names
    before = viewer.layers["particle"].data.copy()
    _click_code(dock, 7)
    first = viewer.layers["its class average"].data.copy()
    _click_code(dock, 20)
    assert names[20] in dock.status.text()
    raw, smooth, average = (viewer.layers[n].data for n in ("particle", "particle low-passed", "its class average"))
    assert not np.array_equal(before, raw)
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.5 * np.abs(np.diff(raw, axis=0)).mean()
    # The average lies as its particle does: it is more like it than like the average in another particle's pose.
    assert np.corrcoef(smooth.ravel(), average.ravel())[0, 1] > 0.2
    assert not np.array_equal(first, average)
    _photograph(viewer, "click.png")


def test_lassos_are_kept_as_sets_with_names(viewer, dock) -> None:
    rows = np.flatnonzero(dock.session.classes == 1)
    _lasso(dock, rows)
    assert set(rows) <= set(dock.session.sets[0].rows.tolist())
    _lasso(dock, rows[:1])
    assert [chosen.name for chosen in dock.session.sets] == ["set 1", "set 2"]
    assert dock.sets.currentRow() == 1
    dock.sets.item(1).setText("open")
    assert dock.session.sets[1].name == "open"
    dock.sets.setCurrentRow(0)
    assert dock.scatter.marked.sum() == len(dock.session.sets[0].rows)
    assert f"{len(dock.session.sets[0].rows)} particles" in dock.status.text()
    _photograph(viewer, "lasso.png")


def test_codes_are_coloured_by_a_column_and_back(viewer, dock) -> None:
    dock.sets.setCurrentRow(-1)
    by_class = dock.scatter.colours.copy()
    items = [dock.colour.itemText(i) for i in range(dock.colour.count())]
    for label in ("rlnMicrographName", "rlnCoordinateX"):
        dock.colour.setCurrentIndex(items.index(label))
        _photograph(viewer, f"colour_{label}.png")
        picture = dock.scatter.grab().toImage()
        seen = {picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(0, picture.height(), 2)}
        assert {f"#{bytes(rgb).hex()}" for rgb in dock.scatter.colours[[0, 7]].tolist()} & seen
        assert not np.array_equal(dock.scatter.colours, by_class)
    values = dock.session.columns["rlnCoordinateX"]
    assert dock.legend.text().startswith(f"{values.min():.4g} ")
    dock.colour.setCurrentIndex(0)
    np.testing.assert_array_equal(dock.scatter.colours, by_class)
    assert "class&nbsp;2&nbsp;·&nbsp;" in dock.legend.text()
    dock.sets.setCurrentRow(0)


@pytest.mark.usefixtures("a_set")
def test_average_shows_the_map_of_the_set(viewer, dock, run: RunFolder) -> None:
    _click(dock.average_button)
    layer = viewer.layers["average of set 1"]
    expected = read_volume(run.averages / "class001.mrc")
    assert np.corrcoef(layer.data.ravel(), expected.voxels.ravel())[0, 1] > 0.7
    assert "average of" in dock.status.text()
    _photograph(viewer, "average.png")


@pytest.mark.usefixtures("a_set")
def test_write_star_writes_the_rows_of_the_set(viewer, dock, saves_to, tmp_path: Path) -> None:
    out = tmp_path / "set.star"
    saves_to(out)
    _click(dock.star_button)
    names = dock.session.previews.particles.names
    chosen = [Path(names[row]).name for row in dock.session.sets[0].rows]
    assert [Path(name).name for name in starfile.read(out)["particles"]["rlnImageName"]] == chosen
    _click(dock.star_button)
    assert "refusing to overwrite" in dock.status.text()


def test_ticked_classes_are_written_as_select_writes_them(viewer, dock, run: RunFolder, saves_to, tmp_path) -> None:
    from qtpy.QtCore import Qt

    from cryodc.export import select_run

    dock.classes.item(1).setCheckState(Qt.CheckState.Unchecked)
    saves_to(tmp_path / "kept.star")
    _click(dock.keep_button)
    select_run(run, tmp_path / "expected.star", classes=[1])
    assert (tmp_path / "kept.star").read_text() == (tmp_path / "expected.star").read_text()
    dock.classes.item(0).setCheckState(Qt.CheckState.Unchecked)
    _click(dock.keep_button)
    assert "no class is kept" in dock.status.text()


def test_states_go_by_on_the_first_slider(viewer, run: RunFolder) -> None:
    layer = viewer.layers["class 1 states"]
    sliders = viewer.window._qt_viewer.dims.slider_widgets
    assert viewer.dims.nsteps[0] == 1
    layer.visible = True
    _settle()
    assert viewer.dims.nsteps[0] == 2
    # The slider of time is the first, whichever way napari stacks them.
    time_slider = next(slider for slider in sliders if slider.axis == 0)
    assert time_slider.isVisible()
    for state in (0, 1):
        time_slider.slider.setValue(state)
        _settle()
        assert viewer.dims.current_step[0] == state
        expected = read_volume(run.states / "class001" / f"state{state + 1:02d}.mrc")
        shown = layer._slice.image.raw
        np.testing.assert_allclose(shown, expected.voxels[viewer.dims.current_step[1]], atol=1e-6)
    layer.visible = False


@pytest.mark.usefixtures("a_set")
def test_make_class_and_split_write_classes_and_recolour_the_codes(viewer, dock, run: RunFolder) -> None:
    rows = np.flatnonzero(dock.session.classes == 2)[:3]
    before = dock.session.classes.copy()
    _lasso(dock, rows)
    chosen = dock.session.sets[-1].rows
    _click(dock.split_button)
    labels = load_clusters(run).labels
    majority = np.bincount(before[chosen]).argmax()
    moved = chosen[before[chosen] == majority]
    if len(moved) < (before == majority).sum():
        assert set(np.flatnonzero(labels == 2)) == set(moved)
    np.testing.assert_array_equal(dock.session.classes, labels + 1)
    assert "cryodc average" in dock.status.text()
    _click(dock.class_button)
    after = load_clusters(run).labels
    assert len({after[row] for row in chosen}) == 1
    assert dock.classes.count() == after.max() + 1
    _photograph(viewer, "classes.png")


def test_close_leaves_a_run_that_opens_again(viewer, run: RunFolder) -> None:
    from cryodc.viewer import open_viewer

    heard: list[str] = []
    opened = open_viewer(run, tell=heard.append)
    try:
        assert any("averages are of an earlier clustering" in line for line in heard)
        assert "earlier clustering" in opened.title
        assert "class 1 average" not in opened.layers
    finally:
        opened.close()
    assert opened not in type(opened)._instances


def test_the_list_of_classes_has_the_names_that_identify_found(dock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryodc.viewer.dock.current_names", lambda run: {1: "80S ribosome"})
    dock._list_classes()
    texts = [dock.classes.item(i).text().splitlines()[0] for i in range(dock.classes.count())]
    assert texts[:2] == ["class 1 80S ribosome", "class 2"]
