"""Two processes that prepare one run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryodc.dataset import load_dataset
from cryodc.particles import ParticleSet
from tests.dataset.packs import everything

TWO_PROCESSES = """
import json
import sys
import time
from pathlib import Path
import torch
from cryodc.device import join_team
from cryodc.errors import InputError
from cryodc.training import TrainRequest, prepare_run
from cryodc.training import Listener
star, out = map(Path, sys.argv[1:])
packed = []
with join_team(torch.device("cpu")) as team:
    time.sleep(3 * team.rank)
    prepare_run(TrainRequest(star, out / "late", packed=False), team)
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


@pytest.fixture(scope="module")
def prepared(star: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: of a run that the second came to late, and of one with a pack."""
    out = tmp_path_factory.mktemp("both")
    script = out / "both.py"
    script.write_text(TWO_PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    finished = subprocess.run(
        [*torchrun, str(star), str(out)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return out


def test_of_two_processes_one_packs_and_both_hear_of_an_error(particles: ParticleSet, prepared: Path) -> None:
    ranks = [json.loads((prepared / f"rank{rank}").read_text()) for rank in (0, 1)]
    expected = float(everything(load_dataset(particles))[0].abs().sum())
    assert [total for total, _, _ in ranks] == [pytest.approx(expected)] * 2
    assert [n_packed for _, n_packed, _ in ranks] == [len(particles), 0]
    assert all("another invert" in refused for _, _, refused in ranks)


def test_a_process_that_comes_late_does_not_take_its_own_run_for_another(prepared: Path) -> None:
    assert (prepared / "late" / "config.yaml").exists()
