"""Files that would fill the memory or take for ever are one error at once; a name that ends in .gz means gzip."""

import gzip
import io
import os
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import yaml

from cryodc.errors import InputError
from cryodc.io import read_array, read_text, read_yaml, write_array, write_text
from cryodc.particles import read_particles
from cryodc.picks import read_picks
from cryodc.star import read_star, write_star
from cryodc.tilt_angles import read_tilt_ranges

QUICK = 5.0


def bomb(path: Path, unit: bytes, megabytes: int, begin: bytes = b"") -> Path:
    """A gzip of so many megabytes, made in blocks: a thousandth of that on disk."""
    block = unit * ((1 << 20) // len(unit))
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(begin)
        for _ in range(megabytes):
            stream.write(block)
    return path


@pytest.mark.parametrize("name", ["a.star.gz", "a.tbl.gz", "a.csv.gz", "a.json.gz"])
@pytest.mark.parametrize("unit", [b"\0", b"1 2 3\n", b"data_x\nloop_\n_a\n1\n"])
def test_a_gzip_bomb_is_one_error_at_once(tmp_path: Path, name: str, unit: bytes) -> None:
    path = bomb(tmp_path / name, unit, 300)
    assert path.stat().st_size < 2 << 20
    began = time.perf_counter()
    with pytest.raises(InputError, match="unpacks to far more"):
        read_star(path) if "star" in name else read_picks(path)
    assert time.perf_counter() - began < QUICK


def test_a_structure_that_is_a_gzip_bomb_is_one_error_at_once(tmp_path: Path) -> None:
    from cryodc.io import read_structure

    path = bomb(tmp_path / "a.pdb.gz", b"REMARK   1\n", 300)
    began = time.perf_counter()
    with pytest.raises(InputError, match="unpacks to far more"):
        read_structure(path)
    assert time.perf_counter() - began < QUICK


def test_a_long_table_that_compresses_well_is_read(tmp_path: Path) -> None:
    rows = "".join(f"{i:06d}.mrc 1 10.000000 TS_01\n" for i in range(50_000))
    path = tmp_path / "a.star.gz"
    head = "data_\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnPixelSize\n_rlnMicrographName\n"
    path.write_bytes(gzip.compress((head + rows).encode()))
    assert len(read_particles(path, check_images=False)) == 50_000


def test_a_volume_that_claims_more_than_can_be_unpacked_is_one_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with mrcfile.new(tmp_path / "a.mrc", np.zeros((4, 4, 4), np.float32)):
        pass
    header = bytearray((tmp_path / "a.mrc").read_bytes()[:1024])
    header[:12] = np.array([2048, 2048, 2048], "<i4").tobytes()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        stream.write(bytes(header))
    # As many bytes behind it as would do for what it claims.
    (tmp_path / "a.mrc.gz").write_bytes(buffer.getvalue() + os.urandom(1) * (40 << 20))
    began = time.perf_counter()
    with pytest.raises(InputError, match="too large to be read"):
        read_array(tmp_path / "a.mrc.gz")
    assert time.perf_counter() - began < QUICK


YAML_BOMBS = {
    "laughs": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "itself": "a: &a [*a]\n",
    "merge": "a: &a {b: 1}\nc:\n  <<: *a\n",
    "deep": "a: " + "[" * 5000,
    "deep mappings": "a: " + "{a: " * 3000,
    "long": "a:\n" + "- 1\n" * 400_000,
    "digits": f"a: {'9' * 20_000}\n",
    "no date": "a: 2024-13-45\n",
    "a list as a key": "? [a, b]\n: 1\n",
    "a tag": "a: !!python/object/apply:os.system ['touch escaped']\n",
    "a list": "- 1\n",
    "a number": "3\n",
    "no UTF-8": "a: \udce9\n",
}


@pytest.mark.parametrize("kind", YAML_BOMBS)
def test_settings_that_are_a_trap_are_one_error_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(YAML_BOMBS[kind].encode("utf-8", "surrogateescape"))
    began = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read_yaml(path, "settings")
    assert caught.value.file == path
    assert time.perf_counter() - began < QUICK


@pytest.mark.parametrize("kind", ["laughs", "deep", "digits", "no date"])
def test_a_trap_in_the_settings_of_train_is_one_error(tmp_path: Path, kind: str) -> None:
    from cryodc.training.settings import read_overrides

    path = tmp_path / "config.yaml"
    path.write_text(YAML_BOMBS[kind])
    with pytest.raises(InputError):
        read_overrides(path)


def test_settings_are_what_yaml_reads(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    content = {"model": {"width": 8, "rates": [0.1, 1e-4]}, "seed": None, "names": ["é", "1"]}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    assert read_yaml(path, "settings") == content
    path.write_text("# nothing\n")
    assert read_yaml(path, "settings") == {}


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for read in (lambda path: read_text(path, "text"), lambda path: read_yaml(path, "settings"), read_tilt_ranges):
        with pytest.raises(InputError, match="this is not a file"):
            read(tmp_path / "fifo")


@pytest.mark.parametrize("content", [b'a,"' + b"x" * 200_000, b"a,1\0,2\n", b"a,\xff,1\n", b"a,1_0,2_0,\n", b""])
def test_tilt_ranges_that_are_none_are_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ranges.csv"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_tilt_ranges(path)


def test_a_star_written_under_a_name_of_gzip_is_gzip(tmp_path: Path) -> None:
    source = tmp_path / "a.star"
    source.write_text("data_\n\nloop_\n_rlnImageName\n_rlnPixelSize\na.mrc 4.0\n")
    write_star(read_star(source), tmp_path / "b.star.gz")
    assert gzip.decompress((tmp_path / "b.star.gz").read_bytes()) == source.read_bytes()
    first = (tmp_path / "b.star.gz").read_bytes()
    write_star(read_star(source), tmp_path / "c.star.gz")
    assert (tmp_path / "c.star.gz").read_bytes() == first
    assert read_particles(tmp_path / "b.star.gz", check_images=False).names == ("a.mrc",)


@pytest.mark.parametrize("name", ["a.csv.gz", "table.json.gz", "fsc.csv.gz"])
def test_text_written_under_a_name_of_gzip_is_gzip(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "α\n")
    assert gzip.decompress((tmp_path / name).read_bytes()).decode() == "α\n"
    assert read_text(tmp_path / name, "text") == "α\n"


def test_a_map_written_under_a_name_of_gzip_is_read_by_mrcfile(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)
    write_array(tmp_path / "a.mrc.gz", voxels, 3.0)
    with mrcfile.open(tmp_path / "a.mrc.gz") as mrc:
        np.testing.assert_array_equal(mrc.data, voxels)
    np.testing.assert_array_equal(read_array(tmp_path / "a.mrc.gz"), voxels)


def test_bytes_that_are_no_text_are_written_as_they_were(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "TS_\udce9\n")
    assert (tmp_path / "a.csv").read_bytes() == b"TS_\xe9\n"
