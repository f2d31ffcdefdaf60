"""STARs nobody would write on purpose: starfile's answer, or one error that names the file.

With those of test_text.py and test_compare.py, more than 2,000 documents made or broken by hypothesis.
"""

import linecache
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryodc.clustering import cluster_run
from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.export import select_run
from cryodc.particles import ParticleSet, read_particles, with_classes
from cryodc.picks import read_picks
from cryodc.runs import RunFolder, save_codes
from cryodc.star import particle_block, read_star, write_star
from tests.made_runs import make_config

SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}

# Texts that a careless reader turns into a number, a date, a flag or nothing.
_TRICKY = [
    "007", "1e5", "1_000", "0x10", "1", "-0", "+1.50", "1.", ".5", "inf", "Infinity", "True", "null", "None", "N/A",
    "2024-01-01", "12:30", "1E-400", "99999999999999999999", "[1,1,0]", "a@b", "TS_01.mrc", "α-tubulin", "data", "loop",
    "x_y", "5%", "$HOME", "{}", "~", "C:\\data\\a.mrc", "*", "a=b", "<b>", "1,5",
]  # fmt: skip
_NAME = st.one_of(
    st.sampled_from(_TRICKY), st.text(st.sampled_from("abcZ019._-+/@[](),:;=\\%"), min_size=1, max_size=9)
).filter(lambda name: not name.startswith("_"))
_QUOTED = st.sampled_from(
    ["", " ", "two words", "tab\there", " lead", "trail ", "# no comment", "_under", "data_x", "loop_"]
)
_ANGLE = st.one_of(
    st.floats(-1e6, 1e6).map(repr),
    st.sampled_from(["3867.465000", "-7200.5", "1e9", "-0.0", "0.1000000000000000055", "1e-320", "+720"]),
)
_LABELS = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


@st.composite
def star_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A particle STAR in any layout this grammar allows, and its particle labels."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    gap = st.sampled_from([" ", "\t", "   ", " \t"])
    is_numbered, loop = draw(st.booleans()), draw(st.sampled_from(["loop_", "loop_ ", "loop_\t"]))
    n_rows = draw(st.integers(1, 5))
    names = draw(st.lists(_NAME, min_size=n_rows, max_size=n_rows, unique=True))
    extra = [f"rlnExtra{i}" for i in range(draw(st.integers(0, 2)))]
    labels = draw(st.permutations(["rlnImageName", "rlnOpticsGroup", "rlnTomoName", *_LABELS, *extra]))
    rows = []
    for name in names:
        cells = {label: draw(_ANGLE) for label in _LABELS}
        cells |= {"rlnImageName": name, "rlnOpticsGroup": "1", "rlnTomoName": draw(_NAME)}
        cells |= {label: draw(_NAME) if draw(st.booleans()) else f'"{draw(_QUOTED)}"' for label in extra}
        row = draw(st.sampled_from(["", " ", "\t"])) + "".join(cells[label] + draw(gap) for label in labels)
        rows.append(row + draw(st.sampled_from(["", "# a comment", "#"])))
        rows += draw(st.sampled_from([[], [], [""], ["# between rows"], ["  "]]))

    def head(items: list[str]) -> list[str]:
        return [f"_{label}" + (f" #{i}" + draw(st.sampled_from(["", " "])) if is_numbered else "")
                for i, label in enumerate(items, start=1)]  # fmt: skip

    optics = ["data_optics", "", loop, *head(["rlnOpticsGroup", "rlnImagePixelSize", "rlnImageSize"]), "1 10.0 8", ""]
    table = ["data_particles", "", loop, *head(labels), *rows, ""]
    blocks = draw(st.permutations([optics, table, ["data_general", "", "_rlnFlag 0", ""]]))
    lines = draw(st.sampled_from([[], [""], ["# version 30001", ""]]))
    for block in blocks:
        lines = [*lines, *block, *draw(st.sampled_from([[], ["# version 50001"], [""]]))]
    return end.join(lines) + end, labels


def _particles_by_starfile(path: Path, labels: list[str]) -> pd.DataFrame:
    # starfile keeps the lines of a file it once failed on.
    linecache.clearcache()
    tables = starfile.read(path, always_dict=True, parse_as_string=labels)
    table = tables["particles"]
    assert isinstance(table, pd.DataFrame)
    return table


