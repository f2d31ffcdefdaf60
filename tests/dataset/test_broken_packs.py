"""Packs that were interrupted, damaged or made of something else; disks and memory that are too small."""

import os
import resource
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryodc.dataset import (
    InputOptions,
    PackedArray,
    PackRecipe,
    load_dataset,
    open_own_pack,
    open_pack,
    pack_particles,
    pack_writer,
)
from cryodc.dataset import pack_files as pack
from cryodc.errors import InputError
from cryodc.fourier import standardise
from cryodc.io import ImageReference, read_volume, write_array
from cryodc.particles import ParticleSet
from cryodc.training import Listener, TrainRequest
from cryodc.training.workflow import prepare_run
from tests.dataset.packs import BOX, everything


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
