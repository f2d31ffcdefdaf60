"""``cryodc convert``: the same particle in every program; scipy and published pairs of angles are the oracles."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.prepare.convert import convert
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.picks import convert_picks, read_picks, read_tomogram_names
from cryodc.picks.writers import PickFormat

FORMATS: dict[PickFormat, str] = {"relion": "a.star", "dynamo": "b.tbl", "stopgap": "c.star", "csv": "d.csv"}


def _rz(degrees: float) -> NDArray[np.float64]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _rx(degrees: float) -> NDArray[np.float64]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _relion_star(path: Path, rows: list[tuple[float, ...]], name: str = "TS_07") -> Path:
    labels = [*(f"rlnCoordinate{a}" for a in "XYZ"), *(f"rlnAngle{a}" for a in ("Rot", "Tilt", "Psi"))]
    labels += ["rlnClassNumber", "rlnRandomSubset", "rlnTomoName"]
    lines = [" ".join(map(repr, row)) + f" {name}" for row in rows]
    header = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels, start=1))
    path.write_text(f"data_particles\n\nloop_\n{header}\n" + "\n".join(lines) + "\n")
    return path


# Angles of the same particle in Dynamo and RELION, from refinements that gave the same reconstruction
# (from the tests of the eulerangles package).
DYNAMO_PAIR = [-47.2730, 1.1777, -132.3000]
RELION_PAIR = [137.7000, 1.1777, 42.7270]


def test_a_published_pair_of_angles_is_one_particle(tmp_path: Path) -> None:
    source = _relion_star(tmp_path / "in.star", [(10.0, 20.0, 30.0, *RELION_PAIR, 1, 1)])
    convert_picks(source, tmp_path / "out.tbl")
    table = np.loadtxt(tmp_path / "out.tbl")
    np.testing.assert_allclose(table[6:9], DYNAMO_PAIR, atol=1e-4)
    convert_picks(tmp_path / "out.tbl", tmp_path / "back.star")
    back = starfile.read(tmp_path / "back.star")
    np.testing.assert_allclose(
        back[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy().ravel(), RELION_PAIR, atol=1e-4
    )


_ANGLE = st.one_of(st.floats(-180, 180), st.sampled_from([0.0, 90.0, 180.0, -90.0, 3867.465]))
_TILT = st.one_of(st.floats(0, 180), st.sampled_from([0.0, 180.0, 1e-4, -35.0]))
_ROWS = st.lists(
    st.tuples(*[st.floats(0, 4000)] * 3, _ANGLE, _TILT, _ANGLE, st.integers(0, 9), st.integers(1, 2)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_ROWS)
def test_each_format_says_the_same_by_its_own_matrices(tmp_path: Path, rows: list[tuple[float, ...]]) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    source = _relion_star(tmp_path / "in.star", rows)
    for kind, name in FORMATS.items():
        convert_picks(source, tmp_path / name, kind)
    values = np.array([row[:6] for row in rows], dtype=float)
    # RELION: A = (Rz(rot) Ry(tilt) Rz(psi))ᵀ takes the reference to the particle.
    expected = Rotation.from_euler("ZYZ", values[:, 3:], degrees=True).inv().as_matrix()
    dynamo = np.loadtxt(tmp_path / "b.tbl", ndmin=2)
    assert dynamo.shape == (len(rows), 35)
    stopgap = starfile.read(tmp_path / "c.star")
    for i, matrix in enumerate(expected):
        tdrot, tilt, narot = dynamo[i, 6:9]
        np.testing.assert_allclose((_rz(narot) @ _rx(tilt) @ _rz(tdrot)).T, matrix, atol=1e-6)
        phi, psi, the = (float(stopgap[label][i]) for label in ("phi", "psi", "the"))
        np.testing.assert_allclose(_rz(psi) @ _rx(the) @ _rz(phi), matrix, atol=1e-6)
    # Dynamo's first voxel ends at 1 and has its centre at 0.5; STOPGAP's is 1; whole voxels and a shift.
    np.testing.assert_allclose(dynamo[:, 23:26] + dynamo[:, 3:6] - 0.5, values[:, :3], atol=1e-5)
    whole = stopgap[["orig_x", "orig_y", "orig_z"]].to_numpy(dtype=float)
    shift = stopgap[["x_shift", "y_shift", "z_shift"]].to_numpy(dtype=float)
    np.testing.assert_allclose(whole + shift - 1, values[:, :3], atol=1e-5)
    assert (whole == np.round(whole)).all()
    assert (np.abs(shift) <= 0.5).all()
    assert set(dynamo[:, 19]) == set(stopgap["tomo_num"]) == {7}
    assert list(dynamo[:, 21]) == list(stopgap["class"]) == [row[6] for row in rows]
    assert list(stopgap["halfset"]) == ["AB"[int(row[7]) - 1] for row in rows]


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMATS, 2)))
def test_there_and_back_is_the_same_particle(tmp_path: Path, first: PickFormat, second: PickFormat) -> None:
    rng = np.random.default_rng(5)
    angles = Rotation.random(20, rng=rng).as_euler("ZYZ", degrees=True)
    rows = [(*rng.uniform(0, 900, 3).tolist(), *a.tolist(), 1 + i % 3, 1 + i % 2) for i, a in enumerate(angles)]
    one, two, three = tmp_path / FORMATS[first], tmp_path / FORMATS[second], tmp_path / f"back_{FORMATS[first]}"
    names = tmp_path / "names.csv"
    names.write_text("number,tomogram\n7,TS_07\n")
    convert_picks(_relion_star(tmp_path / "in.star", rows), one, first)
    convert_picks(one, two, second)
    convert_picks(two, three, first)
    before, after = read_picks(one), read_picks(three)
    np.testing.assert_allclose(after.positions, before.positions, atol=2e-6)
    assert before.rotations is not None
    assert after.rotations is not None
    np.testing.assert_allclose(after.rotations, before.rotations, atol=1e-6)
    assert {name.removeprefix("TS_0") for name in after.tomograms} == {"7"}
    if second != "csv" and first != "csv":
        assert before.classes is not None
        assert after.classes is not None
        assert after.classes.tolist() == before.classes.tolist()


def test_a_real_dynamo_table_goes_to_relion_and_back(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "star" / "dynamo2m_example.tbl.gz"
    result = convert_picks(source, tmp_path / "a.star")
    table = np.loadtxt(source)
    star = starfile.read(tmp_path / "a.star", parse_as_string=["rlnTomoName"])
    xyz = star[["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]].to_numpy()
    np.testing.assert_allclose(xyz, table[:, 23:26] + table[:, 3:6] - 0.5, atol=1e-6)
    assert [int(name) for name in star["rlnTomoName"]] == table[:, 19].astype(int).tolist()
    assert any("not carried over" in note for note in result.notes)
    convert_picks(tmp_path / "a.star", tmp_path / "b.tbl")
    back = np.loadtxt(tmp_path / "b.tbl")
    ours, theirs = (Rotation.from_euler("zxz", t[:, 6:9], degrees=True) for t in (back, table))
    assert np.degrees((ours * theirs.inv()).magnitude()).max() < 1e-4
    assert not (tmp_path / "b.tomograms.csv").exists()


def test_relion_5_needs_the_size_and_spacing_of_the_tomogram(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "star" / "cylindra_run_it025_data.star"
    with pytest.raises(InputError, match="voxel spacing of the tomogram"):
        convert_picks(source, tmp_path / "a.tbl")
    with pytest.raises(InputError, match="centre of the tomogram"):
        convert_picks(source, tmp_path / "a.tbl", spacing_angstrom=10.0)
    assert not (tmp_path / "a.tbl").exists()
    convert_picks(source, tmp_path / "a.tbl", spacing_angstrom=10.0, tomogram_size_xyz=(400, 410, 100))
    table = np.loadtxt(tmp_path / "a.tbl")
    star = starfile.read(source, parse_as_string=["rlnTomoName"])["particles"]
    frame, rest = (
        Rotation.from_euler("ZYZ", star[[f"{p}{a}" for a in ("Rot", "Tilt", "Psi")]].to_numpy(), degrees=True)
        for p in ("rlnTomoSubtomogram", "rlnAngle")
    )
    centred = star[[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy()
    origins = star[[f"rlnOrigin{a}Angst" for a in "XYZ"]].to_numpy()
    expected = (centred - frame.inv().apply(origins)) / 10 + [200, 205, 50]
    np.testing.assert_allclose(table[:, 23:26] - 0.5, expected, atol=1e-5)
    dynamo = Rotation.from_euler("zxz", table[:, 6:9], degrees=True).inv()
    assert np.degrees((dynamo * (frame.inv() * rest.inv()).inv()).magnitude()).max() < 1e-4
    assert read_tomogram_names(tmp_path / "a.tomograms.csv") == {"1": "TS_01", "2": "TS_02"}


def test_numbers_become_names_again(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("x,y,z,tomogram\n1,2,3,left\n4,5,6,right\n7,8,9,left\n")
    convert_picks(source, tmp_path / "a.tbl")
    names = read_tomogram_names(tmp_path / "a.tomograms.csv")
    convert_picks(tmp_path / "a.tbl", tmp_path / "b.star", tomogram_names=names)
    assert read_picks(tmp_path / "b.star").tomograms == ("left", "right", "left")
    with pytest.raises(InputError, match="not in the table of names") as caught:
        convert_picks(tmp_path / "a.tbl", tmp_path / "c.star", tomogram_names={"1": "left"})
    assert caught.value.row == 2


def test_the_command_says_what_is_lost_and_overwrites_nothing(tmp_path: Path) -> None:
    source = _relion_star(tmp_path / "in.star", [(1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1, 2)])
    before = source.read_bytes()
    said = CliRunner().invoke(convert, [str(source), str(tmp_path / "a.tbl")], env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    assert "half sets are in column 23" in said.output
    assert source.read_bytes() == before
    with pytest.raises(InputError, match="refusing to overwrite"):
        convert_picks(source, tmp_path / "a.tbl")
    with pytest.raises(InputError, match="refusing to overwrite"):
        convert_picks(source, source)
    with pytest.raises(InputError, match="cannot tell the format"):
        convert_picks(source, tmp_path / "a.xyz")
    bad = tmp_path / "names.csv"
    bad.write_text("1,a\n1,b\n")
    with pytest.raises(InputError, match="tomogram names cannot be used"):
        read_tomogram_names(bad)
