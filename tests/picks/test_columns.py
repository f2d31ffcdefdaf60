"""Half sets, classes and columns nobody needs, in every program's picks: kept, or named as left out."""

import struct
from pathlib import Path

import numpy as np
import pytest
import starfile

from cryodc.errors import InputError
from cryodc.picks import convert_picks, read_picks


def relion(folder: Path, cells: list[str], label: str) -> Path:
    path = folder / "in.star"
    head = "".join(f"_{name}\n" for name in ("rlnTomoName", *(f"rlnCoordinate{a}" for a in "XYZ"), label))
    rows = "".join(f"TS_07 {i} {i + 1} {i + 2} {cell}\n" for i, cell in enumerate(cells))
    path.write_text(f"data_particles\n\nloop_\n{head}{rows}")
    return path


def dynamo(folder: Path, **columns: list[str]) -> Path:
    path = folder / "in.tbl"
    n = len(next(iter(columns.values())))
    rows = [["1"] * 35 for _ in range(n)]
    for name, cells in columns.items():
        for row, cell in zip(rows, cells, strict=True):
            row[int(name[1:]) - 1] = cell
    path.write_text("".join(" ".join(row) + "\n" for row in rows))
    return path


def motivelist(folder: Path, **columns: list[float]) -> Path:
    path = folder / "in.em"
    n = len(next(iter(columns.values())))
    table = np.ones((n, 20), "<f4")
    for name, cells in columns.items():
        table[:, int(name[1:]) - 1] = cells
    path.write_bytes((bytes([6, 0, 0, 5]) + struct.pack("<3i", 20, n, 1)).ljust(512, b"\0") + table.tobytes())
    return path


def stopgap(folder: Path, **columns: list[str]) -> Path:
    path = folder / "in.star"
    labels = [
        "tomo_num",
        "halfset",
        "orig_x",
        "orig_y",
        "orig_z",
        "score",
        "x_shift",
        "y_shift",
        "z_shift",
        "phi",
        "psi",
        "the",
        "class",
    ]
    n = len(next(iter(columns.values())))
    cells = {label: ["1"] * n for label in labels} | {"halfset": ["A"] * n} | columns
    rows = "".join(" ".join(row) + "\n" for row in zip(*cells.values(), strict=True))
    path.write_text("data_stopgap_motivelist\n\nloop_\n" + "".join(f"_{label}\n" for label in labels) + rows)
    return path


@pytest.mark.parametrize(
    "texts", [["1.0", "2.0", "2.0"], ["1.000000", "2", "2"], ["+1", "2e0", "2"], ["1", "2", "2"], ["01", "02", "2.0"]]
)
def test_half_sets_in_any_spelling_are_kept_by_every_output_that_has_them(tmp_path: Path, texts: list[str]) -> None:
    source = relion(tmp_path, texts, "rlnRandomSubset")
    convert_picks(source, tmp_path / "out.star", "relion")
    assert starfile.read(tmp_path / "out.star")["rlnRandomSubset"].tolist() == [1, 2, 2]
    convert_picks(source, tmp_path / "motl.star", "stopgap")
    assert starfile.read(tmp_path / "motl.star")["halfset"].tolist() == ["A", "B", "B"]
    notes = convert_picks(source, tmp_path / "out.tbl").notes
    assert np.loadtxt(tmp_path / "out.tbl")[:, 22].tolist() == [1, 2, 2]
    assert any("half sets are in column 23" in note for note in notes)
    back = read_picks(tmp_path / "motl.star").half_sets
    assert back is not None
    assert back.tolist() == [1, 2, 2]


@pytest.mark.parametrize("texts", [["A", "b"], ["a", "B"], ["1", "2.0"]])
def test_half_sets_of_a_motivelist_are_letters_or_numbers(tmp_path: Path, texts: list[str]) -> None:
    found = read_picks(stopgap(tmp_path, halfset=texts)).half_sets
    assert found is not None
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize("texts", [["1", "0"], ["nan", "2"], ["1", "3.0"]])
def test_half_sets_that_are_lost_are_named(tmp_path: Path, texts: list[str]) -> None:
    found = convert_picks(relion(tmp_path, texts, "rlnRandomSubset"), tmp_path / "out.star")
    assert "rlnRandomSubset" not in starfile.read(tmp_path / "out.star")
    assert any("not carried over" in note and "rlnRandomSubset" in note for note in found.notes)


