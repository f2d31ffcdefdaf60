"""Tilt ranges from what people have; every file is written as its program writes it."""

from pathlib import Path

import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.fourier import frequency_grid, wedge_from_tilt_range
from cryodc.io import find_by_name, write_array
from cryodc.tilt_angles import read_tilt_ranges

MDOC = """PixelSpacing = 2.17
ImageFile = TS_01.mrc
ImageSize = 4096 4096

[T = SerialEM: Acquired on Titan Krios D3689]

[ZValue = 0]
TiltAngle = 0.0085
StagePosition = 12.1 -3.4
PriorRecordDose = 0
SubFramePath = X:\\frames\\TS_01_000_0.0.tif

[ZValue = 1]
TiltAngle = 57.0012
SubFramePath = X:\\frames\\TS_01_001_57.0.tif

[ZValue = 2]
TiltAngle = -50.9988
"""
ALN = """# AreTomo Alignment / Priims bprmMn
# RawSize = 3838 3710 5
# NumPatches = 1
# DarkFrame =     0    1   -66.00
# AlphaOffset =     2.00
# BetaOffset =      0.00
# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT
    1   -85.3921    1.00000    -12.114     88.202     1.00     1.00     1.00     0.00    -52.03
    2   -85.3921    1.00000      3.014     -1.220     1.00     1.00     1.00     0.00      0.97
    3   -85.3921    1.00000      9.998     14.551     1.00     1.00     1.00     0.00     59.96
# Local Alignment
   0   0   512.00   -300.00      1.20     -0.30   1.0
   1   0   512.00   -300.00      0.20      0.10   1.0
"""
WARP = """<?xml version="1.0" encoding="utf-8"?>
<TiltSeries DataDirectory="." AreAnglesInverted="False" PlaneNormal="0, 0, 1" UnselectFilter="False"
  CTFResolutionEstimate="9.1" LevelAngleX="0" LevelAngleY="3">
  <Angles>66
51
-3
-63</Angles>
  <Dose>30
20
0
40</Dose>
  <UseTilt>False
True
True
True</UseTilt>
  <AxisAngle>85
85
85
85</AxisAngle>
  <CTF><Param Name="PixelSize" Value="2.17" /></CTF>
</TiltSeries>
"""
RELION_SERIES = """
# version 50001

data_{name}

loop_
_rlnMicrographMovieName #1
_rlnTomoNominalStageTiltAngle #2
_rlnTomoXTilt #3
_rlnTomoYTilt #4
_rlnTomoZRot #5
frames/{name}_001.eer  -51.001   0.000000  -49.500000  85.1
frames/{name}_002.eer    0.010   0.000000    1.500000  85.1
frames/{name}_003.eer   57.002   0.000000   58.500000  85.1
"""


def test_each_format_tells_the_range_of_its_tilt_series(tmp_path: Path) -> None:
    written = {
        "TS_01.tlt": (" -49.50\n   1.50\n  58.50\n\n", (-49.5, 58.5)),
        "TS_01.rawtlt": ("-51.00\n0.01\n57.00\n", (-51.0, 57.0)),
        "TS_01_st.tlt": ("-49.50\n58.50\n", (-49.5, 58.5)),
        "TS_01.mrc.mdoc": (MDOC, (-51.0, 57.0)),
        "TS_01.aln": (ALN, (-52.03, 59.96)),
        # Warp turns by −(angle + level), and leaves out the tilt at 66°.
        "TS_01.xml": (WARP, (-54.0, 60.0)),
        "TS_01.star": (RELION_SERIES.format(name="TS_01"), (-49.5, 58.5)),
        "TS_01.tomostar": (
            "\ndata_\n\nloop_\n_wrpMovieName #1\n_wrpAngleTilt #2\n_wrpAxisAngle #3\n_wrpDose #4\n"
            "../frames/a.eer  51.0  85.0  0.0\n../frames/b.eer  -57.0  85.0  3.0\n",
            (-51.0, 57.0),
        ),
    }
    for name, (text, expected) in written.items():
        path = tmp_path / name
        path.write_text(text)
        assert read_tilt_ranges(path) == {"TS_01": expected}, name


