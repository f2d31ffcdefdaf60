"""One particle at a known place in Å, in every layout, found again by every verb that reads a position.

Coordinates are written, and results turned back into Å, by plain arithmetic: each layout's definition stands here once
more, by hand.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.export import export_run, load_placements, map_back
from cryodc.picks import ExtractRequest, convert_picks, extract_subtomograms
from cryodc.runs import RunFolder
from cryodc.star import particle_block, read_star
from tests.made_runs import make_averages, make_clusters
from tests.simulated import blobs

Array = NDArray[np.float64]

# xyz, Å from the centre of the tomogram's first voxel. Two particles 400 Å apart.
PLACES = np.array([[301.5, 405.0, 198.25], [701.5, 405.0, 198.25]])
SIZE = np.array([960.0, 800.0, 400.0])
VOXEL, TILT_PIXEL, IMAGE_PIXEL, BOX = 10.0, 2.5, 20.0, 8
# Origins in Å, and the frame of RELION 5's pseudo-subtomograms.
ORIGIN = np.array([12.0, -8.0, 4.0])
FRAME = (35.0, 60.0, -110.0)
A_FRAME = Rotation.from_euler("ZYZ", FRAME, degrees=True).inv()
NAMES = ("TS_1", "TS_1")


@dataclass
class Layout:
    """What a STAR says beside the names of images: its columns, optics and data_general."""

    columns: dict[str, list[object]]
    optics: dict[str, list[object]] = field(default_factory=dict)
    general: dict[str, object] = field(default_factory=dict)
    image_pixel: float = IMAGE_PIXEL


def _xyz(label: str, values: Array) -> dict[str, list[object]]:
    return {label.format(axis): list(values[:, i]) for i, axis in enumerate("XYZ")}


def _same(value: object) -> list[object]:
    return [value] * len(PLACES)


def _origins(in_angstrom: bool = True) -> dict[str, list[object]]:
    if in_angstrom:
        return _xyz("rlnOrigin{}Angst", np.tile(ORIGIN, (2, 1)))
    return _xyz("rlnOrigin{}", np.tile(ORIGIN / IMAGE_PIXEL, (2, 1)))


def _optics(**columns: object) -> dict[str, list[object]]:
    """One group, or two where a value is a pair."""
    n = max(len(value) if isinstance(value, tuple) else 1 for value in columns.values())
    told = {"OpticsGroup": list(range(1, n + 1)), "ImageDimensionality": [3] * n}
    told |= {name: list(value) if isinstance(value, tuple) else [value] * n for name, value in columns.items()}
    return {f"rln{name}": values for name, values in told.items()}


def _relion_30() -> Layout:
    # 20 Å: 28 µm · 10⁴ / 14,000. Origins in pixels.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / IMAGE_PIXEL) | _origins(in_angstrom=False)
    columns |= {"rlnMicrographName": list(NAMES), "rlnDetectorPixelSize": _same(28.0), "rlnMagnification": _same(14000)}
    return Layout(columns)


def _warp_1() -> Layout:
    columns = _xyz("rlnCoordinate{}", PLACES / IMAGE_PIXEL)
    names = [f"/far/away/{name}_10.00Apx.mrc" for name in NAMES]
    return Layout(columns | {"rlnMicrographName": names, "rlnPixelSize": _same(IMAGE_PIXEL)})


def _relion_31() -> Layout:
    # Voxels of the tomogram, of which nothing is said: the images were cut without binning.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / VOXEL) | _origins()
    optics = _optics(ImagePixelSize=VOXEL, ImageSize=BOX)
    return Layout(columns | {"rlnMicrographName": list(NAMES), "rlnOpticsGroup": _same(1)}, optics, image_pixel=VOXEL)


def _relion_31_rows() -> Layout:
    # Warp's coordinates at 5 Å, carried through RELION 3.1; the images are coarser.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / 5.0) | _origins()
    columns |= {"rlnMicrographName": [f"{n}_10.00Apx.mrc" for n in NAMES], "rlnPixelSize": _same(5.0)}
    return Layout(columns | {"rlnOpticsGroup": _same(1)}, _optics(ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX))


def _relion_31_rows_differ() -> Layout:
    pixels = np.array([[5.0], [8.0]])
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / pixels) | _origins()
    columns |= {"rlnMicrographName": list(NAMES), "rlnPixelSize": [5.0, 8.0], "rlnOpticsGroup": _same(1)}
    return Layout(columns, _optics(ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX))


def _relion_31_warp(stated_in_rows: bool) -> Layout:
    # WarpTools --3d in RELION 3.1's layout, as the authors of the ribosomes published theirs.
    pixel = 5.0 if stated_in_rows else IMAGE_PIXEL
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / pixel) | _origins()
    columns |= {"rlnMicrographName": [f"{name}.tomostar" for name in NAMES], "rlnOpticsGroup": _same(1)}
    if stated_in_rows:
        columns["rlnPixelSize"] = _same(pixel)
    return Layout(columns, _optics(ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX))


def _relion_31_micrograph() -> Layout:
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / VOXEL) | _origins()
    optics = _optics(MicrographPixelSize=VOXEL, ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX)
    return Layout(columns | {"rlnMicrographName": list(NAMES), "rlnOpticsGroup": _same(1)}, optics)


def _relion_4() -> Layout:
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / TILT_PIXEL) | _origins()
    optics = _optics(TomoTiltSeriesPixelSize=TILT_PIXEL, TomoSubtomogramBinning=8, ImagePixelSize=IMAGE_PIXEL)
    return Layout(columns | {"rlnTomoName": list(NAMES), "rlnOpticsGroup": _same(1)}, optics)


def _relion_4_groups() -> Layout:
    # A particle of each optics group; the groups come in another order than their numbers.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / np.array([[1.25], [2.5]])) | _origins()
    optics = _optics(
        OpticsGroup=(2, 1),
        TomoTiltSeriesPixelSize=(2.5, 1.25),
        TomoSubtomogramBinning=(8, 16),
        ImagePixelSize=IMAGE_PIXEL,
        ImageSize=BOX,
    )
    return Layout(columns | {"rlnTomoName": list(NAMES), "rlnOpticsGroup": [1, 2]}, optics)


def _relion_5() -> Layout:
    columns = _xyz("rlnCenteredCoordinate{}Angst", PLACES - SIZE / 2 + A_FRAME.apply(ORIGIN)) | _origins()
    columns |= {f"rlnTomoSubtomogram{name}": _same(FRAME[i]) for i, name in enumerate(("Rot", "Tilt", "Psi"))}
    optics = _optics(TomoTiltSeriesPixelSize=TILT_PIXEL, TomoSubtomogramBinning=8, ImagePixelSize=IMAGE_PIXEL)
    columns |= {"rlnTomoName": list(NAMES), "rlnOpticsGroup": _same(1)}
    return Layout(columns, optics, {"rlnTomoSubTomosAre2DStacks": 0})


def _warptools_2d(tilt_pixel: float, binning: float) -> Layout:
    # Pixels of the images, whatever the tilt series' pixel is said to be.
    columns = _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / IMAGE_PIXEL) | _origins()
    columns |= {"rlnTomoName": [f"{name}.tomostar" for name in NAMES], "rlnOpticsGroup": _same(1)}
    optics = _optics(
        TomoTiltSeriesPixelSize=tilt_pixel, TomoSubtomogramBinning=binning, ImagePixelSize=IMAGE_PIXEL, ImageSize=BOX
    )
    return Layout(columns, optics, {"rlnTomoSubTomosAre2DStacks": 0})


def _imported() -> Layout:
    # What `cryodc import --bin 2` makes of WarpTools --2d at 10 Å: coordinates as they were.
    layout = _warptools_2d(TILT_PIXEL, 8)
    layout.columns |= _xyz("rlnCoordinate{}", (PLACES + ORIGIN) / VOXEL)
    layout.optics["rlnMicrographPixelSize"] = [VOXEL]
    return layout


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "RELION 3.0": _relion_30,
    "Warp 1, WarpTools --3d": _warp_1,
    "RELION 3.1": _relion_31,
    "RELION 3.1 with rlnPixelSize in the rows": _relion_31_rows,
    "RELION 3.1, rows differ in rlnPixelSize": _relion_31_rows_differ,
    "RELION 3.1 with rlnMicrographPixelSize": _relion_31_micrograph,
    "WarpTools --3d in RELION 3.1": lambda: _relion_31_warp(stated_in_rows=False),
    "WarpTools --3d in RELION 3.1, rlnPixelSize in the rows": lambda: _relion_31_warp(stated_in_rows=True),
    "RELION 4": _relion_4,
    "RELION 4, two tilt-series pixels": _relion_4_groups,
    "RELION 5": _relion_5,
    "WarpTools --2d before 2.0.0dev40": lambda: _warptools_2d(TILT_PIXEL, 8),
    "WarpTools --2d from 2.0.0dev40": lambda: _warptools_2d(IMAGE_PIXEL, 1),
    "cryodc import --bin 2": _imported,
}
everywhere = pytest.mark.parametrize("layout", LAYOUTS)


def _write_star(layout: Layout, path: Path, extra: dict[str, list[object]] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)

    def loop(name: str, columns: dict[str, list[object]]) -> str:
        rows = zip(*columns.values(), strict=True)
        lines = [f"data_{name}", "", "loop_", *(f"_{label}" for label in columns)]
        return "\n".join([*lines, *(" ".join(map(str, row)) for row in rows)]) + "\n\n"

    text = ""
    if layout.general:
        text += "data_general\n\n" + "".join(f"_{key} {value}\n" for key, value in layout.general.items()) + "\n"
    if layout.optics:
        text += loop("optics", layout.optics)
    path.write_text(text + loop("particles" if layout.optics else "", layout.columns | (extra or {})))
    return path


def _particles(name: str, folder: Path) -> tuple[Path, Layout]:
    """Particles of 3D images with poses, as train, check and average read them."""
    layout = LAYOUTS[name]()
    rng = np.random.default_rng(0)
    images = []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(len(PLACES)):
        with mrcfile.new(folder / f"{i}.mrc", rng.standard_normal((BOX,) * 3).astype(np.float32)) as mrc:
            mrc.voxel_size = layout.image_pixel
        images.append(f"{i}.mrc")
    angles = {f"rlnAngle{axis}": _same(0.0) for axis in ("Rot", "Tilt", "Psi")}
    extra = {"rlnImageName": images, **angles, "rlnClassNumber": _same(1)}
    return _write_star(layout, folder / "particles.star", extra), layout


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blob at either place, in voxels of 10 Å."""
    path = tmp_path_factory.mktemp("tomogram") / "TS_1.mrc"
    shape = tuple(int(edge) for edge in (SIZE / VOXEL)[::-1])
    with mrcfile.new(path, blobs(shape, (PLACES / VOXEL)[:, ::-1], 1.5).astype(np.float32)) as mrc:
        mrc.voxel_size = VOXEL
    return path


