"""STAR text and particle STARs: starfile and scipy are the oracles, and files of many programs the input."""

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryodc.errors import InputError
from cryodc.io import write_volume
from cryodc.particles import Poses, read_particles, with_classes, with_half_sets, with_poses
from cryodc.star import StarDocument, describe_layout, read_star, write_star
from cryodc.star.lexer import cells_of, quote
from cryodc.volumes import Volume

# What each STAR of the sample folder is: (particles, box size, spacing) where it is read, else why it is not.
SAMPLES: dict[str, tuple[int, int, float] | str] = {
    "cryocat_R5_tutorial_run_data.star.gz": "stacks of 2D tilt images",
    "cryocat_R5_tutorial_run_tomograms.star": "holds no particles",
    "cryocat_relion5_1_run_it025_data.star.gz": (7488, 120, 4.828),
    "cryocat_relion_3.0.star": (3, 0, 5.364),
    "cryocat_relion_3.1_optics2.star": (3, 118, 3.446),
    "cryocat_relion_4.0.star.gz": (1746, 64, 3.942),
    "cryocat_warp2_matching_optimisation_set.star": "holds no particles",
    "cryocat_warp2_matching_tomograms.star": "holds no particles",
    "cryocat_warp2_particles_matching.star": "stacks of 2D tilt images",
    "cylindra_run_it025_data.star": "stacks of 2D tilt images",
    "czportal_relion_4_star.star": (6, 128, 1.0),
    "dynamo2m_example.star": (1399, 0, 5.0),
    "relion31.6opticsgroups.star": "2D single-particle images",
    "relion31.v2.star": "2D single-particle images",
    "starfile_empty_loop.star": "holds no particles",
    "starfile_loop_double_quote.star": "holds no particles",
    "starfile_single_line_middle_of_multiblock.star": "several blocks could be the particles",
    "tom_test_2018.star": (9, 256, 2.619996),
}
LAYOUTS = {
    "cryocat_relion_3.0.star": "RELION 3.0, Warp or WarpTools --3d",
    "tom_test_2018.star": "RELION 3.1",
    "cryocat_relion5_1_run_it025_data.star.gz": "RELION 3.1",
    "cryocat_relion_4.0.star.gz": "RELION 4",
    "cylindra_run_it025_data.star": "RELION 5, 2D stacks",
    "cryocat_warp2_particles_matching.star": "WarpTools --2d or RELION 5, 2D stacks",
}


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


def _data_star(folder: Path, text: str, name: str = "particles.star") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _volumes(folder: Path, names: list[str], box: int = 8, spacing: float = 10.0) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        write_volume(folder / name, Volume(rng.standard_normal((box, box, box)).astype(np.float32), spacing))


def _star_31(rows: list[str], labels: str = "rlnImageName rlnOpticsGroup", spacing: float = 10.0, box: int = 8) -> str:
    header = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels.split(), start=1))
    return (
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n_rlnImageSize #3\n"
        "_rlnImageDimensionality #4\n"
        f"1 {spacing} {box} 3\n\n\ndata_particles\n\nloop_\n{header}\n" + "\n".join(rows) + "\n"
    )


def _first_line_with(text: str, word: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), start=1) if word in line)


# --- text --------------------------------------------------------------------------------------------------


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


# --- particles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "what"), SAMPLES.items())
def test_every_sample_is_read_or_refused_with_reason_and_remedy(
    shared_data: Path, name: str, what: tuple[int, int, float] | str
) -> None:
    path = shared_data / "star" / name
    if isinstance(what, str):
        with pytest.raises(InputError, match=what) as caught:
            read_particles(path, check_images=False)
        assert caught.value.remedy
        assert caught.value.file == path
        return
    particles = read_particles(path, check_images=False)
    assert (len(particles), particles.box_size, particles.spacing_angstrom) == what
    assert particles.weight_images is not None
    assert particles.poses is not None
    document = read_star(path)
    for i in (0, len(particles) - 1):
        assert particles.names[i] in document.lines[particles.rows[i] - 1]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS.items())