def test_warp_and_relion_state_one_geometry_with_opposite_signs(tmp_path: Path) -> None:
    """A projection along ``Rᵀ z`` measures the plane across it; R is Rz Ry(−angle) in Warp, Rz Ry(tilt) in RELION."""
    angle = 40.0
    text = WARP.replace('LevelAngleY="3"', 'LevelAngleY="0"').replace("66\n51\n-3\n-63", f"0\n{angle}\n0\n{angle - 5}")
    (tmp_path / "a.xml").write_text(text)
    low, high = read_tilt_ranges(tmp_path / "a.xml")["a"]
    assert (low, high) == (-angle, 0)
    # In the middle between both ends the plane of a projection is measured, and its mirror image is not.
    c, s = np.cos(np.radians(-angle / 2)), np.sin(np.radians(-angle / 2))
    beam = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T @ [0, 0, 1]
    k = frequency_grid(32).double().numpy()
    near = (np.abs(k[..., ::-1] @ beam) < 0.5) & (np.abs(k[..., 2]) > 5) & (np.abs(k).max(axis=-1) < 15)
    mirrored = (
        (np.abs(k[..., ::-1] @ (beam * [-1, 1, 1])) < 0.5) & (np.abs(k[..., 2]) > 5) & (np.abs(k).max(axis=-1) < 15)
    )
    weight = wedge_from_tilt_range(32, low, high).numpy()
    assert weight[near].mean() > 0.95
    assert weight[mirrored].mean() < 0.05


def test_tomograms_star_names_its_tilt_series_files_from_the_folder_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "Import/job001/tilt_series").mkdir(parents=True)
    lines = []
    for name in ("TS_01", "TS_02"):
        file = f"Import/job001/tilt_series/{name}.star"
        text = RELION_SERIES.format(name=name)
        (tmp_path / file).write_text(text if name == "TS_01" else text.replace("-49.500000", "-60.500000"))
        lines.append(f"{name} 300.0 {file} 1.35")
    head = "\n# version 50001\n\ndata_global\n\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\n"
    tomograms = tmp_path / "Import/job001/tomograms.star"
    rest = "_rlnTomoTiltSeriesStarFile #3\n_rlnTomoTiltSeriesPixelSize #4\n"
    tomograms.write_text(head + rest + "\n".join(lines) + "\n")
    assert read_tilt_ranges(tomograms) == {"TS_01": (-49.5, 58.5), "TS_02": (-60.5, 58.5)}
    (tmp_path / "Import/job001/tilt_series/TS_02.star").unlink()
    with pytest.raises(InputError, match="no such file") as caught:
        read_tilt_ranges(tomograms)
    assert caught.value.row == 12


def test_projection_matrices_tell_the_tilt_about_y_whatever_the_axis_in_the_image(tmp_path: Path) -> None:
    """RELION 4: the specimen is turned about y by the tilt, then about z by the angle of the axis."""
    lines = []
    for tilt in (-51.0, 0.0, 60.0):
        matrix = Rotation.from_euler("yz", [tilt, 85.3], degrees=True).as_matrix()
        lines.append(" ".join("[" + ",".join(f"{value:.6f}" for value in row) + ",100]" for row in matrix))
    head = "data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoFrameCount #2\nTS_01 3\n\ndata_TS_01\n\nloop_\n"
    labels = "".join(f"_rlnTomoProj{axis} #{i}\n" for i, axis in enumerate("XYZ", 1))
    (tmp_path / "tomograms.star").write_text(head + labels + "\n".join(lines) + "\n")
    assert read_tilt_ranges(tmp_path / "tomograms.star") == {"TS_01": (-51.0, 60.0)}


def test_real_files_of_relion_and_warp_are_read(shared_data: Path) -> None:
    """WarpTools wrote matrices; their third row is where the beam goes."""
    path = next((shared_data / "real/ribosome70s/tilt_stacks").glob("*_tomograms.star"))
    found, tables = read_tilt_ranges(path), starfile.read(path, always_dict=True)
    assert set(found) == set(tables["global"]["rlnTomoName"])
    for name, (low, high) in found.items():
        rows = np.array([np.array(text[1:-1].split(","), float) for text in tables[name]["rlnTomoProjZ"]])
        angles = np.degrees(np.arcsin(-rows[:, 0] / np.linalg.norm(rows[:, [0, 2]], axis=1)))
        np.testing.assert_allclose((low, high), (angles.min(), angles.max()), atol=0.2)
        assert high - low > 90


def test_in_a_folder_the_aligned_angles_win_and_two_of_a_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "TS_01").mkdir()
    (tmp_path / "TS_01/TS_01.rawtlt").write_text("-51\n57\n")
    (tmp_path / "TS_01/TS_01.tlt").write_text("-49.5\n58.5\n")
    (tmp_path / "TS_02.mrc.mdoc").write_text(MDOC)
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "frame.mdoc").write_text("[FrameSet = 0]\nTiltAngle = 3\n")
    (tmp_path / "movie.xml").write_text("<Movie><OptionsCTF /></Movie>")
    (tmp_path / "particles.star").write_text("data_\n\nloop_\n_rlnImageName\na.mrc\n")
    expected = {"TS_01": (-49.5, 58.5), "TS_02": (-51.0, 57.0)}
    assert read_tilt_ranges(tmp_path) == expected
    (tmp_path / "TS_01.aln").write_text(ALN)
    with pytest.raises(InputError, match="different tilt ranges of TS_01") as caught:
        read_tilt_ranges(tmp_path)
    assert all(name in str(caught.value) for name in ("TS_01.aln", "TS_01.tlt"))


