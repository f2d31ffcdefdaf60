"""A result is there whole or not at all, whenever a verb is killed; and one process writes into a run at a time."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cryodc.averaging import AverageRequest, average_run
from cryodc.clustering import cluster_run
from cryodc.errors import InputError
from cryodc.export import export_run
from cryodc.generate import GenerateRequest, compare_runs, generate_run
from cryodc.io import atomic_path, write_text
from cryodc.io.folders import new_folder, replace_folder
from cryodc.runs import RunFolder, current_classes, require_averages, writing
from cryodc.star import particle_block, read_star
from cryodc.states import find_states
from cryodc.training import TrainRequest, train_run
from tests.kills import Killed, at_every_operation, content, hidden, killed_at


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    """The small run, whose files may be changed."""
    return RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))


def average_again(run: RunFolder) -> None:
    """Maps of other half sets."""
    average_run(run, AverageRequest(seed=3))


def states(n_states: int) -> Callable[[RunFolder], None]:
    def find(run: RunFolder) -> None:
        find_states(run, 1, n_states, n_starts=1)

    return find


def decode(*classes: int, seed: int) -> Callable[[RunFolder], None]:
    def generate(run: RunFolder) -> None:
        request = GenerateRequest(n_columns=2, n_steps=3, n_axes=1, n_particles=2, device="cpu", n_rows=2)
        generate_run(run, replace(request, classes=classes, n_steps=3 + 2 * seed, seed=seed))

    return generate


VERBS = {
    "average": (None, average_again, "averages"),
    "cluster": (None, lambda run: cluster_run(run, 3), "clusters"),
    "states": (states(2), states(1), "states/class001"),
    "generate": (decode(seed=0), decode(seed=1), "generated"),
    "generate one class": (decode(1, seed=0), decode(1, seed=1), "generated/class001"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_at_every_file_operation_of_a_second_result_the_first_or_the_second_is_there_whole(
    verb: str, run: RunFolder
) -> None:
    before, again, name = VERBS[verb]
    if before is not None:
        before(run)
    folder, seen = run.path / name, []
    old = content(folder)
    with at_every_operation(run.path, lambda: seen.append(content(folder))) as operations:
        again(run)
    new = content(folder)
    assert new.keys()
    assert new != old
    assert len(operations) > 20
    assert [state for state in seen if state not in (old, new)] == []
    assert old in seen
    assert new in seen
    assert hidden(run.path) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_killed_verb_is_run_again_and_nothing_of_it_is_left(verb: str, run: RunFolder) -> None:
    before, again, name = VERBS[verb]
    if before is not None:
        before(run)
    old = content(run.path / name)
    with at_every_operation(run.path, lambda: None) as operations:
        again(run)
    new, n_operations = content(run.path / name), len(operations)
    for k in (n_operations // 2, n_operations - 2):
        with killed_at(run.path, k):
            again(run)
        assert content(run.path / name) in (old, new)
    again(run)
    assert content(run.path / name) == new
    assert hidden(run.path) == []


def test_an_export_is_there_whole_or_not_at_all_and_a_killed_one_is_begun_again(
    small_run: Path, tmp_path: Path
) -> None:
    run, out = RunFolder(small_run), tmp_path / "out"
    seen: list[dict[str, bytes]] = []
    with at_every_operation(tmp_path, lambda: seen.append(content(out))) as operations:
        export_run(run, out, ["relion"])
    whole, n_operations = content(out), len(operations)
    assert {"particles.star", "class001.mrc", "class002_half2.mrc"} <= whole.keys()
    assert n_operations > 20
    assert [state for state in seen if state not in ({}, whole)] == []
    for k in range(1, n_operations + 1, 7):
        shutil.rmtree(out, ignore_errors=True)
        with killed_at(tmp_path, k):
            export_run(run, out, ["relion"])
        assert content(out) in ({}, whole)
        if not out.exists():
            export_run(run, out, ["relion"])
        assert content(out) == whole
        assert hidden(tmp_path) == []


def test_a_folder_with_files_of_others_stays_refused(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="refusing to overwrite"):
        export_run(RunFolder(small_run), tmp_path, ["relion"])
    assert content(tmp_path) == {"mine.txt": b"mine"}


def test_a_second_writer_is_refused_and_changes_nothing(run: RunFolder) -> None:
    before = content(run.path)
    decoders = (lambda: generate_run(run), lambda: compare_runs([run, run]))
    # A lock of another open file, as another process has it.
    with (run.path / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for verb in (lambda: cluster_run(run, 2), lambda: average_run(run), lambda: find_states(run, 1), *decoders):
            with pytest.raises(InputError, match="another process is writing"):
                verb()
    assert content(run.path) == before
    cluster_run(run, 2)


def test_a_writer_that_failed_holds_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(Killed), writing(run, "train"):
        raise Killed
    with writing(run, "cluster"), pytest.raises(InputError, match="cryodc cluster, process"), writing(run, "average"):
        pass


def test_a_lock_that_its_holder_removed_while_it_was_opened_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fails leaves nothing: the next one must not hold a file that nobody else can see."""
    run, flock, n_calls = RunFolder(tmp_path / "run"), fcntl.flock, 0

    def remove_first(handle: int, how: int) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:
            shutil.rmtree(run.path)
        flock(handle, how)

    monkeypatch.setattr("cryodc.runs.lock.fcntl.flock", remove_first)
    with writing(run, "train"), pytest.raises(InputError, match="another process"), writing(run, "cluster"):
        pass


