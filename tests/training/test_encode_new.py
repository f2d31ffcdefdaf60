"""New particles by an old run: the codes its own have, its clusters, and every mistake told before anything else."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from cryodc_cli.learn.encode import encode

from cryodc.errors import InputError
from cryodc.runs import RunFolder, load_clusters, load_codes
from cryodc.star import find_particle_block, read_star, write_star
from cryodc.training import EncodeRequest, encode_new
from cryodc.training.new import particles as new_particles


@pytest.fixture
def star(small_run: Path) -> Path:
    return small_run.parent / "sim" / "particles.star"


def test_particles_of_the_run_have_its_codes_and_its_clusters(
    small_run: Path, star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, before = RunFolder(small_run), {path: path.stat().st_mtime_ns for path in small_run.rglob("*")}
    answer = CliRunner().invoke(encode, [str(star), "--run", str(small_run), "--out", str(tmp_path / "more")])
    assert answer.exit_code == 0, answer.output
    assert "Encoded 24 particles" in answer.output
    found, known = load_codes(RunFolder(tmp_path / "more")), load_codes(run)
    assert found.names == known.names
    np.testing.assert_allclose(found.content, known.content, atol=1e-5)
    np.testing.assert_allclose(found.transformation, known.transformation, atol=1e-5)
    document = read_star(tmp_path / "more" / "clusters.star")
    labels = [int(text) - 1 for text in find_particle_block(document).column("rlnClassNumber")]
    assert np.mean(labels == load_clusters(run).labels) > 0.9
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == [
        "class001.star",
        "class002.star",
        "clusters.star",
        "codes.npz",
        "summary.json",
    ]
    assert json.loads((tmp_path / "more" / "summary.json").read_text())["labels"] == labels
    assert {path: path.stat().st_mtime_ns for path in small_run.rglob("*")} == before


def test_particles_read_a_few_at_a_time_keep_their_order_and_transformation_codes(
    small_run: Path, star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_particles, "_AT_ONCE", 7)
    told: list[tuple[int, int]] = []
    encoded = encode_new(
        EncodeRequest(star, tmp_path / "more", RunFolder(small_run)), lambda *numbers: told.append(numbers)
    )
    known = load_codes(RunFolder(small_run))
    assert encoded.codes.names == known.names
    # That code is of the particle as recorded, which no random view has a part in.
    np.testing.assert_allclose(encoded.codes.transformation, known.transformation, atol=1e-5)
    assert told == [(6, 24)] * 4


def test_particles_of_another_spacing_are_refused(small_run: Path, star: Path, tmp_path: Path) -> None:
    document = read_star(star)
    for label in ("rlnImagePixelSize", "rlnTomoTiltSeriesPixelSize"):
        optics = document.block("optics")
        if label in optics:
            document = document.with_column("optics", label, ["20.0"] * optics.n_rows)
    other = star.with_name("other.star")
    write_star(document, other)
    try:
        with pytest.raises(InputError, match=r"spacing|pixel"):
            encode_new(EncodeRequest(other, tmp_path / "more", RunFolder(small_run)))
    finally:
        other.unlink()
    assert not (tmp_path / "more").exists()


def test_a_folder_that_holds_something_is_left_as_it_is(small_run: Path, star: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError):
        encode_new(EncodeRequest(star, tmp_path, RunFolder(small_run)))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_image_that_is_not_there_is_one_error_and_no_folder(small_run: Path, star: Path, tmp_path: Path) -> None:
    (tmp_path / "lone").mkdir()
    lone = tmp_path / "lone" / "particles.star"
    lone.write_bytes(star.read_bytes())
    with pytest.raises(InputError):
        encode_new(EncodeRequest(lone, tmp_path / "more", RunFolder(small_run)))
    assert not (tmp_path / "more").exists()
