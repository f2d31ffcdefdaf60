"""A disk that fills while a verb writes: one error, what was there before is unchanged, and the verb runs afterwards.

A limit on the length of files stands for the disk: the first file that is longer cannot be written.
"""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cryodc.averaging import AverageRequest, average_run
from cryodc.clustering import cluster_run
from cryodc.errors import InputError
from cryodc.evaluation import run_leakage
from cryodc.export import export_run, map_back, select_run
from cryodc.generate import GenerateRequest, generate_run
from cryodc.report import write_report
from cryodc.runs import RunFolder, load_codes
from cryodc.states import find_states
from cryodc.training import TrainRequest, train_run
from tests.kills import content, hidden


@contextmanager
def no_file_above(n_bytes: int) -> Iterator[None]:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    """The small run, whose files may be changed."""
    return RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))


_DECODED = GenerateRequest(n_columns=2, n_steps=3, n_axes=1, n_particles=2, device="cpu", n_rows=2)
# Each verb with lengths of which some of its files have more: from the first byte to the last file.
VERBS: dict[str, tuple[Callable[[RunFolder], object], tuple[int, ...]]] = {
    "cluster": (lambda run: cluster_run(run, 3), (0, 1500, 4000)),
    "average": (lambda run: average_run(run, AverageRequest(seed=3)), (5000, 50_000)),
    "states": (lambda run: find_states(run, 1, 1, n_starts=1), (2000,)),
    "generate": (lambda run: generate_run(run, _DECODED), (2000,)),
    "report": (write_report, (100_000,)),
    "export": (lambda run: export_run(run, run.path / "out", ["relion", "warp"]), (0, 3000, 50_000)),
    "map-back": (lambda run: map_back(run, run.path / "out", size_xyz=(40, 40, 40)), (0, 100, 60_000)),
    "select": (lambda run: select_run(run, run.path / "kept.star"), (0, 100)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_fills_leaves_what_was_there(verb: str, run: RunFolder) -> None:
    do, lengths = VERBS[verb]
    if verb == "report":
        # So that the leakage is there already, which the page needs.
        run_leakage(run)
    before = content(run.path)
    for length in lengths:
        with no_file_above(length), pytest.raises(InputError, match="cannot write") as caught:
            do(run)
        assert "what was there before is unchanged" in str(caught.value.remedy), length
        assert content(run.path) == before, length
        assert hidden(run.path) == [], length
    do(run)
    assert content(run.path) != before


def test_training_that_a_full_disk_stops_is_begun_again(small_run: Path, tmp_path: Path) -> None:
    overrides = {"model": {"width": 8, "max_channels": 16}, "optimisation": {"epochs": 1, "batch_size": 8}}
    request = TrainRequest(small_run.parent / "sim/particles.star", tmp_path / "run", overrides=overrides, packed=False)
    # config.yaml; the copy of the STAR; the first checkpoint.
    for length in (0, 1000, 5000):
        with no_file_above(length), pytest.raises(InputError, match="cannot write") as caught:
            train_run(request)
        assert "free space" in str(caught.value.remedy)
    run, _ = train_run(request)
    assert len(load_codes(run).names) == 24
    assert hidden(run.path) == []
