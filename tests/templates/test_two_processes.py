"""Two processes that share the particles learn the templates of one, and give the particles the codes of one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryodc.io import read_volume
from cryodc.particles import read_particles
from cryodc.runs import RunFolder, load_codes, load_run_dataset
from cryodc.simulation import SimulationConfig, demo_phantoms, write_simulation
from cryodc.templates.match import particle_spectra
from cryodc.templates.shapes import particle_moments
from cryodc.training import TrainRequest, train_run
from tests.templates.small import CPU, make_small
from tests.together import run_together

OF_A_CODE, OF_THE_MAP = {"template_content": 1e-3, "template_pose": 1e-2}, 1e-3
"""How far codes and templates of two processes may be from those of one.

Content codes are in units of the spread within a protein; entries of rotations are multiplied by the root of 3.
"""

TOGETHER = """
import sys
from pathlib import Path
import torch
from cryodc.device import join_team, sharing
from tests.templates.test_two_processes import learn, moments_of

with join_team(torch.device("cpu")) as team:
    run = learn(Path(sys.argv[1]), "two")
    with sharing(team):
        torch.save(moments_of(run), run.path.with_name(f"rank{team.rank}.pt"))
"""


def learn(folder: Path, name: str) -> RunFolder:
    """A run with templates and no network."""
    overrides = {
        "optimisation": {"epochs": 0},
        "templates": {"n_templates": 2, "particles_per_template": 20, "n_axes": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        star = folder / "sim/particles.star"
        return train_run(TrainRequest(star, folder / name, tilt_range=(-60.0, 60.0), overrides=overrides))[0]


def moments_of(run: RunFolder) -> torch.Tensor:
    dataset = load_run_dataset(run, read_particles(run.particles, run.path.with_name("sim")))
    return torch.from_numpy(particle_moments(dataset, particle_spectra(dataset, CPU)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    """Learned by one process and by two."""
    folder, phantoms = tmp_path_factory.mktemp("templates"), demo_phantoms()
    config = SimulationConfig(n_per_map=24, box_size=16, spacing_angstrom=20.0, snr=0.5, max_shift_voxels=0.5, seed=1)
    write_simulation({name: phantoms[name] for name in ("wheel", "barrel")}, config, folder / "sim")
    run_together(folder / "together.py", TOGETHER, folder)
    return learn(folder, "one"), RunFolder(folder / "two")


def test_two_processes_give_the_codes_of_one(runs: tuple[RunFolder, RunFolder]) -> None:
    alone, together = (load_codes(run) for run in runs)
    assert together.names == alone.names
    for name, tolerance in OF_A_CODE.items():
        first, second = getattr(alone, name), getattr(together, name)
        np.testing.assert_allclose(second, first, atol=tolerance, rtol=0, err_msg=name)


def test_two_processes_learn_the_templates_of_one_and_leave_one_folder(runs: tuple[RunFolder, RunFolder]) -> None:
    files = [sorted(path.relative_to(run.path) for path in run.path.rglob("*")) for run in runs]
    assert files[0] == files[1]
    maps = sorted(path.name for path in runs[0].templates.glob("template*.mrc"))
    assert maps == ["template001.mrc", "template002.mrc"]
    for name in maps:
        first, second = (read_volume(run.templates / name).voxels for run in runs)
        assert np.linalg.norm(second - first) <= OF_THE_MAP * np.linalg.norm(first), name


def test_every_process_knows_the_moments_of_all_particles(runs: tuple[RunFolder, RunFolder]) -> None:
    for rank in (0, 1):
        found = torch.load(runs[0].path.with_name(f"rank{rank}.pt"))
        torch.testing.assert_close(found, moments_of(runs[0]), atol=1e-5, rtol=0)
