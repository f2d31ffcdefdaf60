"""MRC files that are damaged, and folders that cannot be written: one error that names the file."""

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryodc.errors import InputError
from cryodc.io import ImageReference, read_header, read_volume, write_volume
from cryodc.io import writing as run
from cryodc.volumes import Volume
from tests.io.cubes import _cube, _poke, _write


def _nan(path: Path) -> None:
    _poke(path, 1024 + 40, "<f", float("nan"))


def _infinite(path: Path) -> None:
    _poke(path, 1024 + 40, "<f", float("inf"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def _cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _trailing(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0000")


def _huge(path: Path) -> None:
    _poke(path, 0, "<3i", 60000, 60000, 60000)


def _complex_mode(path: Path) -> None:
    _poke(path, 12, "<i", 4)


def _unknown_mode(path: Path) -> None:
    _poke(path, 12, "<i", 77)


def _negative(path: Path) -> None:
    _poke(path, 0, "<i", -6)


def _no_magic(path: Path) -> None:
    _poke(path, 208, "<4s", b"JUNK")  # type: ignore[arg-type]


def _bad_axes(path: Path) -> None:
    _poke(path, 64, "<3i", 1, 1, 3)


def _negative_extension(path: Path) -> None:
    _poke(path, 92, "<i", -512)


def _not_a_cube(path: Path) -> None:
    _write(path, np.zeros((4, 6, 6), np.float32))


def _odd(path: Path) -> None:
    _write(path, _cube(box=5))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_nan, "NaN or infinite"),
        (_infinite, "NaN or infinite"),
        (_cut, "the file is truncated"),
        (_cut_header, "ends within its header"),
        (_empty, "ends within its header"),
        (_trailing, "longer than its header says"),
        (_huge, "the file is truncated"),
        (_complex_mode, "this MRC mode cannot be used"),
        (_unknown_mode, "this MRC mode cannot be used"),
        (_negative, "this is not an MRC file"),
        (_no_magic, "this is not an MRC file"),
        (_bad_axes, "this is not an MRC file"),
        (_negative_extension, "this is not an MRC file"),
        (_not_a_cube, "the volume is not a cube"),
        (_odd, "the box size is odd"),
        (Path.unlink, "the file does not exist"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(
    tmp_path: Path, damage: Callable[[Path], None], problem: str
) -> None:
    path = _write(tmp_path / "a.mrc", _cube())
    damage(path)
    with pytest.raises(InputError, match=problem) as caught:
        read_volume(path)
    assert caught.value.file == path


def test_a_truncated_file_says_how_many_bytes_are_missing(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mrc", _cube())
    _cut(path)
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert caught.value.expected is not None
    assert caught.value.expected.startswith(str(1024 + 6**3 * 4))
    assert caught.value.found == f"{1024 + 6**3 * 4 - 8} bytes"


@pytest.mark.parametrize("cut", [1, 4, 10, 300])
def test_a_truncated_gzip_is_one_error(tmp_path: Path, cut: int) -> None:
    content = gzip.compress(_write(tmp_path / "a.mrc", _cube()).read_bytes())
    path = tmp_path / "b.mrc.gz"
    path.write_bytes(content[:-cut])
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert caught.value.file == path


@pytest.mark.parametrize("position", [-6, -40, 100])
def test_a_changed_byte_in_a_gzip_is_one_error(tmp_path: Path, position: int) -> None:
    content = bytearray(gzip.compress(_write(tmp_path / "a.mrc", _cube()).read_bytes()))
    content[position] ^= 0xFF
    path = tmp_path / "b.mrc.gz"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert caught.value.file == path


def test_a_gzip_that_holds_more_than_its_header_says_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "b.mrc.gz"
    path.write_bytes(gzip.compress(_write(tmp_path / "a.mrc", _cube()).read_bytes() + b"\0"))
    with pytest.raises(InputError, match="longer than its header"):
        read_volume(path)


def test_a_stack_of_images_is_no_stack_of_volumes(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mrcs", np.zeros((37, 32, 32), np.float32))
    with pytest.raises(InputError, match="not a stack of 3D volumes"):
        read_volume(ImageReference(path, 0))
    with pytest.raises(InputError, match="not a cube"):
        read_volume(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_header_byte_makes_a_volume_silently_wrong(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    path = tmp_path / "a.mrc"
    write_volume(path, Volume(_cube(), 4.0))
    content = bytearray(path.read_bytes())
    for offset, value in changes:
        content[offset] = value
    path.write_bytes(content)
    try:
        voxels = read_volume(path).voxels
    except InputError:
        return
    # Whatever is accepted holds the same numbers: only the mode and the order of axes can differ.
    header = read_header(path)
    expected = np.frombuffer(content[header.data_offset :], header.dtype).astype(np.float32)
    np.testing.assert_array_equal(np.sort(voxels, axis=None), np.sort(expected))
    assert voxels.shape == (6, 6, 6)


def _raise(code: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        ("os.open", errno.EACCES, "Permission denied"),
        ("os.fsync", errno.ENOSPC, "No space left on device"),
        ("os.fsync", errno.EROFS, "Read-only file system"),
    ],
)
def test_no_permission_or_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int, message: str
) -> None:
    path = tmp_path / "a.mrc"
    write_volume(path, Volume(_cube(), 4.0))
    before = path.read_bytes()
    module, name = function.split(".")
    monkeypatch.setattr(getattr(run, module), name, _raise(code))
    with pytest.raises(InputError, match=message) as caught:
        write_volume(path, Volume(_cube() + 1, 4.0))
    monkeypatch.undo()
    assert caught.value.file == path
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mrc"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_one_error(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    with pytest.raises(InputError, match="Permission denied"):
        write_volume(folder / "a.mrc", Volume(_cube(), 4.0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_one_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mrc", _cube())
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_volume(path)
