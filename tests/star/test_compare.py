"""``cryodc check --round-trip``: it proves what changed, and misses nothing that did."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.prepare.check import check
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodc.errors import InputError
from cryodc.particles import with_classes
from cryodc.star import compare_stars, read_star, write_star

TEXT = (
    "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n1 10.0\n\n"
    "data_particles\n\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n_rlnClassNumber #3\n"
    "a.mrc  1.50  1\nb.mrc  3867.465  1\n# odd one\nc.mrc  -0.0  2\n"
)


def _pair(folder: Path, before: str, after: str) -> tuple[Path, Path]:
    paths = folder / "before.star", folder / "after.star"
    for path, text in zip(paths, (before, after), strict=True):
        path.write_bytes(text.encode())
    return paths


def _particle_stars(folder: Path) -> list[str]:
    """Samples whose particle block can be found, 2D stacks and single particles too."""
    names = []
    for path in sorted(folder.glob("*.star*")):
        blocks = read_star(path).blocks
        if sum(block.is_loop and "rlnImageName" in block and block.n_rows > 0 for block in blocks) == 1:
            names.append(path.name)
    return names


def test_every_sample_comes_back_as_it_was_and_classes_change_one_column(shared_data: Path, tmp_path: Path) -> None:
    names = _particle_stars(shared_data / "star")
    assert len(names) >= 12
    for name in names:
        source = shared_data / "star" / name
        document = read_star(source)
        same = tmp_path / f"same_{name.removesuffix('.gz')}"
        write_star(document, same)
        content = source.read_bytes()
        assert same.read_bytes() == (gzip.decompress(content) if name.endswith(".gz") else content), name
        assert compare_stars(source, same).verdict == "byte-identical"
        block = next(block for block in document.blocks if "rlnImageName" in block)
        had_classes = "rlnClassNumber" in block
        old = block.column("rlnClassNumber") if had_classes else []
        # Numbers no sample holds, so that every row changes.
        new = [str(1001 + i % 5) for i in range(block.n_rows)]
        classes = tmp_path / f"classes_{name.removesuffix('.gz')}"
        write_star(document.with_column(block.name, "rlnClassNumber", new), classes)
        comparison = compare_stars(source, classes)
        expected = f"only rlnClassNumber changed in {len(old)} rows" if had_classes else "only rlnClassNumber added"
        assert comparison.verdict.replace("1 rows", "1 row").startswith(expected.replace(" 1 rows", " 1 row")), name
        assert not comparison.lines_removed
        assert not comparison.lines_added
        assert sum(len(block.changes()) for block in comparison.blocks) == 1


def test_classes_set_by_the_package_are_the_only_difference(tmp_path: Path) -> None:
    before, after = _pair(tmp_path, TEXT, "")
    write_star(with_classes(read_star(before), [1, 2, 3]), after)
    comparison = compare_stars(before, after)
    assert comparison.verdict == "only rlnClassNumber changed in 2 rows"
    differences = comparison.blocks[1].columns["rlnClassNumber"]
    assert [(e.name, e.before, e.after) for e in differences.examples] == [("b.mrc", "1", "2"), ("c.mrc", "2", "3")]
    lines = before.read_text().splitlines()
    assert [lines[example.lines[0] - 1].split()[0] for example in differences.examples] == ["b.mrc", "c.mrc"]


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("1.50", "1.5", "only rlnAngleRot changed in 1 row"),
        ("# odd one", "# even one", "only comments, blanks or headers in 2 lines"),
        ("a.mrc  1.50", "a.mrc 1.50", "only white space, quotes or comments in 1 line"),
        ("a.mrc", '"a.mrc"', "only white space, quotes or comments in 1 line"),
        ("b.mrc  3867.465  1\n", "", "only 1 of 3 rows removed"),
        ("c.mrc  -0.0  2\n", "c.mrc  -0.0  2\nd.mrc 0 1\n", "only 1 row added"),
        ("10.0\n", "10\n", "only rlnImagePixelSize changed in 1 row (data_optics)"),
        ("_rlnAngleRot #2", "_rlnAngleRot", "only white space, quotes or comments in 1 line"),
        ("\n", "\r\n", "only line ends differ (LF and CRLF)"),
    ],
)
def test_each_kind_of_difference_is_named(tmp_path: Path, old: str, new: str, verdict: str) -> None:
    paths = _pair(tmp_path, TEXT, TEXT.replace(old, new))
    if "#2" in old:
        # The number alone follows from the order of columns.
        assert compare_stars(*paths).verdict == "only white space, or the order of comments and blocks"
        return
    assert compare_stars(*paths).verdict == verdict


def test_rows_dropped_and_reordered_are_matched_by_particle_name(tmp_path: Path) -> None:
    document = read_star(_pair(tmp_path, TEXT, "")[0])
    write_star(document.with_rows("particles", [2, 0]), tmp_path / "kept.star")
    comparison = compare_stars(document.source, tmp_path / "kept.star")
    block = comparison.blocks[1]
    assert (block.matched_by, block.removed, block.is_reordered) == ("rlnImageName", ["b.mrc"], True)
    assert block.columns == {}


def test_rows_of_two_unrelated_files_are_not_compared(tmp_path: Path) -> None:
    other = TEXT.replace("a.mrc", "x.mrc").replace("b.mrc", "y.mrc").replace("c.mrc  -0.0  2\n", "")
    block = compare_stars(*_pair(tmp_path, TEXT, other)).blocks[1]
    assert block.n_compared == 0
    assert block.changes() == ["3 rows became 2, with no name in common"]


def test_files_renamed_by_a_program_are_matched_by_their_place(tmp_path: Path) -> None:
    moved = TEXT.replace(".mrc", ".moved.mrc")
    assert compare_stars(*_pair(tmp_path, TEXT, moved)).verdict == "only rlnImageName changed in 3 rows"


def test_columns_added_removed_and_moved_are_named(tmp_path: Path) -> None:
    after = (
        "data_particles\nloop_\n_rlnAngleRot\n_rlnImageName\n_rlnNew\n1.50 a.mrc x\n3867.465 b.mrc y\n-0.0 c.mrc z\n"
    )
    comparison = compare_stars(*_pair(tmp_path, TEXT, after))
    block = comparison.blocks[0]
    assert (block.columns_added, block.columns_removed) == (["rlnNew"], ["rlnClassNumber"])
    assert block.are_columns_reordered
    assert block.columns == {}
    assert comparison.blocks_removed == ("optics",)


_TABLE = st.lists(st.tuples(st.sampled_from("12"), st.sampled_from(["0.5", ".5", "-1"])), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(_TABLE, st.data())
def test_the_cells_that_differ_are_those_starfile_reads_differently(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], data: st.DataObject
) -> None:
    others = data.draw(st.lists(st.tuples(st.sampled_from("12"), st.sampled_from(["0.5", ".5", "-1"])),
                                min_size=len(rows), max_size=len(rows)))  # fmt: skip
    keep = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
    head = "data_particles\nloop_\n_rlnImageName #1\n_rlnClassNumber #2\n_rlnAngleRot #3\n"
    first = head + "".join(f"p{i} {a} {b}\n" for i, (a, b) in enumerate(rows))
    second = head + "".join(f"p{i} {others[i][0]} {others[i][1]}\n" for i in keep)
    paths = _pair(tmp_path_factory.mktemp("pair"), first, second)
    labels = ["rlnImageName", "rlnClassNumber", "rlnAngleRot"]
    old, new = (starfile.read(path, parse_as_string=labels).set_index("rlnImageName") for path in paths)
    comparison = compare_stars(*paths)
    if first == second:
        assert comparison.is_identical
        return
    block = comparison.blocks[0]
    expected = {label: int((old.loc[new.index, label] != new[label]).sum()) for label in labels[1:]}
    assert {label: d.n_rows for label, d in block.columns.items()} == {k: v for k, v in expected.items() if v}
    assert block.removed == [name for name in old.index if name not in new.index]


def test_the_command_prints_it_and_succeeds_whatever_differs(tmp_path: Path) -> None:
    paths = [str(path) for path in _pair(tmp_path, TEXT, TEXT.replace("3867.465", "267.465"))]
    said = CliRunner().invoke(check, ["--round-trip", *paths], env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    assert "line 17 b.mrc: 3867.465 → 267.465" in said.output
    assert "Only rlnAngleRot changed in 1 row." in said.output
    content = json.loads(CliRunner().invoke(check, ["--round-trip", *paths, "--json"]).output)
    assert content["verdict"] == "only rlnAngleRot changed in 1 row"
    assert content["blocks"][1]["columns"]["rlnAngleRot"]["n_rows"] == 1
    assert CliRunner().invoke(check, [paths[0], "--round-trip", *paths]).exit_code == 2
    assert CliRunner().invoke(check, []).exit_code == 2
    with pytest.raises(InputError, match="No such file"):
        compare_stars(tmp_path / "none.star", tmp_path / "after.star")


def test_a_table_of_many_rows_is_read_written_and_compared_in_bounded_time_and_memory() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "files" / "million_rows.py"
    finished = subprocess.run(
        [sys.executable, str(script), "--rows", "50000"], capture_output=True, text=True, timeout=300, check=True
    )
    steps = json.loads(finished.stdout)["steps"]
    # A twentieth of the million rows that must take less than 20 s and 3 GB; imports alone take 0.3 GB.
    for step, measured in steps.items():
        assert measured["seconds"] < 5, step
        assert measured["peak_gib"] < 0.3 + 3 / 20 * 1.5, step
