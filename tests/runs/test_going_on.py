"""What takes long goes on where it was stopped, to the last bit of the result; another request begins anew."""

import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryodc.averaging import AverageRequest, average_run
from cryodc.errors import InputError
from cryodc.io import new_folder, replace_folder, stopped_folders, write_array
from cryodc.picks import ExtractRequest, extract, extract_subtomograms
from cryodc.runs import RunFolder, identity_of_data, load_run_particles, run_status, writing
from cryodc.states import find_states
from cryodc.unfinished import DoneSteps
from tests.kills import Killed, at_every_operation, content, hidden, killed_at

SORTING = AverageRequest(ignore_poses=True, n_starts=1, n_rounds=3, junk=False)
ALIGNING = AverageRequest(ignore_poses=True, classify=False, n_starts=1, seed=3)


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    """The small run, whose files may be changed."""
    return RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))


def kill_at(run: RunFolder, request: AverageRequest, text: str) -> list[str]:
    """Let an average die as soon as it says something; what it had said."""
    told: list[str] = []

    def tell(said: str) -> None:
        told.append(said)
        if text in said:
            raise Killed(said)

    with pytest.raises(Killed):
        average_run(run, request, tell)
    return told


def test_sorting_goes_on_after_the_last_round_to_the_same_files(run: RunFolder) -> None:
    with at_every_operation(run.path, lambda: None) as operations:
        average_run(run, SORTING)
    whole, told, rng = content(run.averages), [], random.Random(18)
    shutil.rmtree(run.averages)
    # Killed while a round is written, and again as it goes on.
    rounds = [k for k, operation in enumerate(operations, 1) if "rounds" in operation]
    for k in (rng.choice(rounds), rng.randrange(20, 60)):
        with killed_at(run.path, k):
            average_run(run, SORTING)
        assert not run.averages.exists()
    average_run(run, SORTING, told.append)
    assert content(run.averages) == whole
    assert hidden(run.path) == []
    assert any(said.endswith("done before") for said in told)
    assert not any(said.startswith("classification: reference of cluster 1") for said in told)


def test_a_class_that_is_done_is_not_aligned_again_and_another_goes_on_after_its_last_round(run: RunFolder) -> None:
    average_run(run, ALIGNING)
    whole = content(run.averages)
    shutil.rmtree(run.averages)
    first = kill_at(run, ALIGNING, "class 2 of 2")
    assert any(said.startswith("class 1 of 2") for said in first)
    second = kill_at(run, ALIGNING, "round 2: halves")
    assert not any(said.startswith("class 1 of 2") for said in second)
    assert "class001: done before" in second
    last: list[str] = []
    average_run(run, ALIGNING, last.append)
    assert "going on after round 1" in last
    assert content(run.averages) == whole
    assert hidden(run.path) == []


def test_another_request_begins_anew_and_nothing_is_mixed(run: RunFolder) -> None:
    other = replace(ALIGNING, seed=4)
    average_run(run, other)
    whole, told = content(run.averages), []
    kill_at(run, ALIGNING, "class 2 of 2")
    average_run(run, other, told.append)
    assert not any("before" in said or "going on" in said for said in told)
    assert content(run.averages) == whole
    assert hidden(run.path) == []


def test_a_run_that_was_moved_is_the_same_and_one_of_other_voxels_is_another(run: RunFolder, tmp_path: Path) -> None:
    particles = load_run_particles(run)
    moved = RunFolder(Path(shutil.copytree(run.path, tmp_path / "moved")))
    assert identity_of_data(moved, particles) == identity_of_data(run, particles)
    index = moved.pack / "index.json"
    index.write_text(index.read_text().replace("crc32", "crc32 of others"))
    assert identity_of_data(moved, particles) != identity_of_data(run, particles)


