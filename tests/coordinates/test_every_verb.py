"""One particle at a known place in Å, in every layout, found again by every verb that reads a position."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from scipy.ndimage import center_of_mass

from cryodc.export import export_run, load_placements, map_back
from cryodc.picks import ExtractRequest, convert_picks, extract_subtomograms
from tests.coordinates.layouts import (
    BOX,
    IMAGE_PIXEL,
    LAYOUTS,
    PLACES,
    SIZE,
    TILT_PIXEL,
    VOXEL,
    Layout,
    _assert_at_places,
    _averaged,
    _converted,
    _particles,
    _write_star,
)

everywhere = pytest.mark.parametrize("layout", LAYOUTS)


@everywhere
def test_check_measures_the_distance_in_angstrom_and_says_the_unit(layout: str, tmp_path: Path) -> None:
    star, _ = _particles(layout, tmp_path)
    said = CliRunner().invoke(
        load_verb("check"), [str(star), "--duplicate-distance", "401", "--tilt-range", "-60", "60", "--json"]
    )
    report = json.loads(said.output)
    near = [warning for warning in report["warnings"] if "nearer than" in warning["problem"]]
    assert [warning["found"].split(" Å")[0] for warning in near] == ["400.0"]
    unit = {"RELION 5": "Å", "RELION 4": f"pixels of {TILT_PIXEL} Å", "RELION 3.0": f"pixels of {IMAGE_PIXEL:g} Å"}
    assert report["coordinates"].startswith(unit.get(layout, ""))
    assert "the tomogram" in report["coordinates"]
    assert not [warning for warning in report["warnings"] if "pixel" in warning["problem"]]


@everywhere
def test_extract_cuts_the_particle_in_the_middle(layout: str, tomogram: Path, tmp_path: Path) -> None:
    star = _write_star(LAYOUTS[layout](), tmp_path / "picks.star")
    result = extract_subtomograms(ExtractRequest([tomogram], star, tmp_path / "out", 16, normalise=False))
    assert sum(result.n_extracted.values()) == 2
    for image in starfile.read(result.star)["particles"]["rlnImageName"]:
        with mrcfile.open(tmp_path / "out" / image) as mrc:
            np.testing.assert_allclose(center_of_mass(np.where(mrc.data > 0.01, mrc.data, 0)), 8, atol=0.03)


@everywhere
@pytest.mark.parametrize("binning", [1, 2])
def test_what_extract_writes_is_exported_from_the_same_place(
    layout: str, binning: int, tomogram: Path, tmp_path: Path
) -> None:
    star = _write_star(LAYOUTS[layout](), tmp_path / "picks.star")
    result = extract_subtomograms(ExtractRequest([tomogram], star, tmp_path / "out", BOX, binning=binning))
    tables = starfile.read(result.star)
    coordinates = tables["particles"][[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy()
    _assert_at_places(coordinates * float(tables["optics"]["rlnMicrographPixelSize"].iloc[0]))
    assert float(tables["optics"]["rlnImagePixelSize"].iloc[0]) == binning * VOXEL
    # Extracted again from what was written, the particle is where it was.
    again = extract_subtomograms(ExtractRequest([tomogram], result.star, tmp_path / "again", BOX, binning=binning))
    second = starfile.read(again.star)["particles"][[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy()
    np.testing.assert_allclose(second, coordinates, atol=1e-5)


@everywhere
@pytest.mark.parametrize("kind", ["csv", "dynamo", "stopgap", "relion"])
def test_convert_writes_the_place_in_each_programs_unit(layout: str, kind: str, tmp_path: Path) -> None:
    star = _write_star(LAYOUTS[layout](), tmp_path / "picks.star")
    size = tuple(int(edge) for edge in SIZE / VOXEL)
    out = tmp_path / {"csv": "a.csv", "dynamo": "a.tbl"}.get(kind, "a.star")
    told = {"tilt_series_spacing_angstrom": TILT_PIXEL} if kind == "relion" else {}
    result = convert_picks(star, out, kind, spacing_angstrom=VOXEL, tomogram_size_xyz=size, **told)
    _assert_at_places(_converted(kind, out))
    if kind == "relion":
        assert any("pixels of the tilt series" in note for note in result.notes)
        # What was written is read as what it is, by convert itself.
        convert_picks(out, tmp_path / "b.csv", spacing_angstrom=VOXEL)
        _assert_at_places(_converted("csv", tmp_path / "b.csv"))


def _voxels_of_images(layout: Layout) -> tuple[int, int, int]:
    x, y, z = (round(edge / layout.image_pixel) for edge in SIZE)
    return x, y, z


@everywhere
def test_export_gives_warp_and_dynamo_the_place(layout: str, tmp_path: Path) -> None:
    run, written = _averaged(layout, tmp_path)
    size = _voxels_of_images(written)
    result = export_run(run, tmp_path / "out", ["warp", "dynamo"], tomogram_size_xyz=size)
    warp = starfile.read(tmp_path / "out/warp.star")
    pixel = warp["rlnPixelSize"].to_numpy()[:, None]
    _assert_at_places(warp[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * pixel)
    assert any(note.endswith(f"--coords_angpix {pixel[0, 0]:g}") for note in result.notes)
    assert len(np.unique(pixel)) == 1
    assert set(warp["rlnMicrographName"]) == {"TS_1.tomostar"}
    table = np.loadtxt(tmp_path / "out/dynamo.tbl")
    _assert_at_places((table[:, 23:26] + table[:, 3:6] - 0.5) * written.image_pixel)
    assert any("coordinates of your STAR were read as" in note for note in result.notes)


@everywhere
def test_map_back_puts_the_average_at_the_place(layout: str, tomogram: Path, tmp_path: Path) -> None:
    run, written = _averaged(layout, tmp_path)
    size = _voxels_of_images(written) if layout == "RELION 5" else None
    map_back(run, tmp_path / "sized", size_xyz=size)
    map_back(run, tmp_path / "on tomogram", tomogram_file=tomogram)
    for folder, voxel in (("sized", written.image_pixel), ("on tomogram", VOXEL)):
        (density,) = (path for path in (tmp_path / folder).glob("*.mrc") if "classes" not in path.name)
        with mrcfile.open(density) as mrc:
            voxels = mrc.data.astype(float)
            assert float(mrc.voxel_size.x) == pytest.approx(voxel)
        middle = round(PLACES[:, 0].mean() / voxel)
        for half, place in zip((np.s_[..., :middle], np.s_[..., middle:]), PLACES, strict=True):
            found = np.array(center_of_mass(voxels[half]))[::-1]
            found[0] += half[-1].start or 0
            np.testing.assert_allclose(found * voxel, place, atol=0.02 * IMAGE_PIXEL)
        (points,) = (tmp_path / folder).glob("*_class001.csv")
        table = pd.read_csv(points)[["axis-2", "axis-1", "axis-0"]].to_numpy()
        _assert_at_places(table * voxel)


@everywhere
def test_the_viewer_shows_the_place_from_where_the_star_counts(layout: str, tmp_path: Path) -> None:
    run, _ = _averaged(layout, tmp_path)
    placements = load_placements(run)
    centre = SIZE / 2 if layout == "RELION 5" else np.zeros(3)
    _assert_at_places(placements.positions_angstrom()[:, ::-1] + centre)
    assert ("from the centre" in placements.coordinates) == (layout == "RELION 5")
