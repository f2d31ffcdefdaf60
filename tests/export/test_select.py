"""``cryodc select``: the particles asked for, and not a character of their rows changed."""

import gzip
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryodc_cli.take_away.select import select

from cryodc.errors import InputError
from cryodc.export import parse_classes, select_run
from cryodc.particles import read_particles
from cryodc.runs import RunFolder
from cryodc.star import compare_stars, read_star
from tests.made_runs import make_averages, make_clusters, make_config

CLASSES = [1, 2, 1, 3, 2, 1]
CONFIDENCE = [0.99, 0.6, 0.7, 0.95, 0.9, 0.5]
TOMOGRAMS = ["TS_1", "TS_1", "TS_2", "TS_2", "10", "10"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A clustered run of six particles in three tomograms, one named like a number."""
    folder = RunFolder(tmp_path / "run")
    folder.clusters.mkdir(parents=True)
    make_config(folder)
    rows = [f"p{i}.mrc  {t}\t{c}   # {i}" for i, (t, c) in enumerate(zip(TOMOGRAMS, CLASSES, strict=True))]
    head = "# by hand\ndata_particles\n\nloop_ \n_rlnImageName #1\n_rlnTomoName #2\n_rlnClassNumber #3\n"
    (folder.clusters / "clusters.star").write_text(head + "\n".join(rows) + "\n\n# end\n")
    make_clusters(folder, [f"p{i}.mrc" for i in range(6)], [c - 1 for c in CLASSES], CONFIDENCE)
    return folder


@pytest.mark.parametrize(
    ("criteria", "kept"),
    [
        ({"classes": [1]}, [0, 2, 5]),
        ({"classes": [2, 3]}, [1, 3, 4]),
        ({"tomograms": ["10"]}, [4, 5]),
        ({"tomograms": ["TS_1", "TS_2"], "classes": [1]}, [0, 2]),
        ({"tomograms": ["TS_1.mrc", "TS_2_10.00Apx.mrc"], "classes": [1]}, [0, 2]),
        ({"min_confidence": 0.9}, [0, 3, 4]),
        ({"min_confidence": 0.7, "classes": [1]}, [0, 2]),
    ],
)
def test_exactly_the_particles_asked_for_are_kept(
    run: RunFolder, criteria: dict[str, list[int]], kept: list[int]
) -> None:
    out = run.path / "kept.star"
    selection = select_run(run, out, **criteria)  # type: ignore[arg-type]
    assert read_star(out).block("particles").column("rlnImageName") == [f"p{i}.mrc" for i in kept]
    assert selection.n_before == {1: 3, 2: 2, 3: 1}
    assert selection.n_kept == {c: sum(CLASSES[i] == c for i in kept) for c in (1, 2, 3)}
    lines = (run.clusters / "clusters.star").read_text().splitlines()
    dropped = {f"p{i}.mrc" for i in range(6)} - {f"p{i}.mrc" for i in kept}
    assert out.read_text().splitlines() == [
        line for line in lines if (line.split()[:1] and line.split()[0] not in dropped) or not line
    ]
    assert compare_stars(run.clusters / "clusters.star", out).verdict == f"only {len(dropped)} of 6 rows removed"


@pytest.mark.parametrize(
    ("criteria", "problem"),
    [
        ({"classes": [4]}, "no such class"),
        ({"tomograms": ["TS_9"]}, "no such tomogram"),
        ({"classes": [3], "tomograms": ["TS_1"]}, "no particle meets every criterion"),
        ({"classes": [2], "min_confidence": 0.95}, "no particle meets every criterion"),
    ],
)
def test_what_is_not_there_is_one_error_and_nothing_is_written(
    run: RunFolder, criteria: dict[str, list[int]], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        select_run(run, run.path / "kept.star", **criteria)  # type: ignore[arg-type]
    assert not (run.path / "kept.star").exists()


def test_nothing_is_overwritten_and_a_run_without_clusters_is_refused(run: RunFolder) -> None:
    out = run.path / "kept.star"
    out.write_text("mine")
    with pytest.raises(InputError, match="refusing to overwrite"):
        select_run(run, out, classes=[1])
    assert out.read_text() == "mine"
    (run.clusters / "summary.json").unlink()
    with pytest.raises(InputError, match="no such file yet"):
        select_run(run, run.path / "other.star", classes=[1])


@pytest.mark.parametrize("text", ["", "0", "a", "3-1", "1,,2", "1-", "-2", "1.5", "²"])
def test_classes_that_make_no_sense_are_one_error(text: str) -> None:
    with pytest.raises(InputError, match="cannot read the classes"):
        parse_classes(text)


def test_the_command_says_how_many_of_each_class(run: RunFolder) -> None:
    out = run.path / "kept.star"
    said = CliRunner().invoke(select, [str(run.path), "--keep", "1-2", "--out", str(out)], env={"COLUMNS": "100"})
    assert said.exit_code == 0, said.output
    assert "Kept 5 of 6 particles" in said.output
    assert CliRunner().invoke(select, [str(run.path), "--out", str(run.path / "b.star")]).exit_code == 2


def test_a_selection_under_a_name_of_gzip_is_gzip_and_the_same_rows(run: RunFolder) -> None:
    select_run(run, run.path / "kept.star", classes=[2])
    select_run(run, run.path / "kept.star.gz", classes=[2])
    assert gzip.decompress((run.path / "kept.star.gz").read_bytes()) == (run.path / "kept.star").read_bytes()


@pytest.mark.parametrize("spelling", ["{}.0", "{}.000000", "+{}", "0{}"])
def test_classes_are_kept_however_they_are_written(run: RunFolder, spelling: str) -> None:
    path = run.clusters / "clusters.star"
    plain = select_run(run, run.path / "plain.star", classes=[1]).n_kept
    document = read_star(path)
    block = document.blocks[-1]
    texts = [spelling.format(text) for text in block.column("rlnClassNumber")]
    path.unlink()
    path.write_text(document.with_column(block.name, "rlnClassNumber", texts).text())
    assert select_run(run, run.path / "kept.star", classes=[1]).n_kept == plain


def test_a_real_run_is_filtered(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(small_run)
    read_again = read_particles(select_run(run, tmp_path / "elsewhere.star", classes=[1]).out)
    # Where the images are found, nothing but rows is different.
    monkeypatch.chdir(small_run.parent / "sim")
    selection = select_run(run, tmp_path / "kept.star", classes=[1])
    assert compare_stars(run.clusters / "class001.star", tmp_path / "kept.star").is_identical
    assert len(selection) == selection.n_before[1] == len(read_again)
    images = read_particles(tmp_path / "kept.star").images
    assert [image.path.resolve() for image in read_again.images] == [image.path.resolve() for image in images]


def _with_images(run: RunFolder, folder: Path) -> None:
    """The run's images, in a folder of their own that the run remembers."""
    folder.mkdir(parents=True)
    for i in range(6):
        (folder / f"p{i}.mrc").write_bytes(bytes([i]))
    make_config(run, [folder])


def test_images_are_found_from_wherever_the_selection_is_written(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_images(run, tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = tmp_path / "far/away/kept.star"
    out.parent.mkdir(parents=True)
    selection = select_run(run, out, classes=[1])
    names = read_star(out).block("particles").column("rlnImageName")
    assert names == [f"../../data/p{i}.mrc" for i in (0, 2, 5)]
    assert [(out.parent / name).read_bytes() for name in names] == [bytes([i]) for i in (0, 2, 5)]
    assert selection.n_renamed == 3
    # Beside the images, or where they are found from the current folder, not a character changes.
    beside = select_run(run, tmp_path / "data/kept.star", classes=[1])
    monkeypatch.chdir(tmp_path / "data")
    here = select_run(run, tmp_path / "far/kept.star", classes=[1])
    for other in (beside, here):
        assert other.n_renamed == 0
        kept = read_star(other.out).block("particles").column("rlnImageName")
        assert kept == ["p0.mrc", "p2.mrc", "p5.mrc"]


def test_an_image_of_the_same_name_beside_the_selection_is_not_taken_for_it(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_images(run, tmp_path / "data")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/p0.mrc").write_bytes(b"another particle")
    monkeypatch.chdir(tmp_path / "other")
    out = tmp_path / "other/kept.star"
    select_run(run, out, classes=[1])
    first = read_star(out).block("particles").column("rlnImageName")[0]
    assert (out.parent / first).read_bytes() == bytes([0])


def test_proteins_are_the_classes_with_that_verdict_and_need_averages(run: RunFolder) -> None:
    with pytest.raises(InputError, match="run `cryodc average`"):
        select_run(run, run.path / "kept.star", proteins=True)
    make_averages(run, {1: 20.0, 2: None, 3: 25.0})
    selection = select_run(run, run.path / "kept.star", proteins=True)
    assert selection.n_kept == {1: 3, 2: 0, 3: 1}
    with pytest.raises(InputError, match="a class with the verdict protein"):
        select_run(run, run.path / "none.star", proteins=True, classes=[2])
