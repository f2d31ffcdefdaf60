"""Two processes that share the particles find what one process finds, and leave one folder."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from cryodc.averaging import AverageRequest, average_run
from cryodc.codes import Codes
from cryodc.io import read_volume
from cryodc.models import preset_config
from cryodc.particles import Poses, read_particles
from cryodc.runs import RunFolder, current_classes, save_codes, save_config
from cryodc.simulation import SimulationConfig, phantom, read_truth, write_simulation
from cryodc.training import TrainRequest, describe_run
from tests.made_runs import make_clusters
from tests.together import run_together

N, BOX, SPACING = 12, 20, 15.0
DEGREES, VOXELS, OF_THE_MAP = 0.5, 0.05, 0.02
"""How far poses and maps of two processes may be from those of one."""

TOGETHER = """
import json
import runpy
import sys
from pathlib import Path
import torch
from cryodc.alignment import ClassSpectra
from cryodc.device import join_team
from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, StoredParticles
from cryodc.device import by_leader, led, sharing
from cryodc.unfinished import DoneSteps, save_state

folder, run = map(Path, sys.argv[1:])
stack = ParticleStack(torch.randn(9, 12, 12, 12), torch.ones(1, 12, 12, 7), torch.zeros(9, dtype=torch.long))
read = []

def gather(rows):
    read.extend(rows.tolist())
    return stack.select(rows)

def refuse():
    raise InputError("refused by the leader")

with join_team(torch.device("cpu")) as team:
    with sharing(team):
        stored = StoredParticles(gather, torch.arange(9), stack.weight_index, 12, 0.0, 4, torch.device("cpu"))
        particles = ClassSpectra(stored, 4.0)
        own = sorted(read)
        steps = folder / f"steps{team.rank}"
        if team.leads:
            save_state(steps / "step.pt", {"made": 1})
        taken = DoneSteps(steps).once("step", lambda _: {"made": 2})["made"]
        made = DoneSteps(steps).once("new step", lambda _: {"made": team.rank})["made"]
        try:
            by_leader(refuse)
            heard = ""
        except InputError as error:
            heard = str(error)
    found = {"own": own, "taken": taken, "made": made, "heard": heard, "kept": steps.exists()}
    (folder / f"rank{team.rank}.json").write_text(json.dumps(found))
    sys.argv[1:] = ["average", str(run), "--ignore-poses", "--starts", "1", "--iterations", "3", "--no-junk"]
    runpy.run_module("cryodc", run_name="__main__")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two proteins, some of each in the cluster of the other; never written into."""
    folder = tmp_path_factory.mktemp("shared")
    proteins = {name: phantom(name) for name in ("bilobe", "clamp")}
    simulation = SimulationConfig(n_per_map=N, snr=4.0, box_size=BOX, spacing_angstrom=SPACING)
    write_simulation(proteins, simulation, folder / "sim")
    star = folder / "sim/particles.star"
    labels = read_truth(folder / "sim/truth.csv").labels.copy()
    labels[[0, -1]] = labels[[-1, 0]]
    particles, made = read_particles(star), RunFolder(folder / "run")
    made.path.mkdir()
    request = TrainRequest(star=star, out=made.path, tilt_range=(-60.0, 60.0))
    save_config(made, describe_run(request, particles, preset_config("default", BOX)))
    made.particles.write_bytes(star.read_bytes())
    save_codes(made, Codes(particles.names, *[np.random.default_rng(0).normal(size=(2 * N, 2)).astype(np.float32)] * 4))
    make_clusters(made, particles.names, labels.tolist())
    return made


@pytest.fixture(scope="module")
def one(run: RunFolder) -> RunFolder:
    """Averaged by one process."""
    alone = RunFolder(run.path.with_name("one"))
    shutil.copytree(run.path, alone.path)
    average_run(alone, AverageRequest(ignore_poses=True, n_starts=1, n_rounds=3, junk=False))
    return alone


@pytest.fixture(scope="module")
def two(run: RunFolder) -> tuple[RunFolder, str]:
    """Averaged by two processes, and what they printed."""
    both = RunFolder(run.path.with_name("two"))
    shutil.copytree(run.path, both.path)
    script = both.path.with_name("together.py")
    return both, run_together(script, TOGETHER, script.parent, both.path)


def poses_of(run: RunFolder) -> Poses:
    poses = read_particles(run.averages / "particles.star", run.path.with_name("sim")).poses
    assert poses is not None
    return poses


def maps_of(run: RunFolder) -> dict[str, NDArray[np.float32]]:
    return {path.name: read_volume(path).voxels for path in sorted(run.averages.glob("*.mrc"))}


def test_two_processes_find_the_classes_and_poses_of_one(one: RunFolder, two: tuple[RunFolder, str]) -> None:
    alone, together = current_classes(one), current_classes(two[0])
    assert alone.n_clusters == 2
    np.testing.assert_array_equal(together.labels, alone.labels)
    first, second = poses_of(one), poses_of(two[0])
    cosine = (np.einsum("nij,nij->n", first.rotations, second.rotations) - 1) / 2
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < DEGREES
    assert np.abs(first.origins_angstrom - second.origins_angstrom).max() < SPACING * VOXELS


def test_two_processes_make_the_maps_of_one(one: RunFolder, two: tuple[RunFolder, str]) -> None:
    alone, together = maps_of(one), maps_of(two[0])
    assert alone.keys() == together.keys()
    for name, voxels in alone.items():
        assert np.linalg.norm(together[name] - voxels) < OF_THE_MAP * np.linalg.norm(voxels), name


def test_two_processes_leave_one_folder_and_speak_with_one_voice(one: RunFolder, two: tuple[RunFolder, str]) -> None:
    both, printed = two
    files = [sorted(path.relative_to(r.path) for path in r.path.rglob("*")) for r in (one, both)]
    assert files[0] == files[1]
    assert printed.count("Next:") == 1


def test_each_process_reads_its_share_and_takes_what_the_leader_kept(two: tuple[RunFolder, str]) -> None:
    ranks = [json.loads((two[0].path.with_name(f"rank{rank}.json")).read_text()) for rank in (0, 1)]
    once = [0]  # For the weight that all particles have, which every process reads.
    assert [sorted(rank["own"]) for rank in ranks] == [sorted(once + list(range(5))), sorted(once + list(range(5, 9)))]
    assert [(rank["taken"], rank["made"]) for rank in ranks] == [(1, 0)] * 2
    assert [rank["kept"] for rank in ranks] == [True, False]
    assert all("refused by the leader" in rank["heard"] for rank in ranks)


def test_a_verb_that_knows_no_team_is_refused_in_several_processes(run: RunFolder) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "cryodc", "cluster", str(run.path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "WORLD_SIZE": "2"},
    )
    assert refused.returncode == 2
    assert "cluster runs in one process" in refused.stderr
    assert "without torchrun" in refused.stderr