@settings(max_examples=400, **SETTINGS)
@given(star_texts())
def test_any_layout_reads_as_starfile_reads_it(tmp_path: Path, made: tuple[str, list[str]]) -> None:
    text, labels = made
    path = tmp_path / "particles.star"
    path.write_bytes(text.encode())
    block = read_star(path).block("particles")
    oracle = _particles_by_starfile(path, [*labels, "rlnFlag"])
    assert list(block.labels) == list(oracle) == list(labels)
    for label, cells in block.columns(labels).items():
        assert cells == list(oracle[label]), label
    # Names stay text, however much they look like numbers; rows say where; angles of any size keep their meaning.
    particles = read_particles(path, check_images=False)
    assert list(particles.names) == list(oracle["rlnImageName"])
    assert list(particles.tomograms) == list(oracle["rlnTomoName"])
    lines = text.split("\n")
    assert all(name in lines[row - 1] for name, row in zip(particles.names, particles.rows, strict=True))
    angles = oracle[_LABELS].astype(float).to_numpy()
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()[:, ::-1, ::-1]
    assert particles.poses is not None
    np.testing.assert_allclose(particles.poses.rotations, expected, atol=1e-9)


@settings(max_examples=150, **SETTINGS)
@given(star_texts(), st.data())
def test_classes_set_in_any_layout_leave_every_other_cell(
    tmp_path: Path, made: tuple[str, list[str]], data: st.DataObject
) -> None:
    text, labels = made
    path, out = tmp_path / "particles.star", tmp_path / "classes.star"
    path.write_bytes(text.encode())
    document = read_star(path)
    n_rows = particle_block(document).n_rows
    classes = data.draw(st.lists(st.integers(0, 99), min_size=n_rows, max_size=n_rows))
    write_star(with_classes(document, classes), out)
    before, after = (_particles_by_starfile(p, [*labels, "rlnFlag"]) for p in (path, out))
    assert [int(number) for number in after["rlnClassNumber"]] == classes
    pd.testing.assert_frame_equal(after[list(labels)], before, check_names=False)


@st.composite
def broken_texts(draw: st.DrawFn) -> bytes:
    """A good STAR in which lines, words or bytes were lost, doubled, swapped or overwritten."""
    content = draw(star_texts())[0].encode()
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["byte", "cut", "line", "swap", "word", "insert", "join"]))
        lines = content.split(b"\n")
        i, j = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        at = draw(st.integers(0, max(0, len(content) - 1)))
        if kind == "byte":
            content = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "line":
            content = b"\n".join(lines[:i] + lines[i:j] + lines[i:])
        elif kind == "swap":
            lines[i], lines[j] = lines[j], lines[i]
            content = b"\n".join(lines)
        elif kind == "word":
            words = re.split(rb"(\s+)", lines[i])
            del words[draw(st.integers(0, len(words) - 1))]
            lines[i] = b"".join(words)
            content = b"\n".join(lines)
        elif kind == "insert":
            junk = draw(
                st.sampled_from([b'"', b"'", b"#", b"_", b"data_", b"loop_", b"\0", b"\r", b"\xff", b"nan ", b"\t1"])
            )
            content = content[:at] + junk + content[at:]
        else:
            content = content.replace(b"\n", b" ", 1)
    return content


