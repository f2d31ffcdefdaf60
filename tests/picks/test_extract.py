"""Particles cut out of tomograms: in the middle of their box, in their pose, whatever program picked them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cryodc.check import check_particles
from cryodc.dataset import load_dataset
from cryodc.errors import InputError
from cryodc.geometry import resample
from cryodc.io import read_volume
from cryodc.particles import read_particles
from cryodc.picks import ExtractRequest, extract_subtomograms, read_picks
from cryodc.star import read_star
from tests.picks.picked import BLOBS, POSITIONS, SIGMA, SPACING, _blobs, _matrices, _write_picks


def _particle(pose: int, box: int, scale: float = 1.0) -> NDArray[np.float32]:
    """What the box of a particle must hold: its blobs around index N // 2, turned by its pose."""
    return _blobs((box,) * 3, BLOBS @ _matrices()[pose].T * scale + box // 2, SIGMA * scale)


def test_the_shift_in_a_copick_transformation_moves_the_pick(tmp_path: Path) -> None:
    """copick: the particle is at location + transformation[:3, 3], in Å."""
    matrix = np.eye(4)
    matrix[:3, 3] = [5, -10, 20]
    point = {"location": {"x": 100, "y": 200, "z": 300}, "transformation_": matrix.tolist()}
    (tmp_path / "a.json").write_text(json.dumps({"run_name": "TS_07", "points": [point]}))
    np.testing.assert_allclose(read_picks(tmp_path / "a.json").in_voxels(SPACING, None) * SPACING, [[320, 190, 105]])


KINDS = ["relion 3.0", "relion 3.1", "relion 4", "relion 5", "dynamo", "stopgap", "em", "copick", "portal", "csv"]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-4], lambda b: b + b"\0", lambda b: b[:200], lambda b: b"\0" * 4 + b[4:]]
)
def test_a_damaged_em_motivelist_is_one_error(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = _write_picks("em", tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        read_picks(path)
    assert caught.value.file == path


@pytest.mark.parametrize("kind", KINDS)
def test_a_pick_of_any_program_is_in_the_middle_of_its_box_and_in_its_pose(
    tomogram: Path, tmp_path: Path, kind: str
) -> None:
    picks = _write_picks(kind, tmp_path)
    before = picks.read_bytes()
    request = ExtractRequest([tomogram], picks, tmp_path / "out", 16, tilt_range=(-60, 50), normalise=False)
    result = extract_subtomograms(request)
    assert result.n_extracted == {"TS_07": 4}
    assert picks.read_bytes() == before
    particles = read_particles(result.star)
    assert (particles.box_size, particles.spacing_angstrom, set(particles.tomograms)) == (16, SPACING, {"TS_07"})
    for i, image in enumerate(particles.images):
        volume = read_volume(image)
        np.testing.assert_allclose(volume.voxels, _particle(i, 16), atol=0.01)
    assert particles.poses is not None
    np.testing.assert_allclose(particles.poses.rotations, _matrices()[:, ::-1, ::-1], atol=1e-6)
    # Aligned by those poses, all four are the reference.
    volumes = torch.stack([torch.from_numpy(read_volume(image).voxels) for image in particles.images])
    aligned = resample(volumes, torch.from_numpy(particles.poses.rotations).float()).numpy()
    reference = _blobs((16,) * 3, BLOBS + 8)
    for volume in aligned:
        assert np.corrcoef(volume.ravel(), reference.ravel())[0, 1] > 0.98


def test_binning_keeps_the_middle_and_the_object(tomogram: Path, tmp_path: Path) -> None:
    request = ExtractRequest([tomogram], _write_picks("csv", tmp_path), tmp_path / "out", 8, binning=2, normalise=False)
    result = extract_subtomograms(request)
    particles = read_particles(result.star)
    assert particles.spacing_angstrom == 2 * SPACING
    for i, image in enumerate(particles.images):
        found, expected = read_volume(image).voxels, _particle(i, 8, 0.5)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97
        # The middle is where the object says: the centroids agree to a tenth of a voxel.
        grid = np.indices(found.shape).reshape(3, -1)
        centroids = [(grid * v.ravel()).sum(axis=1) / v.sum() for v in (found, expected)]
        assert np.abs(centroids[0] - centroids[1]).max() < 0.1


def test_training_reads_what_was_written_at_once(tomogram: Path, tmp_path: Path) -> None:
    request = ExtractRequest([tomogram], _write_picks("stopgap", tmp_path), tmp_path / "out", 16, tilt_range=(-60, 50))
    result = extract_subtomograms(request)
    assert check_particles(result.star).problems == ()
    particles = read_particles(result.star)
    dataset = load_dataset(particles)
    assert dataset.weights.shape == (1, 16, 16, 9)
    # Normalised as asked, white as the tomogram is.
    voxels = read_volume(particles.images[0]).voxels
    assert abs(voxels.mean()) < 1e-4
    assert voxels.std() == pytest.approx(1, abs=1e-3)
    block = read_star(result.star).block("particles")
    assert block.column("rlnClassNumber") == ["3"] * 4
    assert block.column("rlnRandomSubset") == ["2", "1", "2", "1"]
    inverted = extract_subtomograms(
        ExtractRequest([tomogram], request.picks, tmp_path / "black", 16, tilt_range=(-60, 50), invert=True)
    )
    black = read_volume(read_particles(inverted.star).images[0]).voxels
    np.testing.assert_allclose(black, -voxels, atol=1e-6)


def test_every_tomogram_has_its_own_wedge(tomogram: Path, tmp_path: Path) -> None:
    other = tmp_path / "TS_08_8.00Apx.mrc"
    other.write_bytes(tomogram.read_bytes())
    rows = [f"{x},{y},{z},{name}" for name in ("TS_07", "TS_08") for x, y, z in POSITIONS]
    picks = tmp_path / "picks.csv"
    picks.write_text("x,y,z,tomogram\n" + "\n".join(rows) + "\n")
    ranges = {"TS_07": (-60.0, 60.0), "TS_08_8.00Apx": (-40.0, 50.0)}
    result = extract_subtomograms(
        ExtractRequest([tomogram, other], picks, tmp_path / "out", 16, tilt_ranges=ranges, tilt_axis="x")
    )
    dataset = load_dataset(read_particles(result.star))
    assert result.n_extracted == {"TS_07": 4, "TS_08_8.00Apx": 4}
    measured = dataset.weights.mean(dim=(1, 2, 3))
    assert measured[dataset.weight_index[0]] > measured[dataset.weight_index[4]]
    with pytest.raises(InputError, match="no tilt range"):
        extract_subtomograms(
            ExtractRequest([tomogram, other], picks, tmp_path / "b", 16, tilt_ranges={"TS_07": (-60, 60)})
        )
    assert not (tmp_path / "b").exists()
