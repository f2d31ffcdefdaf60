import json
import os
import resource
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.main import load_verb

from cryodc.codes import Codes
from cryodc.dataset import (
    InputOptions,
    PackedArray,
    PackRecipe,
    SubtomogramDataset,
    box_of_spacing,
    load_dataset,
    open_own_pack,
    open_pack,
    pack_particles,
    pack_writer,
)
from cryodc.dataset import pack_files as pack
from cryodc.errors import InputError
from cryodc.fourier import crop_weights, fourier_crop, standardise
from cryodc.io import ImageReference, read_volume, write_array
from cryodc.particles import ParticleSet, read_particles
from cryodc.runs import RunFolder, load_config, load_run_dataset
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
from cryodc.training import Listener, TrainRequest, train_run
from cryodc.training.workflow import prepare_run

BOX = 16
OVERRIDES = {"model": {"width": 8, "max_channels": 16}, "optimisation": {"epochs": 2, "batch_size": 8}}


@pytest.fixture(scope="session")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 particles of three tomograms with a wedge each; shared, so never changed."""
    folder = tmp_path_factory.mktemp("packed")
    simulation = SimulationConfig(
        n_per_map=12, snr=0.5, n_tomograms=3, box_size=BOX, spacing_angstrom=20.0, tilt_ranges=((-60, 60), (-40, 50))
    )
    write_simulation(choose_proteins(["bilobe", "barrel"], []), simulation, folder, with_poses=True)
    return folder / "particles.star"


@pytest.fixture(scope="session")
def particles(star: Path) -> ParticleSet:
    return read_particles(star)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five particles to a chunk."""
    monkeypatch.setattr(pack, "_CHUNK_BYTES", 5 * 4 * BOX**3)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def everything(dataset: SubtomogramDataset) -> tuple[torch.Tensor, torch.Tensor]:
    return dataset.batch(torch.arange(len(dataset)))


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


