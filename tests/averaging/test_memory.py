"""Results do not depend on how much of the particles may be held in memory, and no more is read at once than stated."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.learn.average import average as average_command
from cryodc_cli.learn.states import states as states_command
from torch import Tensor

from cryodc.alignment import ClassSpectra, align_class, balanced_halves
from cryodc.averaging.classify import classify_particles, score_particles
from cryodc.fourier import ParticleStack, StoredParticles, mean_weights, wedge_from_tilt_range
from cryodc.geometry import random_rotations
from cryodc.maps import average_particles
from cryodc.simulation import SimulationConfig, phantom, simulate_particles

N, BOX = 20, 20
AT_ONCE = 8
EVERYTHING, NOTHING = 1e12, 0.0


class Store:
    """Particles elsewhere, and the most of them that were read at once."""

    def __init__(self, stack: ParticleStack) -> None:
        self.stack, self.most = stack, 0

    def gather(self, rows: Tensor) -> ParticleStack:
        self.most = max(self.most, len(rows))
        distinct, index = torch.unique(self.stack.weight_index[rows], return_inverse=True)
        return ParticleStack(self.stack.volumes[rows], self.stack.weights[distinct], index)

    def particles(self, memory_bytes: float) -> StoredParticles:
        rows = torch.arange(len(self.stack))
        index = self.stack.weight_index
        return StoredParticles(self.gather, rows, index, BOX, memory_bytes, AT_ONCE, torch.device("cpu"))


@pytest.fixture(scope="module")
def stack() -> ParticleStack:
    """Two proteins, every particle with a weight of its own but for two pairs that share one."""
    config = SimulationConfig(n_per_map=N, snr=1.0, seed=5, box_size=BOX, spacing_angstrom=15.0)
    made = simulate_particles({name: phantom(name) for name in ("wheel", "clamp")}, config)
    weights = torch.stack([wedge_from_tilt_range(BOX, -60 + 0.5 * i, 60 - 0.25 * i) for i in range(2 * N)])
    index = torch.arange(2 * N)
    index[3], index[30] = 17, 2
    return ParticleStack(made.volumes, weights, index)


def test_alignment_is_the_same_held_or_read(stack: ParticleStack) -> None:
    store = Store(stack)
    held, read = (align_class(store.particles(n).select(slice(N)), n_starts=1) for n in (EVERYTHING, NOTHING))
    in_memory = align_class(stack.select(slice(N)), n_starts=1)
    for name in ("rotations", "origins_voxels", "scores"):
        torch.testing.assert_close(getattr(read, name), getattr(held, name), rtol=0, atol=0)
        torch.testing.assert_close(getattr(read, name), getattr(in_memory, name), rtol=0, atol=0)
    np.testing.assert_array_equal(read.fsc, held.fsc)
    assert store.most <= AT_ONCE


def test_classes_are_the_same_held_or_read(stack: ParticleStack) -> None:
    clusters, halves = torch.arange(2 * N) // N, torch.from_numpy(balanced_halves(2 * N, 1))
    found = []
    for memory_bytes in (EVERYTHING, NOTHING):
        particles = Store(stack).particles(memory_bytes)
        sorted_anew = classify_particles(
            particles, clusters, torch.ones(2 * N), halves, n_starts=1, n_rounds=3, n_splits=0, junk=False
        )
        assert sorted_anew is not None
        found.append((sorted_anew, score_particles(sorted_anew, particles)))
    (held, held_anew), (read, read_anew) = found
    for name in ("labels", "scores", "posterior", "excess", "references"):
        torch.testing.assert_close(getattr(read, name), getattr(held, name), rtol=0, atol=0)
    for first, second in zip(read_anew, held_anew, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_averages_are_the_same_in_memory_or_read(stack: ParticleStack) -> None:
    store, rotations = Store(stack), random_rotations(2 * N, torch.Generator().manual_seed(0))
    poses = (rotations, torch.zeros(2 * N, 3), balanced_halves(2 * N, 0))
    read, in_memory = (average_particles(particles, *poses) for particles in (store.particles(NOTHING), stack))
    for name in ("average", "halves", "mask"):
        torch.testing.assert_close(getattr(read, name), getattr(in_memory, name), rtol=0, atol=0)
    assert read.score == in_memory.score
    torch.testing.assert_close(read.coverage.volume, in_memory.coverage.volume, rtol=0, atol=0)
    assert store.most < 2 * N


def test_changes_follow_the_particles_that_are_read(stack: ParticleStack) -> None:
    particles, mask = Store(stack).particles(NOTHING), torch.zeros(BOX, BOX, BOX)
    mask[:10] = 1.0
    doubled = particles.masked(mask).changed(lambda part: replace(part, volumes=2 * part.volumes), BOX)
    rows = torch.tensor([5, 3, 3, 17])
    found = doubled.select(rows).read()
    torch.testing.assert_close(found.volumes, 2 * mask * stack.volumes[rows])
    torch.testing.assert_close(found.own_weights, stack.own_weights[rows])


def test_memory_is_kept_within_what_is_allowed(stack: ParticleStack) -> None:
    store, radius = Store(stack), 6.0
    n_voxels = len(ClassSpectra(stack, radius).wider.ball)
    wanted = n_voxels * (8 * 2 * N + 4 * (2 * N - 2))
    reads = []
    for memory_bytes in (wanted, wanted - 1):
        particles = ClassSpectra(store.particles(memory_bytes), radius)
        store.most = 0
        particles.within(radius, torch.arange(3))
        reads.append(store.most)
    assert reads == [0, 3]


def test_mean_weight_is_over_distinct_weights_in_use(stack: ParticleStack) -> None:
    ball = ClassSpectra(stack, 6.0).ball
    squared, seen = mean_weights(Store(stack).particles(NOTHING).select(slice(5)), ball)
    used = stack.weights[[0, 1, 2, 17, 4]].flatten(1)[:, ball.index]
    torch.testing.assert_close(squared, ball.shell_mean(used.square().mean(dim=0)))
    torch.testing.assert_close(seen, ball.shell_mean((used > 0.1).float().mean(dim=0)))


@pytest.mark.parametrize("given", ["8", "8X", "-1G", "G", "1,5G", "nanG"])
def test_a_memory_that_is_no_size_is_refused(given: str, tmp_path: Path) -> None:
    for command, options in ((average_command, []), (states_command, ["--class", "1"])):
        done = CliRunner().invoke(command, [str(tmp_path), *options, "--memory", given])
        assert done.exit_code == 2
        assert "M, G or T" in done.output


def test_a_run_has_the_same_averages_with_hardly_any_memory(small_run: Path, tmp_path: Path) -> None:
    written = []
    for name, memory in (("much", "1G"), ("little", "0.5K")):
        run = tmp_path / name
        shutil.copytree(small_run, run)
        options = ["--ignore-poses", "--no-classify", "--starts", "1", "--memory", memory]
        done = CliRunner().invoke(average_command, [str(run), *options], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        written.append(run / "averages")
    for file in ("class001.mrc", "class002_half1.mrc", "fsc.csv"):
        much, little = ((folder / file).read_bytes() for folder in written)
        # The header of an MRC says when it was written.
        start = 1024 if file.endswith(".mrc") else 0
        assert much[start:] == little[start:]