def _averaged(name: str, folder: Path) -> tuple[RunFolder, Layout]:
    """The files of an averaged run that export and map-back read: the average is a blob in the middle of its box."""
    star, layout = _particles(name, folder / "run/averages")
    for file in ("class001.mrc", "class001_mask.mrc"):
        voxels = blobs((BOX,) * 3, np.full((1, 3), BOX // 2), 1.0).astype(np.float32)
        voxels = (voxels > 0.02).astype(np.float32) if "mask" in file else voxels
        with mrcfile.new(star.parent / file, voxels) as mrc:
            mrc.voxel_size = layout.image_pixel
    (folder / "run/config.yaml").write_text("{}")
    run = RunFolder(folder / "run")
    names = particle_block(read_star(star)).column("rlnImageName")
    make_clusters(run, names, [0] * len(names))
    make_averages(run, {1: 2 * layout.image_pixel})
    return run, layout


def _assert_at_places(found_xyz_angstrom: Array, tolerance: float = 0.01) -> None:
    np.testing.assert_allclose(found_xyz_angstrom, PLACES, atol=tolerance)


# --- particles ---------------------------------------------------------------------------------------------------


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


def _converted(kind: str, path: Path) -> Array:
    """Places in Å, xyz, by what each program means."""
    if kind == "csv":
        return pd.read_csv(path)[["x", "y", "z"]].to_numpy() * VOXEL
    if kind == "dynamo":
        table = np.loadtxt(path, ndmin=2)
        return (table[:, 23:26] + table[:, 3:6] - 0.5) * VOXEL
    table = starfile.read(path)
    if kind == "stopgap":
        whole = table[["orig_x", "orig_y", "orig_z"]].to_numpy(dtype=float)
        return (whole + table[["x_shift", "y_shift", "z_shift"]].to_numpy(dtype=float) - 1) * VOXEL
    pixels = table["rlnPixelSize"].to_numpy(dtype=float)[:, None]
    return table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy(dtype=float) * pixels


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


# --- picks of other programs -------------------------------------------------------------------------------------


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


# --- what contradicts --------------------------------------------------------------------------------------------


def _warnings(star: Path) -> list[dict[str, str]]:
    said = CliRunner().invoke(load_verb("check"), [str(star), "--tilt-range", "-60", "60", "--json"])
    return [warning for warning in json.loads(said.output)["warnings"] if "pixel" in warning["problem"]]


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


# --- to RELION ---------------------------------------------------------------------------------------------------


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


# --- real files --------------------------------------------------------------------------------------------------

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