NUMBERS = [("-1", -1), ("-1.000000", -1), ("0", 0), ("3.0", 3), ("+3", 3), ("-999", -999)]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_a_class_number_is_kept_and_loses_no_other(tmp_path: Path, text: str, number: int) -> None:
    expected = [2, number, 5]
    sources = [
        relion(tmp_path, ["2", text, "5"], "rlnClassNumber"),
        dynamo(tmp_path, c22=["2", text, "5"]),
        motivelist(tmp_path, c20=[2, float(text), 5]),
    ]
    for i, source in enumerate(sources):
        for kind, out in (("relion", "out.star"), ("dynamo", "out.tbl"), ("stopgap", "motl.star")):
            path = tmp_path / f"{i}{out}"
            convert_picks(source, path, kind)  # type: ignore[arg-type]
            if kind == "dynamo":
                written = np.loadtxt(path)[:, 21].tolist()
            else:
                written = starfile.read(path)["rlnClassNumber" if kind == "relion" else "class"].tolist()
            assert written == expected


@pytest.mark.parametrize("text", ["nan", "inf", "2.5"])
def test_a_row_without_a_class_has_none_and_is_named(tmp_path: Path, text: str) -> None:
    for source in (
        relion(tmp_path, ["2", text, "-1"], "rlnClassNumber"),
        dynamo(tmp_path, c22=["2", text, "-1"]),
        motivelist(tmp_path, c20=[2, float(text), -1]),
    ):
        picks = read_picks(source)
        assert picks.classes is not None
        assert picks.classes.tolist() == [2, 0, -1]
        line = int(picks.rows[1])
        assert any(f"line {line}" in note and "class 0" in note for note in picks.left_out)
    everywhere = read_picks(relion(tmp_path, [text] * 3, "rlnClassNumber"))
    assert everywhere.classes is None
    assert any("rlnClassNumber" in note for note in everywhere.left_out)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_no_number_where_nobody_looks_refuses_no_picks(tmp_path: Path, text: str) -> None:
    # A cc, a tag and what follows the position; a score and what a motivelist has no use for.
    assert len(read_picks(dynamo(tmp_path, c10=[text, "1"], c1=["1", text], c30=[text, text]))) == 2
    assert len(read_picks(motivelist(tmp_path, c1=[float(text), 1], c15=[1, float(text)]))) == 2
    assert len(read_picks(stopgap(tmp_path, score=[text, "1"]))) == 2
    assert len(read_picks(relion(tmp_path, [text, "1"], "rlnAutopickFigureOfMerit"))) == 2


@pytest.mark.parametrize("text", ["nan", "inf", "1_0"])
def test_no_number_in_a_position_or_an_angle_is_one_error_with_its_line(tmp_path: Path, text: str) -> None:
    for column in ("c4", "c7", "c20", "c24"):
        with pytest.raises(InputError) as caught:
            read_picks(dynamo(tmp_path, **{column: ["1", text]}))
        assert caught.value.row == 2
    for label in ("orig_y", "x_shift", "phi"):
        with pytest.raises(InputError, match=f"{label} is not a number") as caught:
            read_picks(stopgap(tmp_path, **{label: ["1", text]}))
        assert caught.value.row == 18
    if text == "1_0":
        return
    for column in ("c5", "c8", "c13", "c17"):
        with pytest.raises(InputError) as caught:
            read_picks(motivelist(tmp_path, **{column: [1, float(text)]}))
        assert caught.value.row == 2


def test_half_a_tomogram_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="number of a tomogram is not whole"):
        read_picks(dynamo(tmp_path, c20=["7", "7.5"]))
    with pytest.raises(InputError, match="number of a tomogram is not whole"):
        read_picks(motivelist(tmp_path, c5=[7, 7.25]))


@pytest.mark.parametrize("name", ["out.star.gz", "out.tbl.gz", "out.csv.gz"])
def test_picks_written_under_a_name_of_gzip_are_gzip(tmp_path: Path, name: str) -> None:
    source = relion(tmp_path, ["1", "2"], "rlnRandomSubset")
    convert_picks(source, tmp_path / name)
    assert (tmp_path / name).read_bytes()[:2] == b"\x1f\x8b"
    np.testing.assert_allclose(read_picks(tmp_path / name).positions, read_picks(source).positions)


def test_a_name_of_thousands_of_digits_is_a_name(tmp_path: Path) -> None:
    from cryodc.io import last_number

    source = relion(tmp_path, ["1"], "rlnRandomSubset")
    source.write_text(source.read_text().replace("TS_07", "9" * 5000))
    assert read_picks(source).tomograms == ("9" * 5000,)
    assert last_number("9" * 5000) is None
    convert_picks(source, tmp_path / "out.tbl")