def test_an_interrupted_packing_goes_on_to_the_same_bytes(
    particles: ParticleSet, tmp_path: Path, small_chunks: None
) -> None:
    pack_particles(particles, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def kill(n_particles: int, n_total: int) -> None:
        done.append(n_particles)
        if sum(done) >= 10:
            raise KilledError

    done: list[int] = []
    with pytest.raises(KilledError):
        pack_particles(particles, tmp_path / "broken", on_progress=kill)
    with pytest.raises(InputError, match="interrupted"):
        open_pack(tmp_path / "broken", particles)
    # What a power cut may leave: half a chunk, and half a line of the journal.
    for name, rest in (("volumes.npy", b"\x01" * 100), ("weights.npy", b"\x01"), ("journal.jsonl", b'{"volu')):
        with (tmp_path / "broken" / name).open("ab") as file:
            file.write(rest)
    done.clear()
    pack_particles(particles, tmp_path / "broken", on_progress=lambda n_particles, n_total: done.append(n_particles))
    assert done[0] == 10
    assert sum(done) == len(particles)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_training_that_was_killed_while_packing_goes_on_with_it(
    star: Path, particles: ParticleSet, tmp_path: Path, small_chunks: None
) -> None:
    class KilledError(Exception):
        pass

    def kill(n_particles: int, n_total: int) -> None:
        done.append(n_particles)
        if sum(done) >= 15:
            raise KilledError

    done: list[int] = []
    request = TrainRequest(star, tmp_path / "run")
    with pytest.raises(KilledError):
        prepare_run(request, listener=Listener(on_pack=kill))
    done.clear()
    prepared = prepare_run(request, listener=Listener(on_pack=lambda n_particles, n_total: done.append(n_particles)))
    assert done == [15, 5, 4]
    assert torch.equal(everything(prepared.dataset)[0], everything(load_dataset(particles))[0])


def test_a_chunk_that_changed_on_disk_is_packed_again_when_packing_goes_on(
    particles: ParticleSet, tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_particles(particles, tmp_path / "whole")
    monkeypatch.setattr(pack_writer, "_finish", lambda *_: None)
    pack_particles(particles, tmp_path / "broken")
    monkeypatch.undo()
    monkeypatch.setattr(pack, "_CHUNK_BYTES", 5 * 4 * BOX**3)
    flip_byte(tmp_path / "broken" / "volumes.npy", 128 + 7 * 4 * BOX**3)
    pack_particles(particles, tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def flip_byte(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: os.truncate(p / "volumes.npy", 5000), "bytes"),
        (lambda p: os.truncate(p / "weights.npy", 5000), "bytes"),
        (lambda p: flip_byte(p / "volumes.npy", 128 + 12 * 4 * BOX**3), "within particles 11 to 15"),
        (lambda p: flip_byte(p / "volumes.npy", 20), "header"),
        (lambda p: flip_byte(p / "weight_index.npy", 130), "checksum"),
        (lambda p: (p / "names.txt").unlink(), "No such file"),
        (lambda p: (p / "index.json").write_text("{"), "index.json"),
        (lambda p: (p / "index.json").write_text('{"format": "other"}'), "other"),
    ],
)
def test_a_damaged_pack_is_one_error_and_a_runs_own_is_made_anew(
    damage: object, said: str, particles: ParticleSet, tmp_path: Path, small_chunks: None
) -> None:
    pack_particles(particles, tmp_path / "p")
    before = contents(tmp_path / "p")
    damage(tmp_path / "p")  # type: ignore[operator]
    with pytest.raises(InputError, match="damaged") as caught:
        open_pack(tmp_path / "p", particles)
    assert said in str(caught.value)
    with pytest.raises(InputError, match="damaged"):
        pack_particles(particles, tmp_path / "p")
    open_own_pack(tmp_path / "p", particles)
    assert contents(tmp_path / "p") == before


def test_a_pack_cut_short_while_it_is_read_is_an_error(particles: ParticleSet, tmp_path: Path) -> None:
    pack_particles(particles, tmp_path / "p")
    dataset = open_pack(tmp_path / "p", particles)
    os.truncate(tmp_path / "p" / "volumes.npy", 5000)
    with pytest.raises(InputError, match="cut short"):
        list(dataset.batches([torch.tensor([0, 1]), torch.tensor([20])]))


def test_a_stale_pack_is_an_error_and_a_runs_own_is_made_anew(particles: ParticleSet, tmp_path: Path) -> None:
    copy = tmp_path / "one.mrc"
    copy.write_bytes(particles.images[1].path.read_bytes())
    mine = replace(particles, images=(ImageReference(copy, particles.images[0].section), *particles.images[1:]))
    pack_particles(mine, tmp_path / "p")
    content = particles.images[2].path.read_bytes()
    copy.write_bytes(content)
    os.utime(copy, ns=(0, 0))
    with pytest.raises(InputError, match="have changed since"):
        open_pack(tmp_path / "p", mine)
    rebuilt = open_own_pack(tmp_path / "p", mine)
    expected = standardise(torch.from_numpy(read_volume(copy).voxels))
    assert torch.equal(rebuilt.volumes[torch.tensor([0])][0], expected)


def test_a_pack_of_other_particles_or_options_is_refused(particles: ParticleSet, tmp_path: Path) -> None:
    pack_particles(particles, tmp_path / "p", box_size=12)
    with pytest.raises(InputError, match="other particles"):
        open_pack(tmp_path / "p", particles.select([0, 1, 2]))
    with pytest.raises(InputError, match="another invert"):
        open_pack(tmp_path / "p", particles, InputOptions(invert=True))
    with pytest.raises(InputError, match="another dtype"):
        pack_particles(particles, tmp_path / "p", box_size=12, dtype="float16")
    wedge = replace(particles, weight_images=None)
    pack_particles(wedge, tmp_path / "w", InputOptions(tilt_range=(-60.0, 60.0)))
    with pytest.raises(InputError, match="another tilt range"):
        open_pack(tmp_path / "w", wedge, InputOptions(tilt_range=(-50.0, 60.0)))
    with pytest.raises(InputError, match="not a pack"):
        open_pack(tmp_path, particles)


def test_nothing_is_overwritten(particles: ParticleSet, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="nothing is overwritten"):
        pack_particles(particles, tmp_path)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_full_disk_is_one_error_and_packing_goes_on_later(
    particles: ParticleSet, tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(pack_writer.shutil, "disk_usage", lambda folder: usage(0, 0, 1000))
    with pytest.raises(InputError, match="does not fit on this disk"):
        pack_particles(particles, tmp_path / "p")
    monkeypatch.undo()
    monkeypatch.setattr(pack, "_CHUNK_BYTES", 5 * 4 * BOX**3)
    # A limit on the length of a file stands for a disk that fills while packing.
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12 * 4 * BOX**3, limit[1]))
    try:
        with pytest.raises(InputError, match="cannot write the pack"):
            pack_particles(particles, tmp_path / "p")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    done: list[int] = []
    pack_particles(particles, tmp_path / "p", on_progress=lambda n_particles, n_total: done.append(n_particles))
    assert done[0] == 10
    assert torch.equal(everything(open_pack(tmp_path / "p", particles))[0], everything(load_dataset(particles))[0])


