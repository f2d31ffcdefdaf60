"""MRC files: mrcfile is the oracle for what a header means; damaged files are one error each."""

import errno
import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import ImageReference, read_array, read_header, read_volume, write_volume
from cryodc.io import writing as run
from cryodc.volumes import Volume


def _cube(dtype: str = "f4", box: int = 6) -> NDArray[Any]:
    values = np.random.default_rng(1).integers(-100, 100, (box, box, box))
    return (np.abs(values) if dtype == "u2" else values).astype(dtype)


def _write(path: Path, voxels: NDArray[Any], spacing: float = 4.0) -> Path:
    with mrcfile.new(path, voxels, overwrite=True) as mrc:
        mrc.voxel_size = spacing
    return path


def _poke(path: Path, offset: int, layout: str, *values: int | float) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(layout, *values))


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".mrc", ".mrc.gz"])
def test_every_mode_reads_as_mrcfile_reads_it(tmp_path: Path, dtype: str, order: str, suffix: str) -> None:
    voxels = _cube(dtype)
    path = tmp_path / f"a{suffix}"
    compression = "gzip" if suffix.endswith("gz") else None
    with mrcfile.new(path, compression=compression) as mrc:
        mrc.set_data(voxels.astype(order + dtype))
        mrc.voxel_size = 4.0
    with mrcfile.open(path) as mrc:
        expected = mrc.data.astype(np.float32)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, expected)
    assert volume.spacing_angstrom == pytest.approx(4.0)
    if dtype != "i1":
        assert read_header(path).byte_order == order


def test_axes_other_than_xyz_are_put_in_order(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mrc", _cube())
    # Columns run along z, rows along x, sections along y.
    _poke(path, 64, "<3i", 3, 1, 2)
    with mrcfile.open(path) as mrc:
        expected = np.einsum("yxz->zyx", mrc.data)
    np.testing.assert_array_equal(read_volume(path).voxels, expected)


def test_an_extended_header_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    with mrcfile.new(path, _cube()) as mrc:
        mrc.set_extended_header(np.frombuffer(b"x" * 160, "V160"))
    np.testing.assert_array_equal(read_array(path), _cube())


def test_what_is_written_mrcfile_calls_valid(tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.mrc"
    volume = Volume(_cube(), 3.25)
    write_volume(path, volume)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, volume.voxels)
        assert mrc.data.dtype == np.float32
        assert [float(mrc.voxel_size[axis]) for axis in "xyz"] == pytest.approx([3.25] * 3)
        assert (mrc.header.mapc, mrc.header.mapr, mrc.header.maps) == (1, 2, 3)
        assert mrc.is_volume()
    first = path.read_bytes()
    write_volume(path, volume)
    assert path.read_bytes() == first
    assert read_volume(path).spacing_angstrom == pytest.approx(3.25)


def test_the_real_particles_read_as_mrcfile_reads_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "real" / "ribosome70s" / "subtomograms").glob("*_1_*.mrc")):
        with mrcfile.open(path) as mrc:
            np.testing.assert_array_equal(read_array(path), mrc.data.astype(np.float32))


@pytest.mark.parametrize("name", ["3j9i.mrc.gz", "1f4a.mrc.gz"])
def test_maps_read_as_mrcfile_reads_them(shared_data: Path, name: str) -> None:
    path = shared_data / "maps" / name
    with mrcfile.open(path, permissive=True) as mrc:
        np.testing.assert_array_equal(read_array(path), mrc.data.astype(np.float32))
        assert read_header(path).spacing_angstrom == pytest.approx(float(mrc.voxel_size.x))


def test_a_spacing_that_is_not_set_is_said_to_be_unknown(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mrc", _cube(), spacing=0)
    assert read_header(path).spacing_angstrom is None
    assert read_volume(path).spacing_angstrom == 1.0


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
