"""Two processes that share the particles find the states, axes and coordinates of one, and leave one folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cryodc.alignment import balanced_halves
from cryodc.averaging import average_run
from cryodc.device import own_part
from cryodc.fourier import soft_sphere, wedge_from_tilt_range
from cryodc.geometry import random_rotations
from cryodc.io import read_volume
from cryodc.models import preset_config
from cryodc.particles import read_particles
from cryodc.runs import RunFolder, StatesSummary, read_summary, save_config
from cryodc.simulation import SimulationConfig, phantom, simulate_particles, write_simulation
from cryodc.states import find_conformations, find_states, measure, relax_symmetry
from cryodc.states.storage import Storage
from cryodc.training import TrainRequest, describe_run
from tests.made_runs import make_clusters
from tests.together import run_together

N, BOX, SPACING, SHELLS = 23, 16, 20.0, 6
OF_A_NUMBER, OF_THE_MAP = 1e-3, 1e-3
"""How far coordinates, in standard deviations, and maps of two processes may be from those of one."""

TOGETHER = """
import runpy
import sys
from pathlib import Path
import torch
from cryodc.device import join_team, sharing
from tests.states.test_two_processes import find_relaxed

run = Path(sys.argv[1])
with join_team(torch.device("cpu")) as team:
    with sharing(team):
        torch.save(find_relaxed(run.parent), run.parent / f"rank{team.rank}.pt")
    sys.argv[1:] = ["states", str(run), "--class", "1", "--states", "2", "--starts", "1"]
    runpy.run_module("cryodc", run_name="__main__")
"""


def find_relaxed(folder: Path) -> dict[str, Tensor]:
    """Mates and states of clamps whose measurements lie in a file; each process has those of its part."""
    config = SimulationConfig(n_per_map=N, snr=1.0, seed=4, box_size=BOX, spacing_angstrom=SPACING)
    volumes = simulate_particles({"clamp": phantom("clamp")}, config).volumes
    rotations, weight = random_rotations(N, torch.Generator().manual_seed(0)), wedge_from_tilt_range(BOX, -60, 60)
    own, halves = torch.arange(N)[own_part(N)], balanced_halves(N, 0)
    batches = [
        (volumes[rows], weight.expand(len(rows), -1, -1, -1), rotations[rows], torch.zeros(len(rows), 3))
        for rows in own.split(7)
    ]
    measured, average = measure(lambda: batches, soft_sphere(BOX, 6.0, 2.0), SHELLS, Storage(N, 0, folder))
    relaxed, average, mates = relax_symmetry(measured, average, halves, "C2")
    found = find_conformations(relaxed, halves, 2, n_starts=1)
    return {
        "held": torch.tensor(len(measured.data)),
        "average": average,
        "mates": mates,
        "labels": torch.from_numpy(found.labels),
        "coordinates": torch.from_numpy(found.coordinates),
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The states of one process."""
    folder = tmp_path_factory.mktemp("states")
    config = SimulationConfig(n_per_map=N, snr=0.5, box_size=BOX, spacing_angstrom=SPACING)
    write_simulation({"clamp": phantom("clamp")}, config, folder / "sim", with_poses=True)
    star, made = folder / "sim/particles.star", RunFolder(folder / "one")
    made.path.mkdir()
    particles = read_particles(star)
    request = TrainRequest(star=star, out=made.path, tilt_range=(-60.0, 60.0))
    save_config(made, describe_run(request, particles, preset_config("default", BOX)))
    made.particles.write_bytes(star.read_bytes())
    make_clusters(made, particles.names, [0] * N)
    average_run(made)
    shutil.copytree(made.path, folder / "two")
    find_states(made, 1, 2, n_starts=1)
    return made


@pytest.fixture(scope="module")
def two(one: RunFolder) -> tuple[RunFolder, str]:
    """The states of two processes, and what they printed."""
    both = RunFolder(one.path.with_name("two"))
    return both, run_together(one.path.with_name("together.py"), TOGETHER, both.path)


def coordinates_of(run: RunFolder) -> np.ndarray:
    return np.loadtxt(run.states / "class001/coordinates.csv", delimiter=",", skiprows=1, usecols=range(1, 13))


def test_two_processes_find_the_states_and_coordinates_of_one(one: RunFolder, two: tuple[RunFolder, str]) -> None:
    alone, together = coordinates_of(one), coordinates_of(two[0])
    np.testing.assert_array_equal(together[:, 0], alone[:, 0])
    np.testing.assert_allclose(together, alone, atol=OF_A_NUMBER)
    said = [read_summary(run.states / "class001", StatesSummary, "cryodc states").verdict for run in (one, two[0])]
    assert said[0] == said[1]


def test_two_processes_make_the_maps_of_one_and_leave_one_folder(one: RunFolder, two: tuple[RunFolder, str]) -> None:
    files = [sorted(path.relative_to(run.path) for path in run.path.rglob("*")) for run in (one, two[0])]
    assert files[0] == files[1]
    assert two[1].count("Next:") == 1
    for path in one.states.rglob("*.mrc"):
        first, second = (read_volume(run.path / path.relative_to(one.path)).voxels for run in (one, two[0]))
        assert np.linalg.norm(second - first) <= OF_THE_MAP * np.linalg.norm(first), path.name


def test_each_process_keeps_its_part_and_all_find_the_mates_of_one(two: tuple[RunFolder, str]) -> None:
    folder = two[0].path.parent
    alone, *ranks = find_relaxed(folder), *(torch.load(folder / f"rank{rank}.pt") for rank in (0, 1))
    assert [int(rank["held"]) for rank in ranks] == [11, 12]
    assert bool((alone["mates"] - torch.eye(3)).any())
    for rank in ranks:
        assert torch.equal(rank["labels"], alone["labels"])
        assert torch.equal(rank["mates"], alone["mates"])
        torch.testing.assert_close(rank["coordinates"], alone["coordinates"], atol=OF_A_NUMBER, rtol=0)
        assert float((rank["average"] - alone["average"]).norm()) <= OF_THE_MAP * float(alone["average"].norm())
