"""What is wrong with particles: one error each, with the line, before anything is computed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryodc.errors import InputError
from cryodc.particles import read_particles
from tests.made_stars import _data_star, _star_31, _volumes


def _first_line_with(text: str, word: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), start=1) if word in line)


def _expect(path: Path, problem: str) -> InputError:
    with pytest.raises(InputError, match=problem) as caught:
        read_particles(path)
    return caught.value


def test_an_empty_star_is_refused(tmp_path: Path) -> None:
    assert "data_particles" in str(_expect(_data_star(tmp_path, _star_31([])), "holds no particles"))


def test_duplicate_names_are_refused_with_both_lines(tmp_path: Path) -> None:
    _volumes(tmp_path, ["a.mrc", "b.mrc"])
    text = _star_31(["a.mrc 1", "b.mrc 1", "a.mrc 1"])
    error = _expect(_data_star(tmp_path, text), "same name")
    first = _first_line_with(text, "a.mrc")
    assert error.found is not None
    assert f"lines {first} and {first + 2}" in error.found
    assert error.row == first + 2


def test_missing_files_are_one_error_that_counts_them(tmp_path: Path) -> None:
    _volumes(tmp_path, ["0.mrc"])
    text = _star_31([f"{i}.mrc 1" for i in range(10)])
    error = _expect(_data_star(tmp_path, text), "does not exist")
    first = _first_line_with(text, "1.mrc")
    assert error.row == first
    assert error.found is not None
    assert "4 more" in error.found


def _damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damage_box(path: Path) -> None:
    _volumes(path.parent, [path.name], box=10)


def _damage_odd(path: Path) -> None:
    import mrcfile

    with mrcfile.new(path, np.ones((7, 7, 7), np.float32), overwrite=True) as mrc:
        mrc.voxel_size = 10


def _damage_spacing(path: Path) -> None:
    _volumes(path.parent, [path.name], spacing=11.0)


def _damage_axis(path: Path) -> None:
    import mrcfile

    with mrcfile.mmap(path, "r+") as mrc:
        mrc.voxel_size = (10, 10, 20)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_damage_truncate, "the file is truncated"),
        (_damage_box, "the box size is not that of the other particles"),
        (_damage_odd, "the box size is odd"),
        (_damage_spacing, "the voxel spacing is not that of the other particles"),
        (_damage_axis, "the voxel spacing differs between axes"),
    ],
)
@pytest.mark.parametrize("says_box", [True, False])
def test_one_bad_image_is_named_with_its_row(
    tmp_path: Path, damage: Callable[[Path], None], problem: str, says_box: bool
) -> None:
    names = [f"{i}.mrc" for i in range(4)]
    _volumes(tmp_path, names)
    text = _star_31([f"{name} 1" for name in names])
    if not says_box:
        text = "data_\nloop_\n_rlnImageName #1\n" + "\n".join(names) + "\n"
    damage(tmp_path / "2.mrc")
    error = _expect(_data_star(tmp_path, text), problem)
    assert error.file == tmp_path / "2.mrc"
    assert f"line {_first_line_with(text, '2.mrc')}" in str(error)


def test_header_spacing_counts_only_where_it_says_something(tmp_path: Path) -> None:
    _volumes(tmp_path, ["a.mrc", "b.mrc"], spacing=1.0)
    assert read_particles(_data_star(tmp_path, _star_31(["a.mrc 1", "b.mrc 1"]))).spacing_angstrom == 10.0
    _volumes(tmp_path, ["a.mrc", "b.mrc"], spacing=7.5)
    bare = _data_star(tmp_path, "data_\nloop_\n_rlnImageName\na.mrc\nb.mrc\n", "bare.star")
    assert read_particles(bare).spacing_angstrom == 7.5
    assert read_particles(bare).box_size == 8


def test_volumes_of_a_stack_are_read_by_section(tmp_path: Path) -> None:
    import mrcfile

    from cryodc.io import read_volume

    voxels = np.random.default_rng(0).standard_normal((3, 8, 8, 8)).astype(np.float32)
    with mrcfile.new(tmp_path / "all.mrcs", voxels) as mrc:
        mrc.voxel_size = 10
    rows = ["000003@all.mrcs 1", "1@all.mrcs 1"]
    particles = read_particles(_data_star(tmp_path, _star_31(rows)))
    np.testing.assert_array_equal(read_volume(particles.images[0]).voxels, voxels[2])
    np.testing.assert_array_equal(read_volume(particles.images[1]).voxels, voxels[0])
    _expect(_data_star(tmp_path, _star_31(["4@all.mrcs 1"])), "no such section")


@pytest.mark.parametrize(
    ("row", "problem"),
    [("a.mrc 2", "names an optics group"), ("a.mrc 1 x", "wrong number of cells")],
)
def test_rows_that_contradict_the_optics_are_refused(tmp_path: Path, row: str, problem: str) -> None:
    text = _star_31([row])
    assert _expect(_data_star(tmp_path, text), problem).row == _first_line_with(text, "a.mrc")


@pytest.mark.parametrize("angle", ["north", "nan", "inf"])
def test_angles_must_be_numbers(tmp_path: Path, angle: str) -> None:
    labels = "rlnImageName rlnOpticsGroup rlnAngleRot rlnAngleTilt rlnAnglePsi"
    _volumes(tmp_path, ["a.mrc"])
    error = _expect(_data_star(tmp_path, _star_31([f"a.mrc 1 0 {angle} 0"], labels)), "rlnAngleTilt")
    assert error.row is not None


def test_weights_are_in_every_row_or_in_none(tmp_path: Path) -> None:
    _volumes(tmp_path, ["a.mrc", "b.mrc", "w.mrc"])
    labels = "rlnImageName rlnOpticsGroup rlnCtfImage"
    none = _data_star(tmp_path, _star_31(['a.mrc 1 ""', "b.mrc 1 None"], labels))
    assert read_particles(none).weight_images is None
    some = _data_star(tmp_path, _star_31(["a.mrc 1 w.mrc", 'b.mrc 1 ""'], labels))
    _expect(some, "some particles have no weight")