def test_the_layout_is_detected(shared_data: Path, name: str, layout: str) -> None:
    assert describe_layout(read_star(shared_data / "star" / name)) == layout


def test_particles_of_relion_4_are_named_by_their_particle_name(shared_data: Path) -> None:
    particles = read_particles(shared_data / "star" / "cryocat_relion_4.0.star.gz", check_images=False)
    assert particles.names[0] == "TS_017/68"
    assert particles.tomograms[0] == "TS_017"
    assert particles.half_sets is not None
    assert list(particles.half_sets[:2]) == [2, 1]


def test_a_pose_is_where_relion_puts_the_reference(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    angles = rng.uniform(-400, 400, (6, 3))
    origins_xyz = rng.uniform(-20, 20, (6, 3))
    rows = [f"{i}.mrc 1 {' '.join(map(str, [*angles[i], *origins_xyz[i]]))}" for i in range(6)]
    angle_labels = "rlnAngleRot rlnAngleTilt rlnAnglePsi"
    labels = f"rlnImageName rlnOpticsGroup {angle_labels} rlnOriginXAngst rlnOriginYAngst rlnOriginZAngst"
    path = _data_star(tmp_path, _star_31(rows, labels))
    poses = read_particles(path, check_images=False).poses
    assert poses is not None
    points_xyz = rng.standard_normal((6, 3))
    # RELION: A = R(rot, tilt, psi)⁻¹, intrinsic ZYZ; x_particle = A x_reference.
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).inv().apply(points_xyz)
    found = np.einsum("nij,nj->ni", poses.rotations, points_xyz[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(poses.origins_angstrom[:, ::-1], origins_xyz, atol=1e-12)


def test_origins_of_relion_3_0_are_pixels(tmp_path: Path) -> None:
    text = (
        "data_\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n_rlnAngleTilt #3\n_rlnAnglePsi #4\n_rlnOriginX #5\n"
        "_rlnOriginY #6\n_rlnOriginZ #7\n_rlnPixelSize #8\na.mrc 0 0 0 1 2 3 4.0\n"
    )
    poses = read_particles(_data_star(tmp_path, text), check_images=False).poses
    assert poses is not None
    assert poses.origins_angstrom.tolist() == [[12.0, 8.0, 4.0]]


@pytest.mark.parametrize("has_optics", [True, False])
def test_poses_written_are_the_poses_read(tmp_path: Path, has_optics: bool) -> None:
    text = _star_31([f"{i}.mrc 1" for i in range(5)])
    if not has_optics:
        text = "data_\nloop_\n_rlnImageName #1\n_rlnPixelSize #2\n" + "".join(f"{i}.mrc 10\n" for i in range(5))
    path = _data_star(tmp_path, text)
    particles = read_particles(path, check_images=False)
    assert particles.poses is None
    rng = np.random.default_rng(1)
    poses = Poses(Rotation.random(5, rng=rng).as_matrix(), rng.uniform(-9, 9, (5, 3)))
    document = with_poses(read_star(path), poses, particles)
    write_star(with_half_sets(document, [1, 2, 1, 2, 1]), tmp_path / "posed.star")
    again = read_particles(tmp_path / "posed.star", check_images=False)
    assert again.poses is not None
    np.testing.assert_allclose(again.poses.rotations, poses.rotations, atol=1e-6)
    np.testing.assert_allclose(again.poses.origins_angstrom, poses.origins_angstrom, atol=1e-5)
    assert again.half_sets is not None
    assert again.half_sets.tolist() == [1, 2, 1, 2, 1]
    # RELION 3.0 knows origins in pixels only.
    assert ("rlnOriginXAngst" in document.text()) == has_optics


@pytest.mark.parametrize(
    ("columns", "values", "spacing"),
    [
        ("rlnPixelSize", "3.5", 3.5),
        ("rlnDetectorPixelSize rlnMagnification", "5.364 10000.0", 5.364),
        ("rlnDetectorPixelSize rlnMagnification", "14 50000", 2.8),
    ],
)
def test_spacing_of_layouts_without_optics(tmp_path: Path, columns: str, values: str, spacing: float) -> None:
    header = "".join(f"_{label}\n" for label in columns.split())
    path = _data_star(tmp_path, f"data_\nloop_\n_rlnImageName\n{header}a.mrc {values}\n")
    assert read_particles(path, check_images=False).spacing_angstrom == pytest.approx(spacing)


def test_spacing_of_relion_4_is_the_tilt_series_pixel_times_the_binning(tmp_path: Path) -> None:
    text = (
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n_rlnTomoSubtomogramBinning\n1 1.35 4\n\n"
        "data_particles\nloop_\n_rlnTomoParticleName\n_rlnImageName\n_rlnOpticsGroup\nT/1 a.mrc 1\n"
    )
    particles = read_particles(_data_star(tmp_path, text), check_images=False)
    assert particles.spacing_angstrom == pytest.approx(5.4)
    assert particles.names == ("T/1",)


def test_unused_optics_groups_do_not_matter(shared_data: Path, tmp_path: Path) -> None:
    document = read_star(shared_data / "star" / "cryocat_relion_3.1_optics2.star")
    write_star(document.with_rows("particles", [1, 2]), tmp_path / "group2.star")
    assert read_particles(tmp_path / "group2.star", check_images=False).spacing_angstrom == 3.446


def test_the_real_particles_are_read(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    particles = read_particles(shared_data / "real" / "ribosome70s" / "particles.star")
    assert (len(particles), particles.box_size, particles.spacing_angstrom) == (40, 32, 12.0)
    assert len(set(particles.tomograms)) == 4
    assert all(image.path.is_file() for image in particles.images)


def test_paths_resolve_from_the_current_folder_then_the_star_then_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, beside, data = tmp_path / "here", tmp_path / "beside", tmp_path / "data"
    for folder in (here, beside, data):
        folder.mkdir()
    monkeypatch.chdir(here)
    star = _data_star(beside, _star_31(["a.mrc 1"]))
    with pytest.raises(InputError, match="does not exist") as caught:
        read_particles(star, data)
    assert all(str(folder) in str(caught.value) for folder in (here, beside, data))
    for folder in (data, beside, here):
        _volumes(folder, ["a.mrc"])
        assert read_particles(star, data).images[0].path == folder / "a.mrc"


# --- what is wrong with particles: one error each ----------------------------------------------------------


def _expect(path: Path, problem: str) -> InputError:
    with pytest.raises(InputError, match=problem) as caught:
        read_particles(path)
    return caught.value


def test_an_empty_star_is_refused(tmp_path: Path) -> None:
    assert "data_particles" in str(_expect(_data_star(tmp_path, _star_31([])), "holds no particles"))


def test_duplicate_names_are_refused_with_both_lines(tmp_path: Path) -> None:
    _volumes(tmp_path, ["a.mrc", "b.mrc"])
    text = _star_31(["a.mrc 1", "b.mrc 1", "a.mrc 1"])
    error = _expect(_data_star(tmp_path, text), "same name")
    first = _first_line_with(text, "a.mrc")
    assert error.found is not None
    assert f"lines {first} and {first + 2}" in error.found
    assert error.row == first + 2


def test_missing_files_are_one_error_that_counts_them(tmp_path: Path) -> None:
    _volumes(tmp_path, ["0.mrc"])
    text = _star_31([f"{i}.mrc 1" for i in range(10)])
    error = _expect(_data_star(tmp_path, text), "does not exist")
    first = _first_line_with(text, "1.mrc")
    assert error.row == first
    assert error.found is not None
    assert "4 more" in error.found


def _damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damage_box(path: Path) -> None:
    _volumes(path.parent, [path.name], box=10)


def _damage_odd(path: Path) -> None:
    import mrcfile

    with mrcfile.new(path, np.ones((7, 7, 7), np.float32), overwrite=True) as mrc:
        mrc.voxel_size = 10


def _damage_spacing(path: Path) -> None:
    _volumes(path.parent, [path.name], spacing=11.0)


def _damage_axis(path: Path) -> None:
    import mrcfile

    with mrcfile.mmap(path, "r+") as mrc:
        mrc.voxel_size = (10, 10, 20)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_damage_truncate, "the file is truncated"),
        (_damage_box, "the box size is not that of the other particles"),
        (_damage_odd, "the box size is odd"),
        (_damage_spacing, "the voxel spacing is not that of the other particles"),
        (_damage_axis, "the voxel spacing differs between axes"),
    ],
)
@pytest.mark.parametrize("says_box", [True, False])
def test_one_bad_image_is_named_with_its_row(
    tmp_path: Path, damage: Callable[[Path], None], problem: str, says_box: bool
) -> None:
    names = [f"{i}.mrc" for i in range(4)]
    _volumes(tmp_path, names)
    text = _star_31([f"{name} 1" for name in names])
    if not says_box:
        text = "data_\nloop_\n_rlnImageName #1\n" + "\n".join(names) + "\n"
    damage(tmp_path / "2.mrc")
    error = _expect(_data_star(tmp_path, text), problem)
    assert error.file == tmp_path / "2.mrc"
    assert f"line {_first_line_with(text, '2.mrc')}" in str(error)


