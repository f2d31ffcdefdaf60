"""MRC as it is in the field: unsigned bytes, headers that state no spacing or an impossible one, odd names."""

import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryodc.errors import InputError
from cryodc.io import read_array, read_header, read_volume, split_image_name
from cryodc.maps.user_masks import read_mask
from cryodc.particles import inspect_particles, read_particles

STAMP = 1146047817


def bytes_file(
    path: Path, voxels: np.ndarray, limits: tuple[float, float], flags: int | None = None, order: str = "<"
) -> Path:
    """A mode 0 file whose voxels are these bytes, with dmin and dmax, and IMOD's stamp where flags are given."""
    header = bytearray(1024)
    struct.pack_into(f"{order}4i", header, 0, *voxels.shape[::-1], 0)
    struct.pack_into(f"{order}3i", header, 28, *voxels.shape[::-1])
    struct.pack_into(f"{order}6f3i", header, 40, *(4.0 * n for n in voxels.shape[::-1]), 90, 90, 90, 1, 2, 3)
    struct.pack_into(f"{order}3f", header, 76, *limits, 0)
    struct.pack_into(f"{order}i", header, 88, 1)
    if flags is not None:
        struct.pack_into(f"{order}2i", header, 152, STAMP, flags)
    struct.pack_into("4s4B", header, 208, b"MAP ", *((0x44, 0x44) if order == "<" else (0x11, 0x11)), 0, 0)
    path.write_bytes(bytes(header) + voxels.tobytes())
    return path


def grey() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (6, 6, 6)).astype(np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("limits", "flags", "unsigned"),
    [
        ((0.0, 255.0), None, True),
        ((3.0, 200.0), None, True),
        ((-1.0, 254.0), None, True),
        ((0.0, 128.0), None, True),
        ((0.0, 255.0), 0, True),
        ((0.0, 0.0), 0, True),
        ((-128.0, 127.0), 0, True),
        ((0.0, 0.0), None, False),
        ((-128.0, 127.0), None, False),
        ((0.0, 100.0), None, False),
        ((0.0, 255.0), 1, False),
        ((0.0, 255.0), 3, False),
        ((0.0, -1.0), None, False),
        ((float("nan"), float("nan")), None, False),
        ((0.0, 40_000.0), None, False),
        ((-100.0, 128.0), None, False),
    ],
)
def test_bytes_are_unsigned_where_stamp_or_grey_values_say_so(
    tmp_path: Path, order: str, limits: tuple[float, float], flags: int | None, unsigned: bool
) -> None:
    voxels = grey()
    path = bytes_file(tmp_path / "a.mrc", voxels, limits, flags, order)
    expected = voxels if unsigned else voxels.view(np.int8)
    np.testing.assert_array_equal(read_array(path), expected.astype(np.float32))


def test_bytes_as_mrcfile_writes_them_stay_signed(tmp_path: Path) -> None:
    voxels = grey().view(np.int8)
    with mrcfile.new(tmp_path / "a.mrc", voxels):
        pass
    np.testing.assert_array_equal(read_array(tmp_path / "a.mrc"), voxels.astype(np.float32))


def test_a_gzipped_tomogram_of_unsigned_bytes_is_cut_as_it_is(tmp_path: Path) -> None:
    import gzip

    from cryodc.io import Tomogram

    voxels = grey()
    path = bytes_file(tmp_path / "TS.mrc", voxels, (0, 255))
    packed = tmp_path / "TS.mrc.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for file in (path, packed):
        box, n = Tomogram(file).read_box((1, 1, 1), 4)
        assert n == 64
        np.testing.assert_array_equal(box, voxels[1:5, 1:5, 1:5])


def test_a_particle_of_unsigned_bytes_keeps_its_contrast(tmp_path: Path) -> None:
    """Bright on dark around 128: read as signed it wraps, and its correlation with itself is lost."""
    z, y, x = np.mgrid[:16, :16, :16] - 8
    blob = np.exp(-(z**2 + y**2 + x**2) / 18)
    voxels = np.round(100 + 80 * blob).astype(np.uint8)
    path = bytes_file(tmp_path / "a.mrc", voxels, (float(voxels.min()), float(voxels.max())))
    assert np.corrcoef(read_volume(path).voxels.ravel(), blob.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("stated", [0.0, 1.0, 12.0])
def test_a_mask_whose_header_states_no_spacing_is_that_of_the_averages(tmp_path: Path, stated: float) -> None:
    mask = np.zeros((16, 16, 16), np.float32)
    mask[4:12, 4:12, 4:12] = 1
    with mrcfile.new(tmp_path / "mask.mrc", mask) as mrc:
        mrc.voxel_size = stated
    torch.testing.assert_close(read_mask(tmp_path / "mask.mrc", 16, 12.0), torch.from_numpy(mask))


@pytest.mark.parametrize(("stated", "box"), [(10.0, 16), (2.0, 16), (12.0, 14), (0.0, 14), (1.0, 18)])
def test_a_mask_of_another_spacing_or_box_is_refused(tmp_path: Path, stated: float, box: int) -> None:
    with mrcfile.new(tmp_path / "mask.mrc", np.ones((16, 16, 16), np.float32)) as mrc:
        mrc.voxel_size = stated
    with pytest.raises(InputError, match="does not fit"):
        read_mask(tmp_path / "mask.mrc", box, 12.0)


@pytest.mark.parametrize("name", ["²@x.mrc", "①@x.mrc", "١@x.mrc", "1²@x.mrc", "-1@x.mrc", "@x.mrc", "9" * 5000 + "@x"])
def test_what_is_no_section_is_part_of_the_name(tmp_path: Path, name: str) -> None:
    assert split_image_name(name) == (None, name)
    path = tmp_path / "a.star"
    path.write_text(f"data_\n\nloop_\n_rlnImageName\n_rlnPixelSize\n{name} 4.0\n", encoding="utf-8")
    assert read_particles(path, check_images=False).names == (name,)
    with pytest.raises(InputError, match="does not exist"):
        read_particles(path)


@pytest.mark.parametrize("spacing", [1e6, 1e-6, 5000.0])
def test_headers_with_a_spacing_beyond_any_particle_are_one_error(tmp_path: Path, spacing: float) -> None:
    with mrcfile.new(tmp_path / "a.mrc", grey().astype(np.float32)) as mrc:
        mrc.voxel_size = spacing
    path = tmp_path / "a.star"
    path.write_text("data_\n\nloop_\n_rlnImageName\n_rlnTomoName\na.mrc TS\n")
    found = inspect_particles(path)
    assert [problem.error.problem for problem in found.problems] == [
        "the voxel spacing of the headers is beyond any that particles have"
    ]
    assert read_header(tmp_path / "a.mrc").spacing_angstrom == pytest.approx(spacing, rel=1e-6)