def test_two_processes_do_not_pack_into_one_folder(particles: ParticleSet, tmp_path: Path, small_chunks: None) -> None:
    def again(n_particles: int, n_total: int) -> None:
        with pytest.raises(InputError, match="another process"):
            pack_particles(particles, tmp_path / "p")

    pack_particles(particles, tmp_path / "p", on_progress=again)


def test_a_weight_beyond_float16_is_an_error(particles: ParticleSet, tmp_path: Path) -> None:
    path = tmp_path / "large.mrc"
    write_array(path, np.full((BOX, BOX, BOX // 2 + 1), 1e6, np.float32), 1.0)
    assert particles.weight_images is not None
    large = replace(particles, weight_images=tuple(ImageReference(path, w.section) for w in particles.weight_images))
    with pytest.raises(InputError, match="float16"):
        pack_particles(large, tmp_path / "p", dtype="float16")


def test_a_pack_larger_than_memory_is_read_without_holding_it(tmp_path: Path) -> None:
    recipe = PackRecipe("", 2_000_000, 2_000_000, 32, 10.0, "float32", None, None, "y", False)
    for name in recipe.shapes:
        with (tmp_path / name).open("wb") as file:
            file.write(recipe.header(name))
            file.truncate(recipe.file_bytes(name))
    assert recipe.file_bytes("volumes.npy") > 200e9
    before = resident_bytes()
    volumes, weights = (PackedArray(tmp_path, name, recipe) for name in recipe.shapes)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        indices = torch.randint(len(volumes), (64,), generator=generator)
        assert volumes[indices].shape == (64, 32, 32, 32)
        assert not weights[indices].any()
    # 20 batches are 250 MB; what stays is less than two of them.
    assert resident_bytes() - before < 30e6


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


TWO_PROCESSES = """
import json
import sys
from pathlib import Path
import torch
from cryodc.device import join_team
from cryodc.errors import InputError
from cryodc.training import TrainRequest, prepare_run
from cryodc.training import Listener
star, out = map(Path, sys.argv[1:])
packed = []
with join_team(torch.device("cpu")) as team:
    listener = Listener(on_pack=lambda n_particles, n_total: packed.append(n_particles))
    dataset = prepare_run(TrainRequest(star, out / "run"), team, listener).dataset
    total = float(dataset.batch(torch.arange(len(dataset)))[0].abs().sum())
    try:
        prepare_run(TrainRequest(star, out / "other", pack=out / "run" / "particles.pack", invert=True), team)
        refused = ""
    except InputError as error:
        refused = str(error)
    (out / f"rank{team.rank}").write_text(json.dumps((total, sum(packed), refused)))
"""


def test_of_two_processes_one_packs_and_both_hear_of_an_error(
    star: Path, particles: ParticleSet, tmp_path: Path
) -> None:
    script = tmp_path / "both.py"
    script.write_text(TWO_PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    finished = subprocess.run(
        [*torchrun, str(star), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1)]
    expected = float(everything(load_dataset(particles))[0].abs().sum())
    assert [total for total, _, _ in ranks] == [pytest.approx(expected)] * 2
    assert [n_packed for _, n_packed, _ in ranks] == [len(particles), 0]
    assert all("another invert" in refused for _, _, refused in ranks)


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


LATE_PROCESS = """
import sys
import time
from pathlib import Path
import torch
from cryodc.device import join_team
from cryodc.training import TrainRequest, prepare_run
star, out = map(Path, sys.argv[1:])
with join_team(torch.device("cpu")) as team:
    time.sleep(3 * team.rank)
    prepare_run(TrainRequest(star, out / "run", packed=False), team)
"""


def test_a_process_that_comes_late_does_not_take_its_own_run_for_another(star: Path, tmp_path: Path) -> None:
    script = tmp_path / "late.py"
    script.write_text(LATE_PROCESS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    finished = subprocess.run(
        [*torchrun, str(star), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert (tmp_path / "run" / "config.yaml").exists()