def test_status_says_what_was_stopped_and_what_to_type(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/cryodc", "average", str(run.path), "--ignore-poses"])
    kill_at(run, ALIGNING, "class 2 of 2")
    average = next(step for step in run_status(run).steps if step.verb == "average")
    assert (average.state, average.told) == ("begun", "stopped")
    assert run_status(run).next == f"cryodc average {run.path} --ignore-poses"
    with writing(run, "average"):
        average = next(step for step in run_status(run).steps if step.verb == "average")
        assert average.state == "running"
        assert run_status(run).next is None


def test_status_names_the_class_whose_states_were_stopped(run: RunFolder) -> None:
    average_run(run)
    with at_every_operation(run.path, lambda: None) as operations:
        find_states(run, 1, 1, n_starts=1)
    shutil.rmtree(run.states)
    with killed_at(run.path, len(operations) // 2):
        find_states(run, 1, 1, n_starts=1)
    told = [(step.state, step.told) for step in run_status(run).steps if step.verb == "states"]
    assert told == [("begun", "class001: stopped")]
    # It was not typed as `cryodc`: the class is all that is known.
    assert run_status(run).next == f"cryodc states {run.path} --class 1"
    # Of other averages nobody can go on with them.
    average_run(run, replace(ALIGNING, ignore_poses=False, seed=5))
    assert hidden(run.path) == []
    assert [step for step in run_status(run).steps if step.verb == "states"] == []


def test_a_command_that_is_stopped_says_how_to_go_on_and_does(run: RunFolder) -> None:
    words = ["average", str(run.path), "--ignore-poses", "--no-classify", "--starts", "1"]
    command = [sys.executable, "-c", "from cryodc_cli.main import main; main()", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "round 2" in line:
                process.send_signal(signal.SIGTERM)
                break
        said = process.stderr.read()
    assert process.returncode == 143
    assert f"Stopped. To go on: cryodc {' '.join(words)}\n" in said
    assert len(stopped_folders(run.averages)) == 1
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on after" in again.stderr
    assert hidden(run.path) == []


def test_boxes_that_were_cut_are_not_cut_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.random.default_rng(0).standard_normal((24, 40, 40)).astype(np.float32)
    write_array(tmp_path / "TS_1.mrc", voxels, 10.0)
    (tmp_path / "picks.csv").write_text("x,y,z\n10,10,12\n20,25,11\n28,14,12\n1,1,1\n")
    request = ExtractRequest([tmp_path / "TS_1.mrc"], tmp_path / "picks.csv", tmp_path / "whole", 8)
    extract_subtomograms(request)
    cut, cut_box = [], extract.cut_box

    def count(*given: object) -> object:
        cut.append(given)
        return cut_box(*given)  # type: ignore[arg-type]

    def kill(n_done: int, _: int) -> None:
        if n_done == 2:
            raise Killed

    monkeypatch.setattr(extract, "cut_box", count)
    request = replace(request, out=tmp_path / "out")
    with pytest.raises(Killed):
        extract_subtomograms(request, kill)
    assert not request.out.exists()
    found = extract_subtomograms(request)
    # Two, and then the third and the one beyond the edge.
    assert len(cut) == 4
    assert (found.n_extracted["TS_1"], len(found.dropped)) == (3, 1)
    assert content(request.out) == content(tmp_path / "whole")
    assert hidden(tmp_path) == []
    shutil.rmtree(request.out)
    with pytest.raises(Killed):
        extract_subtomograms(request, kill)
    # Another box size is another folder, whose boxes are all cut.
    cut.clear()
    extract_subtomograms(replace(request, box_size=10))
    assert len(cut) == 4
    assert hidden(tmp_path) == []


def test_of_two_processes_that_make_the_same_folder_the_second_is_refused(tmp_path: Path) -> None:
    with (
        new_folder(tmp_path / "out", "key") as building,
        pytest.raises(InputError, match="another process is making"),
        new_folder(tmp_path / "out", "key"),
    ):
        pass
    assert building.name == ".out.begun.key"
    assert hidden(tmp_path) == []


def test_a_folder_that_was_killed_as_two_changed_places_is_not_gone_on_with(tmp_path: Path) -> None:
    """What lies under the hidden name then is the old result, of which nothing belongs to the new one."""
    begun = tmp_path / ".averages.begun.key"
    begun.mkdir()
    (begun / "class007.mrc").write_text("old")
    with replace_folder(tmp_path / "averages", "key") as folder:
        DoneSteps.within(folder, None)
        (folder / "class001.mrc").write_text("new")
    assert content(tmp_path) == {"averages/class001.mrc": b"new"}
    assert hidden(tmp_path) == []


def test_a_state_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    done = DoneSteps(tmp_path)
    assert done.once("step", lambda _: {"value": 1}) == {"value": 1}
    assert done.once("step", lambda _: {"value": 2}) == {"value": 1}
    (tmp_path / "step.pt").write_bytes(b"half of a sta")
    assert done.once("step", lambda _: {"value": 3}) == {"value": 3}
