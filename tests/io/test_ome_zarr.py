"""OME-Zarr tomograms, written with the zarr library as the CryoET Data Portal and ngff-zarr write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from cryodc_cli.main import load_verb

from cryodc.errors import InputError
from cryodc.io import Tomogram, read_volume, write_array

SPACING = 13.48


def write_ome_zarr(path: Path, voxels: np.ndarray, version: int, unit: str | None = "angstrom", **more: Any) -> Path:
    """The voxels and, as a coarser level, every second of them; zarr format 2 has OME 0.4, format 3 OME 0.5."""
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    levels = []
    for level, array in enumerate((voxels, voxels[::2, ::2, ::2])):
        made = root.create_array(str(level), shape=array.shape, dtype=array.dtype, chunks=(8, 16, 16))
        made[:] = array
        per_angstrom = {"angstrom": 1, "nanometer": 0.1, "micrometer": 1e-4, None: 1}[unit]
        scale = [SPACING * per_angstrom * 2**level] * 3
        levels.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    axes = [{"name": name, "type": "space", **({} if unit is None else {"unit": unit})} for name in "zyx"]
    image = {"axes": axes, "datasets": levels, "name": "/", **more}
    told = {"multiscales": [image | ({"version": "0.4"} if version == 2 else {})]}
    root.attrs.update(told if version == 2 else {"ome": told | {"version": "0.5"}})
    return path


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(20, 40, 36)).astype(np.float32)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("unit", ["angstrom", "nanometer", "micrometer"])
def test_the_finest_level_is_read_with_its_spacing(tmp_path: Path, voxels: np.ndarray, version: int, unit: str) -> None:
    tomogram = Tomogram(write_ome_zarr(tmp_path / "TS_01.zarr", voxels, version, unit))
    assert tomogram.shape == voxels.shape
    assert tomogram.spacing_angstrom == pytest.approx(SPACING)
    box, n_inside = tomogram.read_box((-2, 30, 5), 12)
    assert n_inside == 10 * 10 * 12
    np.testing.assert_array_equal(box[2:, :10], voxels[:10, 30:, 5:17])


def test_a_scale_of_all_levels_counts_too(tmp_path: Path, voxels: np.ndarray) -> None:
    whole = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}]
    path = write_ome_zarr(tmp_path / "a.zarr", voxels, 2, coordinateTransformations=whole)
    assert Tomogram(path).spacing_angstrom == pytest.approx(2 * SPACING)


def test_extract_gives_the_same_boxes_as_from_mrc(tmp_path: Path, voxels: np.ndarray) -> None:
    write_ome_zarr(tmp_path / "TS_01.zarr", voxels, 2)
    write_array(tmp_path / "TS_01.mrc", voxels, SPACING)
    lines = ['{"type": "point", "location": {"x": 18.25, "y": 20.5, "z": 10.0}}']
    (tmp_path / "picks.ndjson").write_text("\n".join(lines))
    made = []
    for name in ("TS_01.zarr", "TS_01.mrc"):
        out = tmp_path / f"from_{name}"
        command = [str(tmp_path / name), "--picks", str(tmp_path / "picks.ndjson"), "--box", "12", "--out", str(out)]
        done = CliRunner().invoke(load_verb("extract"), command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        made.append(read_volume(next(out.rglob("subtomograms/TS_01/*.mrc"))))
    np.testing.assert_array_equal(made[0].voxels, made[1].voxels)
    assert made[0].spacing_angstrom == made[1].spacing_angstrom == pytest.approx(SPACING)


def test_a_spacing_that_is_not_stated_has_to_be_given(tmp_path: Path, voxels: np.ndarray) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", voxels, 2, unit=None)
    with pytest.raises(InputError, match="states no voxel spacing"):
        Tomogram(path)
    assert Tomogram(path, 10.0).spacing_angstrom == 10.0


def test_what_is_no_tomogram_or_damaged_is_one_error(tmp_path: Path, voxels: np.ndarray) -> None:
    (tmp_path / "empty").mkdir()
    zarr.open_group(str(tmp_path / "plain.zarr"), mode="w", zarr_format=2)
    bad_axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in "xyz"]
    write_ome_zarr(tmp_path / "axes.zarr", voxels, 2, axes=bad_axes)
    write_ome_zarr(tmp_path / "parsec.zarr", voxels, 2, axes=[{**axis, "unit": "parsec"} for axis in bad_axes])
    for name in ("empty", "plain.zarr", "axes.zarr", "parsec.zarr"):
        with pytest.raises(InputError, match="no OME-Zarr tomogram") as caught:
            Tomogram(tmp_path / name)
        assert caught.value.file == tmp_path / name
    path = write_ome_zarr(tmp_path / "cut.zarr", voxels, 2)
    chunk = next(file for file in (path / "0").rglob("*") if file.is_file() and not file.name.startswith(".z"))
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(InputError, match="voxels cannot be read"):
        [Tomogram(path).read_box((z, y, x), 16) for z in (0, 8) for y in (0, 16) for x in (0, 16)]