def test_an_empty_folder_that_was_there_stays(tmp_path: Path) -> None:
    for was_there in (True, False):
        run = RunFolder(tmp_path / f"run{was_there}")
        if was_there:
            run.path.mkdir()
        with pytest.raises(Killed), writing(run, "train"):
            raise Killed
        assert run.path.exists() == was_there
        assert not was_there or list(run.path.iterdir()) == []


def test_a_second_training_into_one_folder_is_refused(tmp_path: Path, small_run: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with (out / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing"):
            train_run(TrainRequest(small_run.parent / "sim/particles.star", out))
    assert content(out) == {}


def test_a_refused_training_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        train_run(TrainRequest(tmp_path / "nothere.star", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_temporaries_of_killed_processes_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for _ in range(3):
        # Renaming is the operation after making and filling the temporary.
        with killed_at(tmp_path, 4), atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
    assert len(hidden(tmp_path)) <= 1
    write_text(path, "whole")
    assert path.read_text() == "whole"
    assert hidden(tmp_path) == []


def test_where_two_folders_cannot_change_places_the_old_one_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryodc.io.folders._exchange", lambda first, second: False)
    folder = tmp_path / "averages"
    for k in range(1, 15):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "a").write_text("old")
        with killed_at(tmp_path, k), replace_folder(folder) as building:
            (building / "a").write_text("new")
        with replace_folder(folder):
            found = content(folder)
        assert found in ({"a": b"old"}, {"a": b"new"})
        assert hidden(tmp_path) == []


def test_what_another_process_is_building_is_left_alone(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "out") as first, replace_folder(tmp_path / "out") as second:
        assert first.exists()
        assert second.exists()
        (second / "a").write_text("whole")
        (first / "a").write_text("whole")
    with pytest.raises(InputError, match="refusing"), new_folder(tmp_path / "out"):
        pass


def test_half_sets_that_leave_one_half_empty_are_split_anew_and_the_summary_says_so(run: RunFolder) -> None:
    assert "rlnRandomSubset" not in require_averages(run).half_sets
    lines = run.particles.read_text().splitlines()
    labels = [i for i, line in enumerate(lines) if line.startswith("_rln")]
    block = [i for i in labels if labels[-1] - i < 40]
    n_labels = int(lines[block[-1]].split("#")[1])
    lines.insert(block[-1] + 1, f"_rlnRandomSubset #{n_labels + 1}")
    rows = [line + "\t1" if "subtomograms/" in line else line for line in lines]
    run.particles.write_text("\n".join(rows) + "\n")
    average_run(run)
    told = require_averages(run).half_sets
    assert "not gold standard" in told
    assert "leaves one half empty" in told
    assert "2" in particle_block(read_star(run.averages / "particles.star")).column("rlnRandomSubset")
    assert current_classes(run).n_clusters == 2


def killed(run: RunFolder, *which: str) -> dict[str, dict[str, int]]:
    """What :mod:`tests.sigkill` found of the verbs that it killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sigkill", str(run.path), *which],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def test_what_the_system_kills_leaves_the_old_result_or_the_new_one(run: RunFolder) -> None:
    found = killed(run)
    assert list(found) == ["cluster", "average", "states", "export"]
    for name, counts in found.items():
        assert counts["differ"], name
        assert counts["killed"] == 10, (name, counts)
        assert counts["mixed"] == 0, (name, counts)
        assert counts["old"] >= 1, (name, counts)
        assert counts["same"] == counts["ended"] >= 1, (name, counts)
        # What takes long is not done again.
        assert counts["went_on"] == (name in ("average", "states")), (name, counts)


def test_a_new_folder_that_the_system_kills_is_there_whole_or_not_at_all_and_is_begun_again(small_run: Path) -> None:
    found = killed(RunFolder(small_run), "new")
    assert found.pop("templates") == {"killed": 10, "same": 1, "went_on": 1}
    assert set(found) == {"export", "extract", "import", "generate", "map-back", "encode", "simulate"}
    for name, counts in found.items():
        assert counts["files"] >= 3, (name, counts)
        assert counts["killed"] == (10 if name in ("extract", "import") else counts["tried"]), (name, counts)
        assert counts["part"] == 0, (name, counts)
        assert counts["none"] >= 3, (name, counts)
        assert counts["same"] == counts.get("tried", 1), (name, counts)