def test_header_spacing_counts_only_where_it_says_something(tmp_path: Path) -> None:
    _volumes(tmp_path, ["a.mrc", "b.mrc"], spacing=1.0)
    assert read_particles(_data_star(tmp_path, _star_31(["a.mrc 1", "b.mrc 1"]))).spacing_angstrom == 10.0
    _volumes(tmp_path, ["a.mrc", "b.mrc"], spacing=7.5)
    bare = _data_star(tmp_path, "data_\nloop_\n_rlnImageName\na.mrc\nb.mrc\n", "bare.star")
    assert read_particles(bare).spacing_angstrom == 7.5
    assert read_particles(bare).box_size == 8


def test_volumes_of_a_stack_are_read_by_section(tmp_path: Path) -> None:
    import mrcfile

    from cryodc.io import read_volume

    voxels = np.random.default_rng(0).standard_normal((3, 8, 8, 8)).astype(np.float32)
    with mrcfile.new(tmp_path / "all.mrcs", voxels) as mrc:
        mrc.voxel_size = 10
    rows = ["000003@all.mrcs 1", "1@all.mrcs 1"]
    particles = read_particles(_data_star(tmp_path, _star_31(rows)))
    np.testing.assert_array_equal(read_volume(particles.images[0]).voxels, voxels[2])
    np.testing.assert_array_equal(read_volume(particles.images[1]).voxels, voxels[0])
    _expect(_data_star(tmp_path, _star_31(["4@all.mrcs 1"])), "no such section")