@settings(max_examples=1000, **SETTINGS)
@given(broken_texts())
def test_a_broken_star_is_one_error_that_names_it_or_reads_right(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.star"
    path.write_bytes(content)
    particles, error = _particles_or_error(path)
    if particles is None:
        assert error is not None
        assert error.file == path
        assert error.row is None or 1 <= error.row <= content.count(b"\n") + 1
        return
    document = read_star(path)
    write_star(document, tmp_path / "same.star")
    assert (tmp_path / "same.star").read_bytes() == content
    # Each row as its own line says, split here once more without the package.
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    block = particle_block(document)
    for column, label in enumerate(block.labels):
        cells = block.column(label)
        for row, cell in zip(particles.rows.tolist(), cells, strict=True):
            words = [a or b or c for a, b, c in _WORDS.findall(lines[row - 1])]
            assert words[column] == cell


def _particles_or_error(path: Path) -> tuple[ParticleSet | None, InputError | None]:
    try:
        return read_particles(path, check_images=False), None
    except InputError as error:
        return None, error


_WORDS = re.compile(r"""(?:^|(?<=\s))(?:"([^\n]*?)"(?=\s|$)|'([^\n]*?)'(?=\s|$)|([^\s#"'][^\s]*))""", re.ASCII)

_JUNK = st.sampled_from(
    ['"', ",", "\n", "nan", "-", "1e400", "[", "}", "null", "\0", "\udcff", "é", " ", "9" * 30, "1e308", ""]
)
_ESCAPES = ["../../../escaped.mrc", "/tmp/cryodc_escaped.mrc", "..", ".", "~/escaped.mrc", "a/../../../b.mrc",
            "$(touch escaped)", "; touch escaped", "|touch escaped", "-rf", "file:///etc/passwd", "con", "x" * 300,
            "000001@../../escaped.mrcs", "\\..\\..\\escaped.mrc"]  # fmt: skip


def _everything(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_no_name_in_a_star_makes_a_command_write_outside_its_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "work" / "run")
    rows = "".join(f"{name if ' ' not in name else repr(name)} ../../{i}\n" for i, name in enumerate(_ESCAPES))
    run.path.mkdir(parents=True)
    run.particles.write_text(f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnTomoName #2\n{rows}")
    names = tuple(particle_block(read_star(run.particles)).column("rlnImageName"))
    content = np.random.default_rng(0).standard_normal((len(names), 4)).astype(np.float32)
    make_config(run)
    save_codes(run, Codes(names, content, content[:, :2], content * 0, content[:, :2] * 0))
    before = _everything(tmp_path)
    outside = Path("/tmp/cryodc_escaped.mrc").exists()
    cluster_run(run, 2)
    select_run(run, run.path / "kept.star", tomograms=["../../3"])
    made = _everything(tmp_path) - before
    assert {str(path) for path in made} == {
        "work/run/clusters", "work/run/clusters/clusters.star", "work/run/clusters/class001.star",
        "work/run/clusters/class002.star", "work/run/clusters/summary.json", "work/run/kept.star",
    }  # fmt: skip
    assert Path("/tmp/cryodc_escaped.mrc").exists() == outside


_SEEDS = {
    "a.tbl": " ".join(["1"] * 35) + "\n",
    "a.csv": "x,y,z,tomogram,rot,tilt,psi\n1,2,3,TS,4,5,6\n",
    "a.json": '{"run_name": "TS", "points": [{"location": {"x": 1, "y": 2, "z": 3}}]}',
    "a.star": "data_p\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n_rlnTomoName\n1 2 3 TS\n",
}


@settings(max_examples=250, **SETTINGS)
@given(st.sampled_from(sorted(_SEEDS)), st.lists(st.tuples(st.integers(0, 200), _JUNK), max_size=3))
def test_broken_picks_are_one_error_that_names_them_or_finite_numbers(
    tmp_path: Path, name: str, changes: list[tuple[int, str]]
) -> None:
    text = _SEEDS[name]
    for at, junk in changes:
        text = text[:at] + junk + text[at + (at % 3) :]
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    try:
        picks = read_picks(path)
    except InputError as error:
        named = error.file
    else:
        assert np.isfinite(picks.positions).all()
        assert picks.rotations is None or np.isfinite(picks.rotations).all()
        return
    assert named == path


@pytest.mark.parametrize("name", [*_ESCAPES, "/dev/zero", "/dev/null", "/proc/self/mem", "fifo"])
def test_a_name_that_is_no_volume_is_one_error_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / "particles.star"
    path.write_text(f'data_particles\nloop_\n_rlnImageName #1\n_rlnTomoName #2\n"{name}" 1\n')
    with pytest.raises(InputError):
        read_particles(path)


def test_a_device_is_no_star(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is not a file"):
        read_star(Path("/dev/zero"))
    (tmp_path / "a.star").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="this is not a file"):
        read_picks(tmp_path / "a.star")
    with pytest.raises(InputError, match="Is a directory"):
        read_star(tmp_path)
