"""Poses of new particles on the averages of a run: those of the truth, and written where other programs read them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.learn.encode import encode

from cryodc.errors import InputError
from cryodc.geometry import geodesic_degrees
from cryodc.particles import read_particles
from cryodc.runs import RunFolder, run_status
from cryodc.simulation import SimulationConfig, phantom, simulate_particles
from cryodc.training import EncodeRequest, encode_new
from cryodc.training.new.poses import ReadyAverage, poses_on_averages
from tests.simulated import as_dataset

CPU = torch.device("cpu")


def test_particles_lie_on_the_average_of_their_class_as_they_were_simulated() -> None:
    config = SimulationConfig(n_per_map=10, box_size=24, spacing_angstrom=15.0, snr=0.5, max_shift_voxels=1.5, seed=4)
    truth = simulate_particles({name: phantom(name) for name in ("bilobe", "wheel")}, config)
    dataset = as_dataset(truth.volumes, truth.weights, torch.as_tensor(truth.weight_index), 15.0)
    averages = {0: ReadyAverage(truth.maps[0], 8)}
    found = poses_on_averages(dataset, truth.labels, averages, 0, CPU)
    first = truth.labels == 0
    turned = geodesic_degrees(found.rotations[first], truth.poses.rotations[first])
    moved = np.linalg.norm(found.origins_angstrom - truth.poses.origins_angstrom, axis=1)[first]
    assert np.median(turned) < 5.0
    assert np.median(moved) < 0.4 * 15.0
    # A class without an average that can be trusted gives no pose.
    np.testing.assert_array_equal(found.rotations[~first], np.tile(np.eye(3), (10, 1, 1)))
    np.testing.assert_array_equal(found.origins_angstrom[~first], 0.0)


def test_poses_stand_in_the_star_of_new_particles(small_run: Path, tmp_path: Path) -> None:
    star, out = small_run.parent / "sim" / "particles.star", tmp_path / "more"
    words = [str(star), "--run", str(small_run), "--out", str(out), "--align"]
    answer = CliRunner().invoke(encode, words)
    assert answer.exit_code == 0, answer.output
    encoded = encode_new(EncodeRequest(star, tmp_path / "again", RunFolder(small_run), align=True))
    assert encoded.poses is not None
    written = read_particles(out / "clusters.star", data_dir=star.parent).poses
    given = read_particles(star).poses
    assert written is not None
    assert given is not None
    np.testing.assert_allclose(written.rotations, encoded.poses.rotations, atol=1e-5)
    np.testing.assert_allclose(written.origins_angstrom, encoded.poses.origins_angstrom, atol=1e-4)
    # They were searched for, not copied.
    assert geodesic_degrees(written.rotations, given.rotations).min() > 0
    assert [step.state for step in run_status(RunFolder(small_run)).steps if step.verb == "encode"] == []


def test_without_averages_there_is_nothing_to_align_to(small_run: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for name in ("config.yaml", "codes.npz", "particles.star"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_bytes((small_run / name).read_bytes())
    (run.path / "checkpoints").symlink_to(small_run / "checkpoints")
    (run.path / "clusters").symlink_to(small_run / "clusters")
    star = small_run.parent / "sim" / "particles.star"
    with pytest.raises(InputError, match="cryodc average"):
        encode_new(EncodeRequest(star, tmp_path / "more", run, align=True))
    assert not (tmp_path / "more").exists()
