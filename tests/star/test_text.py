"""STAR files as text: what was read is written back, byte for byte, but for what was asked."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryodc.errors import InputError
from cryodc.particles import with_classes
from cryodc.star import StarDocument, read_star, write_star
from cryodc.star.lexer import cells_of, quote
from tests.made_stars import SAMPLES, _data_star


def _plain(path: Path, folder: Path) -> Path:
    """The file itself, or its unpacked copy: starfile reads no gzip."""
    if path.suffix != ".gz":
        return path
    copy = folder / path.stem
    copy.write_bytes(gzip.decompress(path.read_bytes()))
    return copy


def _as_strings(path: Path) -> dict[str, pd.DataFrame | dict[str, str]]:
    labels = [label for block in read_star(path).blocks for label in block.labels]
    return starfile.read(path, always_dict=True, parse_as_string=labels)


@pytest.mark.parametrize("name", SAMPLES)
def test_writing_what_was_read_gives_the_same_bytes(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = _plain(shared_data / "star" / name, tmp_path)
    write_star(read_star(source), tmp_path / "out.star")
    assert (tmp_path / "out.star").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", SAMPLES)
def test_every_cell_is_what_starfile_reads(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = _plain(shared_data / "star" / name, tmp_path)
    document = read_star(source)
    expected = _as_strings(source)
    assert [block.name for block in document.blocks] == list(expected)
    for block in document.blocks:
        oracle = expected[block.name]
        assert list(block.labels) == list(oracle)
        assert block.is_loop == isinstance(oracle, pd.DataFrame)
        ours = block.columns(block.labels)
        for label in block.labels:
            theirs = list(oracle[label]) if isinstance(oracle, pd.DataFrame) else [oracle[label]]
            assert ours[label] == theirs, label


@pytest.mark.parametrize("name", [name for name, what in SAMPLES.items() if isinstance(what, tuple)])
def test_setting_classes_changes_only_the_class_column(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = _plain(shared_data / "star" / name, tmp_path)
    document = read_star(source)
    block = next(block for block in document.blocks if "rlnImageName" in block)
    classes = [1 + i % 7 for i in range(block.n_rows)]
    write_star(with_classes(document, classes), tmp_path / "classes.star")
    before, after = _as_strings(source), _as_strings(tmp_path / "classes.star")
    assert list(after) == list(before)
    for block_name, table in after.items():
        untouched = list(before[block_name])
        if block_name == block.name:
            assert [int(text) for text in table["rlnClassNumber"]] == classes
            assert list(table) == untouched + ["rlnClassNumber"] * ("rlnClassNumber" not in untouched)
            untouched = [label for label in untouched if label != "rlnClassNumber"]
        for label in untouched:
            assert list(table[label]) == list(before[block_name][label])
    # Characters too: lines that are no row are what they were, but for one more label.
    rows = set(block.row_lines.tolist())
    frame = [line for i, line in enumerate(document.lines) if i not in rows]
    new = read_star(tmp_path / "classes.star")
    new_rows = set(new.block(block.name).row_lines.tolist())
    new_frame = [line for i, line in enumerate(new.lines) if i not in new_rows]
    assert [line for line in new_frame if "rlnClassNumber" not in line] == [
        line for line in frame if "rlnClassNumber" not in line
    ]


def test_what_a_user_wrote_by_hand_stays() -> None:
    text = (
        "# a note\r\ndata_particles\r\n\r\nloop_ \r\n_rlnImageName #1 \r\n_rlnClassNumber #2 # old\r\n"
        '\t"a b.mrc"\t1  # first\r\n\r\n  c.mrc 2\r\n# the end'
    )
    document = _document(text)
    assert document.block("particles").column("rlnImageName") == ["a b.mrc", "c.mrc"]
    changed = document.with_column("particles", "rlnClassNumber", ["5", "2"])
    assert changed.text() == text.replace('"a b.mrc"\t1 ', '"a b.mrc"\t5 ')
    appended = document.with_column("particles", "rlnRandomSubset", ["1", "2"])
    assert appended.block("particles").column("rlnRandomSubset") == ["1", "2"]
    assert appended.text().count("\r\n") == text.count("\r\n") + 1
    assert "2\t" not in appended.text()
    assert "1\t1  # first" in appended.text()


def _document(text: str) -> StarDocument:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.star"
        path.write_bytes(text.encode())
        return read_star(path)


def test_rows_can_be_dropped_and_reordered() -> None:
    text = "data_a\nloop_\n_x #1\n_y #2\n1 one\n# between\n2 two\n3 three"
    document = _document(text)
    assert document.with_rows("a", [0, 2]).text() == "data_a\nloop_\n_x #1\n_y #2\n1 one\n# between\n3 three\n"
    reordered = document.with_rows("a", np.array([2, 0]))
    assert reordered.block("a").column("y") == ["three", "one"]
    assert document.with_rows("a", []).block("a").n_rows == 0


def test_single_values_can_be_set_and_added() -> None:
    document = _document("data_general\n\n_rlnFlag   0 # off\n_rlnEmpty\n\ndata_b\nloop_\n_x\n1\n")
    changed = document.with_columns("general", {"rlnFlag": ["1"], "rlnEmpty": ["now set"], "rlnNew": ["x"]})
    assert changed.text().startswith('data_general\n\n_rlnFlag   1 # off\n_rlnEmpty "now set"\n_rlnNew x\n\ndata_b\n')


@pytest.mark.parametrize(
    ("text", "word", "problem"),
    [
        ("data_\nloop_\n_a #1\n_b #2\n_a #3\n1 2 3\n", "_a #3", "comes twice"),
        ("data_\nloop_\n_a #1\n_b #2\n1 2\n3\n", "3", "wrong number of cells"),
        ("data_\nloop_\n_a #1\n_b #2\n1 2 3\n", "1 2 3", "wrong number of cells"),
        ('data_\nloop_\n_a #1\n_b #2\n"1 2\n', '"1 2', "quote is not closed"),
        ("data_\nloop_\n_a #1\n1\nloop_\n_b\n2\n", "loop_\n_b", "second table"),
        ("hello\ndata_\n", "hello", "not a STAR file"),
        ("data_\n_a 1 2\n", "_a 1 2", "cannot be read"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, text: str, word: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        read_star(_data_star(tmp_path, text))
    before = text[: text.rindex(word)]
    assert caught.value.row == before.count("\n") + 1


@pytest.mark.parametrize("content", [b"", b"  \n\n", b"\x00\x01\x02data_\n", b"# only this\n", b"data_\r_a 1\r"])
def test_what_is_no_star_is_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.star"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_star(path)


def test_a_cut_gzip_and_a_missing_file_are_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.star.gz"
    path.write_bytes(gzip.compress(b"data_\n_a 1\n" * 1000)[:-20])
    with pytest.raises(InputError, match="cannot read"):
        read_star(path)
    with pytest.raises(InputError, match="No such file"):
        read_star(tmp_path / "none.star")


def test_a_changed_byte_in_a_gzip_is_one_error(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"data_\n_a 1\n" * 1000))
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "a.star.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read"):
        read_star(path)


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    content = b"data_\nloop_\n_a\n_b\nM\xfcller 1\nm\xc3\xbcller\xc2\xa0x 2\n"
    path = tmp_path / "a.star"
    path.write_bytes(content)
    document = read_star(path).with_column("", "b", ["1", "3"])
    write_star(document, tmp_path / "b.star")
    assert (tmp_path / "b.star").read_bytes() == content.replace(b"x 2", b"x 3")


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    path = _data_star(tmp_path, "data_\n_a 1\n")
    with pytest.raises(InputError, match="overwrite an input"):
        write_star(read_star(path), tmp_path / "." / "particles.star")


# Anything but what ends a line, a form feed among other white space, and control characters.
_CELL = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12).filter(
    lambda text: not ('"' in text and "'" in text)
)
_GAP = st.sampled_from([" ", "  ", "\t", " \t "])
_LABEL = st.text(st.sampled_from("abcXYZ019_."), min_size=1, max_size=6)
_JUNK = st.sampled_from(["", "   ", "# a comment with _words and data_", "\t"])


@st.composite
def _tables(draw: st.DrawFn) -> tuple[str, list[str], list[list[str]]]:
    """A document with one table among other blocks: its text, labels and cells."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    labels = draw(st.lists(_LABEL, min_size=1, max_size=5, unique=True))
    rows = draw(st.lists(st.lists(_CELL, min_size=len(labels), max_size=len(labels)), max_size=6))
    lines = [draw(_JUNK), "data_general", "_flag 1", draw(_JUNK), "data_table", draw(_JUNK)]
    lines.append(draw(st.sampled_from(["loop_", "loop_ "])))
    for number, label in enumerate(labels, start=1):
        lines.append(f"_{label}" + draw(st.sampled_from(["", f" #{number}", f" #{number} ", "\t# note"])))
    for row in rows:
        line = draw(st.sampled_from(["", "  ", "\t"]))
        for cell in row:
            line += quote(cell) + draw(_GAP)
        lines += [line, draw(_JUNK)]
    if draw(st.booleans()):
        lines += ["data_after", "loop_", "_x", "1"]
    return end.join(lines) + draw(st.sampled_from(["", end])), labels, rows


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_tables(), st.data())
def test_any_table_reads_as_it_was_made_and_edits_change_one_column(
    made: tuple[str, list[str], list[list[str]]], data: st.DataObject
) -> None:
    text, labels, rows = made
    document = _document(text)
    table = document.block("table")
    assert document.text() == text
    assert list(table.labels) == labels
    assert table.columns(labels) == {label: [row[i] for row in rows] for i, label in enumerate(labels)}
    # An edit reads back, leaves all else, and undoing it restores every byte that a quote did not add.
    label = data.draw(st.sampled_from([*labels, "new"]))
    values = data.draw(st.lists(_CELL, min_size=len(rows), max_size=len(rows)))
    edited = document.with_column("table", label, values)
    after = edited.block("table")
    assert after.column(label) == values
    others = [other for other in labels if other != label]
    assert after.columns(others) == table.columns(others)
    assert [b.name for b in edited.blocks] == [b.name for b in document.blocks]
    if label in labels:
        same = document.with_column("table", label, table.column(label))
        assert same.text() == text
    keep = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True)) if rows else []
    kept = document.with_rows("table", keep).block("table")
    assert kept.columns(labels) == {name: [rows[i][j] for i in keep] for j, name in enumerate(labels)}


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("data_loop_ab #\"'\n\t_1.")))
def test_no_text_makes_the_parser_fail_otherwise_than_by_an_input_error(text: str) -> None:
    try:
        document = _document(text)
    except InputError:
        return
    assert document.text() == text


@given(_CELL)
def test_a_quoted_value_reads_as_itself(value: str) -> None:
    assert cells_of(f"first {quote(value)} last") == ["first", value, "last"]
