"""MRC files read and written as mrcfile does."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryodc.io import read_array, read_header, read_volume, write_volume
from cryodc.volumes import Volume
from tests.io.cubes import _cube, _poke, _write


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
