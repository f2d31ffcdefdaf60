"""What a run has, what is stale, who writes into it, and what comes next."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryodc_cli.look.status import status

from cryodc.averaging import AverageRequest, average_run
from cryodc.clustering import cluster_run
from cryodc.export import export_run, map_back
from cryodc.generate import GenerateRequest, generate_run
from cryodc.report import write_report
from cryodc.runs import RunFolder, load_codes, load_config, run_status, save_codes, writing
from cryodc.training import EncodeRequest, encode_new


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
    write_report(run)
    assert states_of(run)["report"] == "done"
    assert run_status(run).next is None
    # The time of a file says nothing: a run is copied, and unpacked.
    os.utime(run.report, (0, 0))
    os.utime(run.codes, (2e9, 2e9))
    assert states_of(run)["report"] == "done"
    # Other averages of the same classes are other averages.
    average_run(run, AverageRequest(seed=3))
    assert states_of(run)["report"] == "stale"


def test_what_was_given_to_others_is_stale_where_it_is_of_earlier_results(run: RunFolder) -> None:
    """Folders in the run and beside it say which averages, codes and classes they are of."""
    star = run.path / "sim.star"
    star.write_text((run.particles).read_text())
    images = load_config(run)["image_folders"][-1]
    export_run(run, run.path.parent / "for relion", ["relion"])
    export_run(run, run.path / "exported", ["warp"])
    map_back(run, run.path.parent / "mapped", size_xyz=(40, 40, 40))
    encode_new(EncodeRequest(star, run.path.parent / "more", run, data_dir=Path(images)))
    generate_run(run, GenerateRequest(n_columns=2, n_steps=3, n_axes=1, n_particles=2, device="cpu"))
    told = json.loads((run.path.parent / "for relion/summary.json").read_text())
    assert (told["verb"], told["run"], told["settings"]["programs"]) == ("export", str(run.path.resolve()), ["relion"])
    given = {"for relion", "exported", "mapped", "more"}

    def found() -> dict[str, str]:
        steps = [step for step in run_status(run).steps if step.verb in ("export", "map-back", "encode")]
        return {step.told.partition(":")[0]: step.state for step in steps}

    assert found() == dict.fromkeys(given, "done")
    assert states_of(run)["generate"] == "done"
    average_run(run, AverageRequest(seed=3))
    assert found() == {**dict.fromkeys(given, "stale"), "more": "done"}
    # What comes next is of the run itself.
    assert run_status(run).next == f"cryodc report {run.path}"
    cluster_run(run, 3)
    assert found() == dict.fromkeys(given, "stale")
    assert states_of(run)["generate"] == "stale"


def test_a_folder_of_another_run_or_of_nothing_known_is_no_step(run: RunFolder) -> None:
    for name, text in {"a": "{", "b": "[1]", "c": '{"run": "/elsewhere", "verb": "export", "made_of": "x"}'}.items():
        (run.path.parent / name).mkdir()
        (run.path.parent / name / "summary.json").write_text(text)
    assert set(states_of(run)) == {"train", "cluster", "average", "report"}


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