@pytest.mark.parametrize(
    ("row", "problem"),
    [("a.mrc 2", "names an optics group"), ("a.mrc 1 x", "wrong number of cells")],
)
def test_rows_that_contradict_the_optics_are_refused(tmp_path: Path, row: str, problem: str) -> None:
    text = _star_31([row])
    assert _expect(_data_star(tmp_path, text), problem).row == _first_line_with(text, "a.mrc")


@pytest.mark.parametrize("angle", ["north", "nan", "inf"])
def test_angles_must_be_numbers(tmp_path: Path, angle: str) -> None:
    labels = "rlnImageName rlnOpticsGroup rlnAngleRot rlnAngleTilt rlnAnglePsi"
    _volumes(tmp_path, ["a.mrc"])
    error = _expect(_data_star(tmp_path, _star_31([f"a.mrc 1 0 {angle} 0"], labels)), "rlnAngleTilt")
    assert error.row is not None


def test_weights_are_in_every_row_or_in_none(tmp_path: Path) -> None:
    _volumes(tmp_path, ["a.mrc", "b.mrc", "w.mrc"])
    labels = "rlnImageName rlnOpticsGroup rlnCtfImage"
    none = _data_star(tmp_path, _star_31(['a.mrc 1 ""', "b.mrc 1 None"], labels))
    assert read_particles(none).weight_images is None
    some = _data_star(tmp_path, _star_31(["a.mrc 1 w.mrc", 'b.mrc 1 ""'], labels))
    _expect(some, "some particles have no weight")
