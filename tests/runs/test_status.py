"""What a run has, what is stale, who writes into it, and what comes next."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryodc_cli.look.status import status

from cryodc.clustering import cluster_run
from cryodc.runs import RunFolder, load_codes, run_status, save_codes, writing


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    """The small run, whose files may be changed."""
    return RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))


def states_of(run: RunFolder) -> dict[str, str]:
    return {step.verb: step.state for step in run_status(run).steps}


def test_a_run_without_a_report_asks_for_one(run: RunFolder) -> None:
    found = run_status(run)
    assert states_of(run) == {"train": "done", "cluster": "done", "average": "done", "report": "missing"}
    assert found.next == f"cryodc report {run.path}"
    assert found.running is None
    run.report.write_text("a page")
    assert run_status(run).next is None
    # A report older than what it shows is stale.
    os.utime(run.report, (0, 0))
    assert states_of(run)["report"] == "stale"


def test_other_clusters_make_averages_stale(run: RunFolder) -> None:
    cluster_run(run, 3)
    assert states_of(run) == {"train": "done", "cluster": "done", "average": "stale", "report": "missing"}
    assert run_status(run).next == f"cryodc average {run.path}"


def test_other_codes_make_clusters_and_all_after_them_stale(run: RunFolder) -> None:
    codes = load_codes(run)
    save_codes(run, replace(codes, content=-codes.content))
    assert states_of(run) == {"train": "done", "cluster": "stale", "average": "stale", "report": "missing"}
    assert run_status(run).next == f"cryodc cluster {run.path}"


def test_training_that_was_stopped_goes_on(run: RunFolder) -> None:
    lines = run.log.read_text().splitlines(keepends=True)
    run.log.write_text("".join(lines[:2]))
    run.codes.unlink()
    train = run_status(run).steps[0]
    assert (train.state, train.told) == ("begun", "1 of 2 epochs")
    following = run_status(run).next
    assert following is not None
    assert following.startswith("cryodc train ")
    assert following.endswith(f"--out {run.path} --resume")


def test_a_damaged_summary_is_said_and_not_raised(run: RunFolder) -> None:
    (run.averages / "summary.json").write_text("{")
    assert states_of(run)["average"] == "damaged"
    assert run_status(run).next == f"cryodc average {run.path}"


def test_the_process_that_writes_is_named_and_nothing_comes_next(run: RunFolder) -> None:
    before = sorted(run.path.rglob("*"))
    with writing(run, "cluster"):
        answer = CliRunner().invoke(status, [str(run.path), "--json"])
    assert answer.exit_code == 0
    told = json.loads(answer.output)
    assert told["running"] == f"cryodc cluster, process {os.getpid()}"
    assert told["next"] is None
    table = CliRunner().invoke(status, [str(run.path)]).output
    assert "Next: cryodc report" in table
    assert sorted(path for path in run.path.rglob("*") if path.name != ".lock") == [
        path for path in before if path.name != ".lock"
    ]
