"""Two processes that share the particles learn the templates of one, and give the particles the codes of one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryodc.fourier import score_poses
from cryodc.io import read_volume
from cryodc.particles import read_particles
from cryodc.runs import RunFolder, load_codes, load_run_dataset
from cryodc.simulation import SimulationConfig, demo_phantoms, write_simulation
from cryodc.templates import match
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
    run, n_matched = learn(Path(sys.argv[1]), "two")
    with sharing(team):
        found = {"moments": moments_of(run), "matched": n_matched}
    torch.save(found, run.path.with_name(f"rank{team.rank}.pt"))
"""


def learn(folder: Path, name: str) -> tuple[RunFolder, int]:
    """A run with templates and no network, and how often this process compared a particle with a map."""
    matched: list[int] = []

    def count(spectra: torch.Tensor, *arguments: Any) -> torch.Tensor:
        matched.append(len(spectra))
        return score_poses(spectra, *arguments)

    overrides = {
        "optimisation": {"epochs": 0},
        "templates": {"n_templates": 2, "particles_per_template": 20, "n_axes": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setattr(match, "score_poses", count)
        star = folder / "sim/particles.star"
        run = train_run(TrainRequest(star, folder / name, tilt_range=(-60.0, 60.0), overrides=overrides))[0]
    return run, sum(matched)


def moments_of(run: RunFolder) -> torch.Tensor:
    dataset = load_run_dataset(run, read_particles(run.particles, run.path.with_name("sim")))
    return torch.from_numpy(particle_moments(dataset, particle_spectra(dataset, CPU)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder, int]:
    """Learned by one process and by two, and how often one compared a particle with a map."""
    folder, phantoms = tmp_path_factory.mktemp("templates"), demo_phantoms()
    config = SimulationConfig(n_per_map=24, box_size=16, spacing_angstrom=20.0, snr=0.5, max_shift_voxels=0.5, seed=1)
    write_simulation({name: phantoms[name] for name in ("wheel", "barrel")}, config, folder / "sim")
    run_together(folder / "together.py", TOGETHER, folder)
    alone, n_matched = learn(folder, "one")
    return alone, RunFolder(folder / "two"), n_matched


def test_two_processes_give_the_codes_of_one(runs: tuple[RunFolder, RunFolder, int]) -> None:
    alone, together = (load_codes(run) for run in runs[:2])
    assert together.names == alone.names
    for name, tolerance in OF_A_CODE.items():
        first, second = getattr(alone, name), getattr(together, name)
        np.testing.assert_allclose(second, first, atol=tolerance, rtol=0, err_msg=name)


def test_two_processes_learn_the_templates_of_one_and_leave_one_folder(runs: tuple[RunFolder, RunFolder, int]) -> None:
    files = [sorted(path.relative_to(run.path) for path in run.path.rglob("*")) for run in runs[:2]]
    assert files[0] == files[1]
    maps = sorted(path.name for path in runs[0].templates.glob("template*.mrc"))
    assert maps == ["template001.mrc", "template002.mrc"]
    for name in maps:
        first, second = (read_volume(run.templates / name).voxels for run in runs[:2])
        assert np.linalg.norm(second - first) <= OF_THE_MAP * np.linalg.norm(first), name


def test_each_process_matches_its_share_and_knows_the_moments_of_all(runs: tuple[RunFolder, RunFolder, int]) -> None:
    alone, _, n_matched = runs
    ranks = [torch.load(alone.path.with_name(f"rank{rank}.pt")) for rank in (0, 1)]
    assert sum(rank["matched"] for rank in ranks) == n_matched
    for rank in ranks:
        assert rank["matched"] == pytest.approx(n_matched / 2, rel=0.1)
        torch.testing.assert_close(rank["moments"], moments_of(alone), atol=1e-5, rtol=0)
