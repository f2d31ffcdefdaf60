import os
import sys
from pathlib import Path

import numpy as np
import pytest

from cryodc.errors import InputError
from cryodc.io.mrc import read_volume
from cryodc.io.run import RunFolder
from cryodc.workflow import load_run_particles

_NO_DISPLAY = "no display: run under xvfb-run with QT_QPA_PLATFORM=xcb"


@pytest.fixture
def viewer(small_run: Path):
    if not os.environ.get("DISPLAY"):
        if os.environ.get("CRYODC_REQUIRE_VIEWER") == "1":
            pytest.fail(_NO_DISPLAY)
        pytest.skip(_NO_DISPLAY)
    if os.environ.get("CRYODC_REQUIRE_VIEWER") != "1":
        pytest.importorskip("napari")
    from cryodc.viewer import open_viewer

    opened = open_viewer(RunFolder(small_run))
    yield opened
    opened.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_run_is_shown_and_a_click_shows_its_particle(viewer, small_run: Path) -> None:
    run = RunFolder(small_run)
    particles = load_run_particles(run)
    average = read_volume(run.averages / "class001.mrc")
    layer = viewer.layers["class 1 average"]
    np.testing.assert_array_equal(layer.data, average.voxels)
    np.testing.assert_allclose(layer.scale, [average.spacing_angstrom] * 3)
    assert not viewer.layers["class 1 half map 1"].visible
    assert not viewer.layers["class 1 mask"].visible
    codes = viewer.layers["content codes"]
    assert list(codes.features["name"]) == list(particles.names)
    assert len(codes.data) == len(particles)

    class Click:
        position = tuple(codes.data[7])
        view_direction = None

    before = viewer.layers["particle"].data.copy()
    for callback in codes.mouse_drag_callbacks:
        if callback.__module__.startswith("cryodc"):
            callback(codes, Click())
    assert viewer.layers["particle"].metadata["name"] == particles.names[7]
    assert np.abs(viewer.layers["particle"].data - before).max() > 0
    picture = viewer.screenshot(canvas_only=True, flash=False)
    assert picture[..., :3].std() > 5


def test_without_napari_the_remedy_is_named(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryodc.viewer import open_viewer

    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(InputError, match=r"cryodc\[view\]"):
        open_viewer(RunFolder(small_run))