def test_names_are_matched_whole_and_two_that_fit_are_refused(tmp_path: Path) -> None:
    for name in ("Position_1.tlt", "Position_1_2.tlt"):
        (tmp_path / name).write_text(f"-60\n{40 + len(name)}\n")
    ranges = read_tilt_ranges(tmp_path)
    assert find_by_name(ranges, "Position_1_10.00Apx.mrc") == (-60, 54)
    assert find_by_name(ranges, "Position_1_2.mrc") == (-60, 56)
    assert find_by_name(ranges, "Position_11.mrc") is None
    for name in ("Position_1_bin4.tlt", "Position_1_ali.tlt"):
        (tmp_path / name).write_text("-60\n60\n")
    (tmp_path / "Position_1.tlt").unlink()
    with pytest.raises(InputError, match="could be several tomograms") as caught:
        find_by_name(read_tilt_ranges(tmp_path), "Position_1.mrc")
    assert "Position_1_ali, Position_1_bin4" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "row"),
    [
        ("a.tlt", "-60\nsixty\n", 2),
        ("a.tlt", "-60\n", None),
        ("a.tlt", "-95\n60\n", None),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = \n[ZValue = 1]\nTiltAngle = 3\n", 2),
        ("a.mdoc", "ImageFile = a.mrc\n", None),
        ("a.aln", "# AreTomo Alignment\n 1 2 3\n", 2),
        ("a.xml", "<TiltSeries><Angles>1\n2</Angles>", None),
        ("a.xml", "<TiltSeries><Angles>1\n2</Angles><UseTilt>True</UseTilt></TiltSeries>", None),
        ("a.xml", "<Movie><Angles>1\n2</Angles></Movie>", None),
        ("a.star", "data_global\n\nloop_\n_rlnTomoName\nTS_01\n", None),
        ("a.star", "data_TS\n\nloop_\n_rlnTomoYTilt\n1.0\nnan\n", 6),
        ("a.star", "data_TS\n\nloop_\n_rlnTomoProjZ\n[0,0,0,0]\n", 5),
    ],
)
def test_a_file_that_tells_no_range_is_one_error(tmp_path: Path, name: str, text: str, row: int | None) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_tilt_ranges(tmp_path / name)
    assert (caught.value.file, caught.value.row) == (tmp_path / name, row)


def test_extract_takes_a_folder_of_tilt_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_array(tmp_path / "TS_01_10.00Apx.mrc", rng.normal(size=(24, 32, 32)).astype(np.float32), 10.0)
    (tmp_path / "tilts").mkdir()
    (tmp_path / "tilts/TS_01.tlt").write_text("-49.5\n0\n58.5\n")
    (tmp_path / "picks.csv").write_text("x,y,z,tomogram\n16,16,12,TS_01\n")
    command = [str(tmp_path / "TS_01_10.00Apx.mrc"), "--picks", str(tmp_path / "picks.csv"), "--box", "16"]
    command += ["--tilt-ranges", str(tmp_path / "tilts"), "--out", str(tmp_path / "sub")]
    done = CliRunner().invoke(load_verb("extract"), command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "sub/weights").iterdir()] == ["wedge-49.5+58.5.mrc"]


def test_tilt_ranges_are_read_with_or_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "tilts.csv"
    path.write_text("tomogram,tilt_min,tilt_max\nTS_01,-60,60\nTS_02, -51.5 ,48\n\n")
    expected = {"TS_01": (-60.0, 60.0), "TS_02": (-51.5, 48.0)}
    assert read_tilt_ranges(path) == expected
    path.write_text("TS_01,-60,60\r\nTS_02,-51.5,48\r\n")
    assert read_tilt_ranges(path) == expected


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("TS_01,-60,60\nTS_01,-50,50\n", 2),
        ("TS_01,-60,60\nTS_02,60,-60\n", 2),
        ("tomogram,tilt_min,tilt_max\nTS_02,-95,60\n", 2),
        ("TS_01,-60\n", 1),
        ("TS_01,a,b\n", 1),
        ("TS_01,nan,60\n", 1),
        ("tomogram,tilt_min,tilt_max\n", None),
        ("", None),
    ],
)
def test_a_bad_row_of_tilt_ranges_is_named(tmp_path: Path, text: str, row: int | None) -> None:
    path = tmp_path / "tilts.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_tilt_ranges(path)
    assert (caught.value.file, caught.value.row) == (path, row)
