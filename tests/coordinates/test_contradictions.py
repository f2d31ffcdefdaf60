"""Pixels that contradict one another, and places that no tomogram reaches."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from cryodc_cli.main import load_verb

from cryodc.errors import InputError
from cryodc.export import export_run
from cryodc.picks import convert_picks
from tests.coordinates.layouts import (
    LAYOUTS,
    VOXEL,
    _assert_at_places,
    _averaged,
    _converted,
    _particles,
    _warnings,
    _write_star,
)


def test_check_names_a_tilt_series_pixel_that_does_not_give_the_images(tmp_path: Path) -> None:
    star, _ = _particles("RELION 4, two tilt-series pixels", tmp_path)
    assert _warnings(star) == []
    text = star.read_text()
    star.write_text(text.replace("1 3 1.25 16 20.0 8", "1 3 1.25 8 20.0 8"))
    assert star.read_text() != text
    (warning,) = _warnings(star)
    assert warning["found"] == "1.25 × 8 = 10, but 20 Å"
    assert star.read_text().splitlines()[warning["row"] - 1].startswith("1 3 1.25")  # type: ignore[operator]


def test_check_names_rows_that_state_another_pixel_than_the_optics(tmp_path: Path) -> None:
    layout = LAYOUTS["RELION 4"]()
    star, _ = _particles("RELION 4", tmp_path)
    images = {"rlnImageName": ["0.mrc", "1.mrc"], "rlnPixelSize": [2.5, 5.0]}
    _write_star(layout, star, images)
    (warning,) = _warnings(star)
    assert "rlnPixelSize 5" in warning["found"]
    assert "rlnTomoTiltSeriesPixelSize" in warning["expected"]


def test_two_optics_groups_need_a_column_that_says_which(tmp_path: Path) -> None:
    layout = LAYOUTS["RELION 4, two tilt-series pixels"]()
    del layout.columns["rlnOpticsGroup"]
    star = _write_star(layout, tmp_path / "picks.star")
    with pytest.raises(InputError, match="which group") as caught:
        convert_picks(star, tmp_path / "a.csv", spacing_angstrom=VOXEL)
    assert "1.25" in str(caught.value.found)


def test_optics_groups_that_agree_need_no_column_and_unused_ones_no_size(tmp_path: Path) -> None:
    layout = LAYOUTS["RELION 4, two tilt-series pixels"]()
    layout.optics = {label: [*values, values[-1]] for label, values in layout.optics.items()}
    layout.optics["rlnOpticsGroup"][-1], layout.optics["rlnTomoTiltSeriesPixelSize"][-1] = 9, "0"
    star = _write_star(layout, tmp_path / "unused.star")
    convert_picks(star, tmp_path / "a.csv", spacing_angstrom=VOXEL)
    _assert_at_places(_converted("csv", tmp_path / "a.csv"))
    layout = LAYOUTS["RELION 4"]()
    layout.optics = {label: values * 2 for label, values in layout.optics.items()}
    layout.optics["rlnOpticsGroup"] = [1, 2]
    del layout.columns["rlnOpticsGroup"]
    star = _write_star(layout, tmp_path / "agree.star")
    convert_picks(star, tmp_path / "b.csv", spacing_angstrom=VOXEL)
    _assert_at_places(_converted("csv", tmp_path / "b.csv"))


@pytest.mark.parametrize("group", ["1.0", "01", "1"])
def test_a_group_is_its_number_however_it_is_written(group: str, tmp_path: Path) -> None:
    layout = LAYOUTS["RELION 4, two tilt-series pixels"]()
    layout.columns["rlnOpticsGroup"][0] = group
    star = _write_star(layout, tmp_path / "picks.star")
    convert_picks(star, tmp_path / "a.csv", spacing_angstrom=VOXEL)
    _assert_at_places(_converted("csv", tmp_path / "a.csv"))


def test_a_spacing_for_what_is_in_angstrom_is_refused(tmp_path: Path) -> None:
    star = _write_star(LAYOUTS["RELION 5"](), tmp_path / "picks.star")
    with pytest.raises(InputError, match="have no spacing"):
        convert_picks(star, tmp_path / "a.star", coordinate_spacing_angstrom=2.0)


@pytest.mark.parametrize("text", ["1e308", "-1e300", "1e12"])
def test_a_place_that_no_tomogram_reaches_is_named_with_its_row(text: str, tmp_path: Path) -> None:
    star, layout = _particles("RELION 4", tmp_path)
    layout.columns["rlnCoordinateX"][1] = text
    _write_star(layout, star, {"rlnImageName": ["0.mrc", "1.mrc"]})
    line = len(star.read_text().rstrip().splitlines())
    for kind, out in (("csv", "a.csv"), ("relion", "a.star"), ("dynamo", "a.tbl")):
        with pytest.raises(InputError, match="farther off than any tomogram") as caught:
            convert_picks(star, tmp_path / out, kind, spacing_angstrom=VOXEL)  # type: ignore[arg-type]
        assert caught.value.row == line
        assert not (tmp_path / out).exists()
    said = CliRunner().invoke(load_verb("check"), [str(star), "--tilt-range", "-60", "60", "--json"])
    (warning,) = (w for w in json.loads(said.output)["warnings"] if "any tomogram" in w["problem"])
    assert warning["row"] == line


def test_two_tomograms_are_never_one_tilt_series_in_warp(tmp_path: Path) -> None:
    run, _ = _averaged("Warp 1, WarpTools --3d", tmp_path)
    star = run.averages / "particles.star"
    text = star.read_text()
    star.write_text(text.replace("/far/away/TS_1", "/a/TS_1", 1).replace("/far/away/TS_1", "/b/TS_1", 1))
    with pytest.raises(InputError, match="one tilt series in Warp") as caught:
        export_run(run, tmp_path / "out", ["warp"])
    assert caught.value.found == "/a/TS_1_10.00Apx.mrc, /b/TS_1_10.00Apx.mrc"
    assert not (tmp_path / "out").exists()
    # Dynamo numbers them apart.
    export_run(run, tmp_path / "dynamo", ["dynamo"])
    assert len(set(np.loadtxt(tmp_path / "dynamo/dynamo.tbl")[:, 19])) == 2


@pytest.mark.parametrize(("label", "value"), [("rlnMicrographPixelSize", "-1"), ("rlnTomoTiltSeriesPixelSize", "0")])
def test_a_pixel_that_is_no_size_is_one_error(label: str, value: str, tmp_path: Path) -> None:
    layout = LAYOUTS["RELION 4"]()
    layout.optics[label] = [value]
    star = _write_star(layout, tmp_path / "picks.star")
    with pytest.raises(InputError, match="not a positive number"):
        convert_picks(star, tmp_path / "a.csv", spacing_angstrom=VOXEL)
    assert not (tmp_path / "a.csv").exists()
