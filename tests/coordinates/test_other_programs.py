"""Picks of other programs, and files of theirs: each in the unit that it states."""

import json
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from scipy.ndimage import center_of_mass

from cryodc.errors import InputError
from cryodc.picks import convert_picks
from tests.coordinates.layouts import (
    IMAGE_PIXEL,
    LAYOUTS,
    PLACES,
    SIZE,
    TILT_PIXEL,
    VOXEL,
    _assert_at_places,
    _converted,
    _same,
    _warnings,
    _write_star,
)


def _write_picks(program: str, folder: Path) -> Path:
    voxels = PLACES / VOXEL
    shift = np.array([0.25, -0.5, 0.125])
    if program == "Dynamo":
        rows = []
        for i, voxel in enumerate(voxels, start=1):
            row = [i, 1, 1, *shift, *[0] * 13, 1, 0, 1, 0, *(voxel + 0.5 - shift), *[0] * 9]
            rows.append(" ".join(map(str, row)))
        (folder / "p.tbl").write_text("\n".join(rows) + "\n")
        return folder / "p.tbl"
    if program == "STOPGAP":
        labels = ["motl_idx", "tomo_num", *(f"orig_{a}" for a in "xyz"), *(f"{a}_shift" for a in "xyz")]
        labels += ["phi", "psi", "the"]
        rows = [" ".join(map(str, [i, 1, *(v + 1 - shift), *shift, 0, 0, 0])) for i, v in enumerate(voxels, start=1)]
        lines = ["data_stopgap_motivelist", "", "loop_", *(f"_{label}" for label in labels), *rows]
        (folder / "p.star").write_text("\n".join(lines) + "\n")
        return folder / "p.star"
    if program == "EM":
        body = b"".join(
            struct.pack("<20f", 0.5, 0, 0, 1, 1, 1, 0, *(voxel + 1 - shift), *shift, *[0] * 7) for voxel in voxels
        )
        header = bytes([6, 0, 0, 5]) + struct.pack("<3i", 20, len(voxels), 1)
        (folder / "p.em").write_bytes(header.ljust(512, b"\0") + body)
        return folder / "p.em"
    if program == "copick":
        points = [{"location": dict(zip("xyz", place, strict=True))} for place in PLACES.tolist()]
        (folder / "p.json").write_text(json.dumps({"run_name": "TS_1", "unit": "angstrom", "points": points}))
        return folder / "p.json"
    rows = ["x,y,z,tomogram", *(",".join(map(str, [*voxel, "TS_1"])) for voxel in voxels)]
    (folder / "p.csv").write_text("\n".join(rows) + "\n")
    return folder / "p.csv"


