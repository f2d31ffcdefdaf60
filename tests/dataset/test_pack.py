"""A pack holds what the files hold, and training from it is training from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.main import load_verb

from cryodc.codes import Codes
from cryodc.dataset import PackedArray, box_of_spacing, load_dataset, open_pack, pack_particles
from cryodc.fourier import crop_weights, fourier_crop, standardise
from cryodc.io import ImageReference, read_volume, write_array
from cryodc.particles import ParticleSet, read_particles
from cryodc.runs import RunFolder, load_config, load_run_dataset
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
from cryodc.training import Listener, TrainRequest, train_run
from tests.dataset.packs import BOX, everything

OVERRIDES = {"model": {"width": 8, "max_channels": 16}, "optimisation": {"epochs": 2, "batch_size": 8}}


def train_codes(star: Path, out: Path, **request: object) -> tuple[RunFolder, Codes, list[dict[str, float]]]:
    lines: list[dict[str, float]] = []
    listener = Listener(on_epoch=lambda line: lines.append({k: v for k, v in line.items() if k != "seconds"}))
    run, codes = train_run(TrainRequest(star, out, overrides=OVERRIDES, device="cpu", **request), listener)
    return run, codes, lines


def test_a_float32_pack_gives_the_volumes_and_weights_of_the_files(
    particles: ParticleSet, tmp_path: Path, small_chunks: None
) -> None:
    pack_particles(particles, tmp_path / "p")
    packed, loaded = open_pack(tmp_path / "p", particles), load_dataset(particles)
    order = torch.tensor([23, 0, 7, 7, 12])
    for ours, theirs in zip(packed.batch(order), loaded.batch(order), strict=True):
        assert torch.equal(ours, theirs)
    first, second = vars(packed.gather(order)), vars(loaded.gather(order))
    for name in ("volumes", "weights", "weight_index"):
        assert torch.equal(first[name], second[name])


def test_a_pack_is_read_with_numpy_alone(particles: ParticleSet, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    pack_particles(particles, folder, dtype="float16")
    volumes = np.load(folder / "volumes.npy", mmap_mode="r")
    weights = np.load(folder / "weights.npy", mmap_mode="r")
    index = np.load(folder / "weight_index.npy")
    assert (folder / "names.txt").read_text().splitlines() == list(particles.names)
    assert particles.weight_images is not None
    recorded = read_volume(particles.images[5]).voxels
    expected = (recorded - recorded.mean()) / recorded.std()
    # Half precision keeps 11 bits: the largest error is half a unit in the last of them.
    assert np.abs(volumes[5].astype(float) - expected).max() <= np.abs(expected).max() * 2**-11
    wedge = load_dataset(particles).weight(torch.tensor([5]))[0].numpy()
    np.testing.assert_array_equal(weights[index[5]], wedge)


def test_training_from_a_pack_gives_the_losses_and_codes_of_training_from_memory(star: Path, tmp_path: Path) -> None:
    run, codes, losses = train_codes(star, tmp_path / "packed")
    bare, expected, expected_losses = train_codes(star, tmp_path / "memory", packed=False)
    assert losses == expected_losses
    np.testing.assert_array_equal(codes.content, expected.content)
    assert load_config(run)["pack"] == {
        "path": "particles.pack",
        "box_size": BOX,
        "spacing_angstrom": 20.0,
        "dtype": "float32",
    }
    assert isinstance(load_run_dataset(run).volumes, PackedArray)
    assert load_config(bare)["pack"] is None
    assert not bare.pack.exists()
    assert isinstance(load_run_dataset(bare).volumes, torch.Tensor)


def test_training_from_a_float16_pack_stays_close(star: Path, particles: ParticleSet, tmp_path: Path) -> None:
    pack_particles(particles, tmp_path / "half", dtype="float16")
    _, codes, losses = train_codes(star, tmp_path / "packed", pack=tmp_path / "half")
    _, expected, expected_losses = train_codes(star, tmp_path / "memory", packed=False)
    assert losses != expected_losses
    assert losses[-1]["total"] == pytest.approx(expected_losses[-1]["total"], rel=0.01)
    for ours, theirs in zip(codes.content, expected.content, strict=True):
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99


def test_a_cropped_pack_is_the_fourier_crop_at_a_coarser_spacing(particles: ParticleSet, tmp_path: Path) -> None:
    pack_particles(particles, tmp_path / "p", box_size=12)
    packed = open_pack(tmp_path / "p", particles)
    volumes, weights = everything(load_dataset(particles))
    ours, our_weights = everything(packed)
    assert torch.allclose(ours, standardise(fourier_crop(volumes, 12)), atol=1e-5)
    assert torch.equal(our_weights, crop_weights(weights, 12))
    # The field of view stays: 16 voxels of 20 Å are 12 of 26.7 Å.
    assert packed.particles.box_size * packed.particles.spacing_angstrom == pytest.approx(BOX * 20.0)
    assert box_of_spacing(particles, 26.7) == 12


def test_whitened_particles_are_cropped_as_the_whole_of_them(particles: ParticleSet, tmp_path: Path) -> None:
    # RELION 4's layout: ΣCTF² with 0 where no tilt measured, and the number of tilts.
    generator = np.random.default_rng(0)
    weight = generator.uniform(0.2, 1.0, (BOX, BOX, BOX // 2 + 1)).astype(np.float32)
    weight = np.concatenate([weight, np.ones_like(weight)])
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"weights{i}.mrc")
        write_array(paths[-1], weight * (i + 1), 1.0)
    assert particles.weight_images is not None
    images = tuple(ImageReference(paths[i % 3], image.section) for i, image in enumerate(particles.weight_images))
    relion = replace(particles, weight_images=images)
    pack_particles(relion, tmp_path / "full")
    pack_particles(relion, tmp_path / "crop", box_size=12)
    volumes, _ = everything(open_pack(tmp_path / "full", relion))
    assert torch.equal(volumes, everything(load_dataset(relion))[0])
    cropped, _ = everything(open_pack(tmp_path / "crop", relion))
    assert torch.allclose(cropped, standardise(fourier_crop(volumes, 12)), atol=1e-5)


def test_a_run_on_a_cropped_pack_averages_at_the_spacing_of_the_pack(tmp_path: Path) -> None:
    from cryodc.averaging import AverageRequest, average_run
    from cryodc.clustering import cluster_run

    fine = tmp_path / "fine"
    simulation = SimulationConfig(n_per_map=3, snr=5.0, n_tomograms=1, box_size=24, spacing_angstrom=15.0)
    write_simulation(choose_proteins(["bilobe", "barrel"], []), simulation, fine, with_poses=True)
    warp = fine / "warp.star"
    write_warp_star(read_particles(fine / "particles.star"), warp)
    given = read_particles(warp)
    pack_particles(given, tmp_path / "p", box_size=16)
    run, _ = train_run(TrainRequest(warp, tmp_path / "run", overrides=OVERRIDES, pack=tmp_path / "p"))
    cluster_run(run, 2)
    # Classes too small to align keep the poses they were given, and these are written.
    averages = average_run(run, AverageRequest(ignore_poses=True))
    volume = read_volume(run.averages / "class001.mrc")
    assert (volume.box_size, volume.spacing_angstrom) == (16, pytest.approx(22.5))
    assert all(result.resolution_angstrom is None or result.resolution_angstrom >= 45 for result in averages)
    # The STAR still speaks of the images: its origins are in their pixels.
    written = read_particles(run.averages / "particles.star", data_dir=fine)
    assert given.poses is not None
    assert written.poses is not None
    assert np.abs(given.poses.origins_angstrom).max() > 10
    np.testing.assert_allclose(written.poses.origins_angstrom, given.poses.origins_angstrom, atol=1e-3)


def write_warp_star(particles: ParticleSet, path: Path) -> None:
    """A STAR without optics groups, whose origins are in pixels."""
    assert particles.poses is not None
    assert particles.weight_images is not None
    labels = ["ImageName", "CtfImage", "MicrographName", "PixelSize", "AngleRot", "AngleTilt", "AnglePsi"]
    lines = ["data_", "", "loop_", *(f"_rln{label}" for label in [*labels, "OriginX", "OriginY", "OriginZ"])]
    for i, origin in enumerate(particles.poses.origins_angstrom / particles.spacing_angstrom):
        z, y, x = origin
        files = f"{particles.images[i]} {particles.weight_images[i]} {particles.tomograms[i]}"
        lines.append(f"{files} {particles.spacing_angstrom} {10 * i} 40 50 {x:.6f} {y:.6f} {z:.6f}")
    path.write_text("\n".join(lines) + "\n")


def test_the_index_says_what_was_packed_and_how(particles: ParticleSet, tmp_path: Path) -> None:
    made = pack_particles(particles, tmp_path / "p", box_size=12, dtype="float16")
    index = json.loads((tmp_path / "p" / "index.json").read_text())
    assert index["fingerprint"] == made.fingerprint
    assert index["recipe"]["spacing_angstrom"] == pytest.approx(20.0 * 16 / 12)
    assert not (tmp_path / "p" / "journal.jsonl").exists()


def test_the_command_packs_at_the_spacing_asked(star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finished = CliRunner().invoke(load_verb("pack"), [str(star), "--dtype", "float16", "--spacing", "27"])
    assert finished.exit_code == 0, finished.output
    assert "24 particles, box 12, 26.6667 Å" in finished.output
    assert np.load(tmp_path / "particles.pack" / "volumes.npy", mmap_mode="r").shape == (24, 12, 12, 12)
