"""--dry-run of every heavy verb: bad input is told, nothing is written, and the plan says what the verb would do."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from cryodc_cli.main import HEAVY, VERBS, load_verb

from cryodc.dry_run import Forecast, Planned, _seconds_of_transform, declare, planning
from cryodc.errors import InputError

Call = Callable[..., Result]


def call(verb: str, *words: object) -> Result:
    return CliRunner().invoke(load_verb(verb), [str(word) for word in words])


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder, hidden ones too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


@pytest.fixture
def work(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with particles, a run, and a tomogram with picks; the current folder."""
    shutil.copytree(small_run.parent / "sim", tmp_path / "sim")
    shutil.copytree(small_run, tmp_path / "run")
    with mrcfile.new(tmp_path / "TS_07.mrc") as tomogram:
        tomogram.set_data(np.zeros((40, 48, 56), np.float32))
        tomogram.voxel_size = 10.0
    (tmp_path / "picks.csv").write_text("tomogram,x,y,z\nTS_07,20,20,20\nTS_07,30.5,25,18\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = {
    "extract": "TS_07.mrc --picks picks.csv --box 16 --tilt-range -60 60 --out new/",
    "recentre": "sim/particles.star --out new/",
    "simulate": "--n 5 --out new/",
    "pack": "sim/particles.star --out new.pack/",
    "train": "sim/particles.star --out new/",
    "cluster": "run/",
    "average": "run/ --ignore-poses --classify",
    "states": "run/ --class 1 -n 2",
    "encode": "sim/particles.star --run run/ --out new/",
    "identify": "run/ --library sim/maps --decoys 5",
    "generate": "run/",
    "select": "run/ --keep 1 --out new.star",
    "export": "run/ --relion --out new/",
    "map-back": "run/ --out new/",
    "bench": "--box 32 --out new.json",
}


@pytest.mark.parametrize("verb", WORDS)
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(work: Path, verb: str) -> None:
    before = everything(work)
    result = call(verb, *WORDS[verb].split(), "--dry-run")
    assert result.exit_code == 0, result.output
    assert everything(work) == before
    text = result.output
    assert re.search(r"Would read \S+", text), text
    target = re.search(r"new\S*", WORDS[verb])
    assert f"Would write {'run/' if target is None else target.group().rstrip('/')}" in text
    assert re.search(r"Time on this machine: about (a second|\d+ (s|min|h|days))", text)
    assert re.search(r"Memory: about [\d.]+ (M|G)B", text)


def test_a_dry_run_of_stacks_writes_nothing(shared_data: Path, tmp_path: Path) -> None:
    stacks = shared_data / "real/ribosome70s/tilt_stacks"
    star = next(file for file in stacks.glob("*.star") if file.stem.endswith("angpix-12"))
    result = call("import", star, "--data-dir", stacks, "--hand", 1, "--out", tmp_path / "new", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "Would read 40 stacks" in result.output
    assert everything(tmp_path) == {}


def test_every_heavy_verb_is_tried() -> None:
    assert {*WORDS, "import"} == set(HEAVY)
    with_option = {verb for verb in VERBS if any("--dry-run" in option.opts for option in load_verb(verb).params)}
    assert with_option == set(HEAVY)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("train", "nothing.star --out new/"),
        ("train", "sim/particles.star --out run/"),
        ("average", "run/ --symmetry 7:C3"),
        ("states", "run/ --class 9"),
        ("select", "run/ --keep 9 --out new.star"),
        ("extract", "TS_07.mrc --picks picks.csv --box 17 --out new/"),
        ("encode", "sim/particles.star --run run/ --out sim/"),
        ("simulate", "--n 5 --out sim/"),
    ],
)
def test_a_dry_run_tells_bad_input_as_the_verb_itself_does(work: Path, verb: str, words: str) -> None:
    before = everything(work)
    dry = call(verb, *words.split(), "--dry-run")
    assert isinstance(dry.exception, InputError), dry.output
    assert everything(work) == before
    assert str(dry.exception) == str(call(verb, *words.split()).exception)


def test_more_particles_take_more_time_space_and_memory() -> None:
    small, large = (Forecast(Path("out"), "", 0, 4e6 * n, (16,) * 3, {"step": n}, n) for n in (1000, 10_000))
    assert large.seconds(lambda box: 1e-4) == pytest.approx(10 * small.seconds(lambda box: 1e-4))
    assert large.memory_bytes > small.memory_bytes
    # 1000 steps of so many transforms of 0.1 ms, and 4 GB to disk.
    assert small.seconds(lambda box: 0.0) == pytest.approx(20)


def test_of_a_training_what_takes_longest_is_in_the_plan(work: Path) -> None:
    from cryodc.training import TrainRequest, train_run

    plans = []
    for epochs in (10, 20):
        overrides = {"optimisation": {"epochs": epochs}}
        request = TrainRequest(work / "sim/particles.star", work / "new", overrides=overrides)
        with planning(), pytest.raises(Planned) as planned:
            train_run(request)
        plans.append(planned.value.plan)
    assert plans[0].box == (24, 24, 24)
    assert plans[1].work["step"] == 2 * plans[0].work["step"] == 2 * 24 * 10
    # 24 subtomograms with their weights.
    assert plans[0].bytes_read == 24 * 4 * (24**3 + 24 * 24 * 13)


def test_what_declares_no_plan_ends_where_it_would_write(tmp_path: Path) -> None:
    from cryodc.io import new_folder, write_text

    with planning(), pytest.raises(Planned) as planned:
        write_text(tmp_path / "a.txt", "text")
    assert planned.value.plan.writes == tmp_path / "a.txt"
    with planning(), pytest.raises(Planned), new_folder(tmp_path / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    declare(Forecast(tmp_path))
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").exists()


def test_the_time_of_a_transform_is_measured_on_one_core_whatever_else_runs() -> None:
    """16³ takes some ten microseconds; threads that wait for a busy core made it milliseconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        assert 1e-6 < _seconds_of_transform((16,) * 3) < 1e-3
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(threads)
