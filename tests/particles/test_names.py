"""What particles are called: joined jobs, one file by two paths, names that are no text."""

from pathlib import Path

import numpy as np
import pytest

from cryodc.errors import InputError
from cryodc.io import write_volume
from cryodc.particles import inspect_particles, read_particles
from cryodc.volumes import Volume


def joined(folder: Path, rows: list[tuple[str, str]], write: bool = True) -> Path:
    """A STAR of (rlnTomoParticleName, rlnImageName), with its images."""
    voxels = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    for _, image in rows if write else []:
        write_volume(folder / image, Volume(voxels, 4.0))
    path = folder / "particles.star"
    body = "".join(f"{name} {image} TS_01 4.0\n" for name, image in rows)
    head = "_rlnTomoParticleName\n_rlnImageName\n_rlnTomoName\n_rlnPixelSize\n"
    path.write_text(f"data_particles\n\nloop_\n{head}{body}")
    return path


JOINED = [
    [("TS_01/1", "job1/1.mrc"), ("TS_01/2", "job1/2.mrc"), ("TS_01/1", "job2/1.mrc"), ("TS_01/2", "job2/2.mrc")],
    [("TS_01/1", "job1/1.mrc"), ("TS_01/1", "job1/2.mrc")],
    [("a", "1.mrc"), ("a", "2.mrc"), ("a", "3.mrc"), ("b", "4.mrc")],
    [("a", "1.mrc"), ("b", "2.mrc"), ("c", "3.mrc"), ("c", "x/3.mrc")],
]


@pytest.mark.parametrize("rows", JOINED)
def test_particles_of_joined_jobs_are_all_read_and_named_by_their_images(
    tmp_path: Path, rows: list[tuple[str, str]]
) -> None:
    path = joined(tmp_path, rows)
    found = inspect_particles(path)
    assert not found.problems
    assert found.particles is not None
    assert found.particles.names == tuple(image for _, image in rows)
    assert any("rlnTomoParticleName repeats with other images" in note for note in found.notes)


def test_particles_whose_names_tell_them_apart_keep_them(tmp_path: Path) -> None:
    path = joined(tmp_path, [("a", "1.mrc"), ("b", "2.mrc")])
    assert read_particles(path).names == ("a", "b")


@pytest.mark.parametrize(
    "rows",
    [
        [("a", "1.mrc"), ("a", "1.mrc")],
        [("a", "1.mrc"), ("b", "1.mrc")],
        [("a", "1.mrc"), ("a", "2.mrc"), ("b", "1.mrc")],
        [("a", "1.mrc"), ("a", "2.mrc"), ("a", "1.mrc")],
        [("a", "x/1.mrc"), ("a", "x/../x/1.mrc")],
        [("a", "x/1.mrc"), ("a", "link/1.mrc")],
    ],
)
def test_one_image_twice_is_one_particle_twice(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with pytest.raises(InputError, match="two particles have the same") as caught:
        read_particles(joined(tmp_path, rows))
    assert caught.value.row == 7 + len(rows)


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("raw", [b"TS_\xe9", b"\xff\xfe", b"Prot\xe9ine_1", b"\xed\xa0\x80"])
def test_a_name_that_is_no_text_is_told_before_anything_else(tmp_path: Path, column: int, raw: bytes) -> None:
    path = joined(tmp_path, [("a", "1.mrc"), ("b", "2.mrc")])
    lines = path.read_bytes().split(b"\n")
    cells = lines[8].split()
    cells[column] = raw
    path.write_bytes(b"\n".join([*lines[:8], b" ".join(cells), *lines[9:]]))
    with pytest.raises(InputError, match="is not text in UTF-8") as caught:
        read_particles(path, check_images=False)
    assert caught.value.row == 9


@pytest.mark.parametrize("name", ["Position_1", "Protéine", "核糖体", "α_β", "TS_01 copy"])
def test_a_name_in_any_script_is_a_name(tmp_path: Path, name: str) -> None:
    path = joined(tmp_path, [("a", "1.mrc"), ("b", "2.mrc")])
    path.write_text(path.read_text().replace("TS_01", f'"{name}"'), encoding="utf-8")
    assert read_particles(path).tomograms == (name, name)
