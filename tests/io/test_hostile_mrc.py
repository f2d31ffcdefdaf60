"""MRC files nobody would write on purpose: mrcfile's answer, or one error that names the file.

More than 600 headers, broken one field at a time or several at once, by the field's own meaning.
"""

import gzip
import struct
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import ImageReference, read_array, read_header, read_volume

SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_EDGES = [0, 1, 5, 6, 7, 12, 216, 2048, 65535, 65536, 2**31 - 1, -1, -6, 0x06000000]
# Byte of each field of the header, the values tried, and their type.
_FIELDS = {
    "nx": (0, _EDGES, "i"),
    "ny": (4, _EDGES, "i"),
    "nz": (8, _EDGES, "i"),
    "mode": (12, [-1, 0, 1, 2, 3, 4, 6, 12, 77, 101, 0x02000000], "i"),
    "mx": (28, _EDGES, "i"),
    "mz": (36, _EDGES, "i"),
    "cella": (40, [0.0, -4.0, 24.0, 1e-30, 1e30, float("nan"), float("inf")], "f"),
    "mapc": (64, [0, 1, 2, 3, 4, -1], "i"),
    "maps": (72, [0, 1, 2, 3, 4, -1], "i"),
    "ispg": (88, [0, 1, 401, 630, -1, 2**31 - 1], "i"),
    "nsymbt": (92, [0, 80, 160, 216, 1024, -512, 2**31 - 1], "i"),
    "map": (208, [0x2050414D, 0, 0x4B4E554A], "i"),
    "machst": (212, [0x4444, 0x1111, 0x4144, 0], "i"),
}


@st.composite
def broken_files(draw: st.DrawFn) -> tuple[bytes, NDArray[np.float32]]:
    """An MRC file of 6³ voxels with some fields overwritten, and the voxels it was made from."""
    mode, order = draw(st.sampled_from(sorted(_DTYPES))), draw(st.sampled_from("<>"))
    extended = draw(st.sampled_from([0, 0, 80, 160]))
    voxels = np.random.default_rng(1).integers(0, 100, (6, 6, 6)).astype(order + _DTYPES[mode])
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, 6, 6, 6, mode, 0, 0, 0, 6, 6, 6)
    struct.pack_into(f"{order}6f3i", header, 40, 24, 24, 24, 90, 90, 90, 1, 2, 3)
    struct.pack_into(f"{order}2i", header, 88, 1, extended)
    struct.pack_into("4s4B", header, 208, b"MAP ", *((0x44, 0x44) if order == "<" else (0x11, 0x11)), 0, 0)
    for name in draw(st.lists(st.sampled_from(sorted(_FIELDS)), max_size=3, unique=True)):
        offset, values, kind = _FIELDS[name]
        struct.pack_into(
            f"{'<' if name in ('map', 'machst') else order}{kind}", header, offset, draw(st.sampled_from(values))
        )
    content = bytes(header) + b"x" * extended + voxels.tobytes()
    cut = draw(st.sampled_from([None, None, None, 0, 1, 512, 1023, 1024, 1100, -1]))
    return content[:cut] + draw(st.sampled_from([b"", b"", b"", b"\0", b"\0" * 216])), voxels.astype(np.float32)


def _array_or_error(path: Path) -> tuple[NDArray[np.float32] | None, InputError | None]:
    try:
        return read_array(path), None
    except InputError as error:
        return None, error


@settings(max_examples=600, **SETTINGS)
@given(broken_files())
def test_a_broken_mrc_is_one_error_that_names_it_or_reads_right(
    tmp_path: Path, made: tuple[bytes, NDArray[np.float32]]
) -> None:
    content, voxels = made
    path = tmp_path / "a.mrc"
    path.write_bytes(content)
    array, error = _array_or_error(path)
    if array is None:
        assert error is not None
        assert error.file == path
        return
    header = read_header(path)
    shape = header.file_shape
    assert header.n_bytes == len(content)
    if shape == voxels.shape and header.dtype.itemsize == len(content[header.data_offset :]) // voxels.size:
        oracle = _by_mrcfile(path)
        if oracle is not None:
            np.testing.assert_array_equal(array, oracle.astype(np.float32).transpose(header.axes))
            return
    # mrcfile trusts the machine stamp alone; where it reads nothing, the numbers are those behind the header.
    numbers = np.frombuffer(content, header.dtype, offset=header.data_offset).astype(np.float32)
    np.testing.assert_array_equal(array, numbers.reshape(shape).transpose(header.axes))


def _by_mrcfile(path: Path) -> NDArray[np.float32] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with mrcfile.open(path, permissive=True) as mrc:
                data = None if mrc.data is None else np.array(mrc.data)
        except (ValueError, OSError, MemoryError, OverflowError):
            return None
    return data if data is not None and data.size == 216 and data.ndim == 3 else None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("edges", [(65535, 65535, 65535), (2048, 2048, 513), (46341, 46341, 2), (1, 1, 65535)])
def test_more_voxels_than_the_file_holds_take_no_memory(
    tmp_path: Path, order: str, edges: tuple[int, int, int]
) -> None:
    path = tmp_path / "a.mrc"
    header = bytearray(1024)
    struct.pack_into(f"{order}4i", header, 0, *edges, 2)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    path.write_bytes(bytes(header) + b"MAP " + b"\0" * 100)
    with pytest.raises(InputError, match="truncated") as caught:
        read_array(path)
    assert caught.value.file == path
    assert caught.value.expected is not None
    assert str(1024 + 4 * edges[0] * edges[1] * edges[2]) in caught.value.expected


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", [0, 2])
def test_more_than_65535_planes_are_read(tmp_path: Path, order: str, mode: int) -> None:
    path = tmp_path / "a.mrc"
    header = bytearray(1024)
    struct.pack_into(f"{order}4i", header, 0, 2, 1, 65536, mode)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into("4s", header, 208, b"MAP ")
    voxels = (np.arange(2 * 65536) % 100).astype(order + _DTYPES[mode])
    path.write_bytes(bytes(header) + voxels.tobytes())
    np.testing.assert_array_equal(read_array(path).ravel(), voxels.astype(np.float32))


def test_a_compressed_file_that_cannot_hold_what_its_header_claims_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc.gz"
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 65535, 65535, 65535, 2)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    struct.pack_into("4s", header, 208, b"MAP ")
    path.write_bytes(gzip.compress(bytes(header) + b"\0" * 2**20))
    with pytest.raises(InputError, match="too short for what its header claims") as caught:
        read_array(path)
    assert caught.value.file == path
    packed = gzip.compress(bytes(2**22))
    assert 1032 * len(packed) >= 2**22


@settings(max_examples=60, **SETTINGS)
@given(st.integers(-3, 9), st.sampled_from([(12, 6, 401), (24, 6, 1), (12, 4, 401), (6, 12, 401)]))
def test_a_section_is_that_volume_of_the_stack_or_one_error(
    tmp_path: Path, section: int, layout: tuple[int, int, int]
) -> None:
    depth, mz, space_group = layout
    voxels = np.arange(depth * 36, dtype=np.float32).reshape(depth, 6, 6)
    path = tmp_path / "all.mrcs"
    with mrcfile.new(path, voxels, overwrite=True) as mrc:
        mrc.header.mz, mrc.header.ispg = mz, space_group
    try:
        volume = read_volume(ImageReference(path, section)).voxels
    except InputError as error:
        named = error.file
    else:
        np.testing.assert_array_equal(volume, voxels[6 * section : 6 * section + 6])
        return
    assert named == path
    assert not (mz == 6 and depth % 6 == 0 and 0 <= section < depth // 6)