PROGRAMS = {
    "Dynamo": "voxels of the tomogram, from the corner",
    "STOPGAP": "voxels of the tomogram, from the corner",
    "EM": "voxels of the tomogram, from the corner",
    "copick": "Å (copick), from the corner",
    "CSV": "voxels of the tomogram, from the corner",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_picks_of_other_programs_are_cut_and_converted_at_the_place(
    program: str, tomogram: Path, tmp_path: Path
) -> None:
    picks = _write_picks(program, tmp_path)
    command = [str(tomogram), "--picks", str(picks), "--box", "16", "--no-normalise", "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(load_verb("extract"), command, env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    assert PROGRAMS[program] in said.output
    tables = starfile.read(tmp_path / "out/particles.star")
    for image in tables["particles"]["rlnImageName"]:
        with mrcfile.open(tmp_path / "out" / image) as mrc:
            np.testing.assert_allclose(center_of_mass(np.where(mrc.data > 0.01, mrc.data, 0)), 8, atol=0.03)
    for kind, name in {"csv": "a.csv", "dynamo": "d.tbl", "stopgap": "s.star", "relion": "r.star"}.items():
        told = {"tilt_series_spacing_angstrom": TILT_PIXEL} if kind == "relion" else {}
        convert_picks(picks, tmp_path / name, kind, spacing_angstrom=VOXEL, **told)  # type: ignore[arg-type]
        _assert_at_places(_converted(kind, tmp_path / name), 0.02 if program == "EM" else 0.01)


def test_a_unit_that_is_given_wins_over_what_the_file_says(tomogram: Path, tmp_path: Path) -> None:
    layout = LAYOUTS["Warp 1, WarpTools --3d"]()
    layout.columns["rlnPixelSize"] = _same(7.0)
    star = _write_star(layout, tmp_path / "picks.star")
    convert_picks(star, tmp_path / "a.csv", spacing_angstrom=VOXEL, coordinate_spacing_angstrom=IMAGE_PIXEL)
    _assert_at_places(_converted("csv", tmp_path / "a.csv"))


def test_convert_to_relion_says_which_pixel_is_missing(tmp_path: Path) -> None:
    picks = _write_picks("CSV", tmp_path)
    said = CliRunner().invoke(load_verb("convert"), [str(picks), str(tmp_path / "a.star")], env={"COLUMNS": "300"})
    assert said.exit_code == 0, said.output
    assert "Give --tilt-series-spacing, and --spacing" in said.output
    assert "Coordinates: voxels of the tomogram, from the corner of the tomogram" in said.output
    assert "rlnPixelSize" not in starfile.read(tmp_path / "a.star")
    with pytest.raises(InputError, match="whose spacing is not known"):
        convert_picks(picks, tmp_path / "b.star", tilt_series_spacing_angstrom=TILT_PIXEL)


def test_convert_to_relion_keeps_the_tilt_series_pixel_of_each_group(tmp_path: Path) -> None:
    star = _write_star(LAYOUTS["RELION 4, two tilt-series pixels"](), tmp_path / "picks.star")
    convert_picks(star, tmp_path / "a.star")
    table = starfile.read(tmp_path / "a.star")
    assert table["rlnPixelSize"].tolist() == [1.25, 2.5]
    coordinates = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy()
    _assert_at_places(coordinates * np.array([[1.25], [2.5]]))


def test_convert_to_relion_keeps_what_counts_from_the_centre(tmp_path: Path) -> None:
    star = _write_star(LAYOUTS["RELION 5"](), tmp_path / "picks.star")
    convert_picks(star, tmp_path / "a.star")
    table = starfile.read(tmp_path / "a.star")
    centred = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy()
    _assert_at_places(centred + SIZE / 2)


REAL = {
    "cryocat_relion_3.0.star": (5.364, "rlnPixelSize"),
    "cryocat_relion_3.1_optics2.star": (np.nan, "rlnPixelSize"),
    "cryocat_relion5_1_run_it025_data.star.gz": (4.828, "rlnPixelSize"),
    "cryocat_relion_4.0.star.gz": (1.971, "rlnTomoTiltSeriesPixelSize"),
    "dynamo2m_example.star": (5.0, "rlnDetectorPixelSize"),
    "czportal_relion_4_star.star": (1.0, "rlnMicrographPixelSize"),
    "cryocat_warp2_particles_matching.star": (4.0, "rlnImagePixelSize"),
}


@pytest.mark.parametrize("name", REAL)
def test_sample_files_of_programs_are_in_the_unit_they_state(name: str, shared_data: Path, tmp_path: Path) -> None:
    pixel, stated_by = REAL[name]
    source = shared_data / "star" / name
    result = convert_picks(source, tmp_path / "a.csv", spacing_angstrom=VOXEL)
    assert result.picks.frame.stated_by.startswith(stated_by)
    if name.endswith(".gz"):
        import gzip

        (tmp_path / "in.star").write_bytes(gzip.decompress(source.read_bytes()))
        source = tmp_path / "in.star"
    tables = starfile.read(source, always_dict=True)
    table = tables["particles"] if "particles" in tables else next(iter(tables.values()))
    size = table["rlnPixelSize"].to_numpy()[:, None] if np.isnan(pixel) else pixel
    expected = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * size
    if "rlnOriginXAngst" in table:
        expected = expected - table[[f"rlnOrigin{axis}Angst" for axis in "XYZ"]].to_numpy()
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")[["x", "y", "z"]] * VOXEL, expected, atol=0.01)


def test_the_published_ribosomes_count_pixels_of_their_images(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "real/ribosome70s/particles.star"
    result = convert_picks(source, tmp_path / "a.csv", spacing_angstrom=VOXEL)
    assert result.picks.frame.stated_by == "rlnImagePixelSize"
    expected = starfile.read(source)["particles"][[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * 12.0
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")[["x", "y", "z"]] * VOXEL, expected, atol=1e-3)


def test_real_tilt_stacks_keep_their_places_when_they_are_imported_coarser(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "real/ribosome70s"
    (star,) = (folder / "tilt_stacks").glob("*_optimisation_set.star")
    said = CliRunner().invoke(
        load_verb("import"),
        [str(star), "--out", str(tmp_path / "out"), "--bin", "2", "--device", "cpu"],
        env={"COLUMNS": "200"},
    )
    assert said.exit_code == 0, said.output
    assert "Coordinates: pixels of 12 Å (rlnImagePixelSize), from the corner" in said.output
    # The authors' table of the same 40 particles counts pixels of 12 Å.
    expected = starfile.read(folder / "particles.star")["particles"]
    labels = [f"rlnCoordinate{axis}" for axis in "XYZ"]
    convert_picks(tmp_path / "out/particles.star", tmp_path / "a.csv", spacing_angstrom=VOXEL)
    found = pd.read_csv(tmp_path / "a.csv")
    key = "rlnMicrographName"
    for name, rows in expected.groupby(key):
        mine = found[found["tomogram"] == name][["x", "y", "z"]].to_numpy() * VOXEL
        np.testing.assert_allclose(sorted(mine.tolist()), sorted((rows[labels] * 12.0).to_numpy().tolist()), atol=0.1)
    # Cubes of 24 Å, but coordinates that count 12 Å: it stands in the file.
    optics = starfile.read(tmp_path / "out/particles.star")["optics"]
    assert set(optics["rlnImagePixelSize"]) == {24.0}
    assert set(optics["rlnMicrographPixelSize"]) == {12.0}
    assert _warnings(tmp_path / "out/particles.star") == []
