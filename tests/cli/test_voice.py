"""What programs read of the command line: JSON, nothing, or plain text in a pipe."""

import io
import json
import re
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryodc_cli.main import VERBS, load_verb
from cryodc_cli.options import resolve_run
from cryodc_cli.progress import lines
from rich.console import Console

from cryodc.dry_run import Forecast, declare
from cryodc.runs import RunFolder, load_clusters
from cryodc.star import particle_block, read_star

BOX_DRAWING = set("─│┃━┏┓┗┛┡┩┴┬├┤╭╮╰╯╇")


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))


def call(verb: str, *words: object) -> Result:
    """A verb that succeeds."""
    done = CliRunner().invoke(load_verb(verb), [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def test_every_verb_has_both() -> None:
    """One opens a window, and the other takes the options of RELION's jobs."""
    names = {verb: {word for option in load_verb(verb).params for word in option.opts} for verb in VERBS}
    assert [verb for verb in VERBS if "--quiet" not in names[verb]] == ["relion-job"]
    assert [verb for verb in VERBS if "--json" not in names[verb]] == ["view", "relion-job"]


@pytest.mark.parametrize("verb", ["cluster", "select", "export"])
def test_quiet_says_nothing_and_does_the_work(verb: str, run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words: dict[str, list[object]] = {
        "cluster": ["-k", 3],
        "select": ["--keep", 1, "--out", out],
        "export": ["--relion", "--out", out],
    }
    done = call(verb, run.path, *words[verb], "--quiet")
    assert done.output == ""
    if verb == "cluster":
        assert load_clusters(run).n_clusters == 3
    else:
        assert out.exists()


def test_quiet_does_not_hide_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(load_verb("report"), [str(tmp_path / "none"), "--quiet"])
    assert "not a run folder" in str(done.exception)


def test_what_was_made_is_told_as_json(run: RunFolder, tmp_path: Path) -> None:
    star = tmp_path / "sim" / "particles.star"
    sizes = ["--box", 16, "--spacing", 20, "--phantoms", "barrel,wheel"]
    told = json.loads(call("simulate", "--n", 4, *sizes, "--out", star.parent, "--json").stdout)
    assert told == {
        "star": str(star),
        "truth": str(star.parent / "truth.csv"),
        "n_particles": 8,
        "proteins": ["barrel", "wheel"],
    }
    pack = tmp_path / "a.pack"
    told = json.loads(call("pack", star, "--out", pack, "--json").stdout)
    assert (told["pack"], told["n_particles"], told["box_size"]) == (str(pack), 8, 16)
    out = tmp_path / "trained"
    told = json.loads(call("train", star, "--out", out, "--epochs", 1, "--json").stdout)
    assert (told["run"], told["n_particles"], told["codes_of"]) == (str(out), 8, "network")
    assert told["warnings"] == [(out / "templates" / "left_out.txt").read_text().strip()]
    kept = tmp_path / "kept.star"
    told = json.loads(call("select", run.path, "--keep", 1, "--out", kept, "--json").stdout)
    assert told["n_kept"]["1"] == particle_block(read_star(kept)).n_rows == load_clusters(run).sizes[0]
    told = json.loads(call("export", run.path, "--relion", "--out", tmp_path / "relion", "--json").stdout)
    assert told["n_particles"] == 24
    assert all(Path(file).exists() for file in told["files"])
    told = json.loads(call("convert", kept, tmp_path / "picks.csv", "--spacing", 15, "--json").stdout)
    assert told["n_picks"] == load_clusters(run).sizes[0]


@pytest.mark.parametrize("verb", ["cluster", "generate"])
def test_a_plan_is_told_as_json(verb: str, run: RunFolder) -> None:
    """Of a verb with a summary of its own, and of one without."""
    told = json.loads(call(verb, run.path, "--dry-run", "--json").stdout)
    assert told["seconds"] > 0
    assert told["memory_bytes"] > 0
    assert Path(told["writes"]).parent == run.path


@pytest.mark.parametrize("verb", ["status", "cluster", "evaluate"])
def test_a_table_in_a_pipe_is_plain_and_a_row_is_a_line(verb: str, run: RunFolder) -> None:
    said = call(verb, run.path, *(["-k", 2] if verb == "cluster" else [])).stdout
    assert not BOX_DRAWING & set(said)
    if verb == "status":
        rows = [line.split()[0] for line in said.splitlines() if line[:1].islower()]
        assert rows[:4] == ["step", "train", "cluster", "average"]
    if verb == "cluster":
        rows = [line.split() for line in said.splitlines()]
        assert [row[:2] for row in rows if row[:1] in (["1"], ["2"])] == [
            [str(number), str(size)] for number, size in enumerate(load_clusters(run).sizes, start=1)
        ]


def test_the_run_of_a_demo_is_found_from_the_clone(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_run, tmp_path / "demo" / "20260101-120000" / "run")
    monkeypatch.chdir(tmp_path)
    assert resolve_run(None).path == tmp_path / "demo" / "20260101-120000" / "run"
    monkeypatch.chdir(tmp_path / "demo")
    assert resolve_run(None).path == tmp_path / "demo" / "20260101-120000" / "run"


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_a_verb_whose_rounds_cannot_be_counted_says_how_long_the_rest_takes(
    on_a_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, and no longer than its forecast is worth something."""
    said = io.StringIO()
    console = Console(file=said, force_terminal=on_a_terminal, no_color=True, width=80)
    monkeypatch.setattr("cryodc_cli.progress.error_console", lambda: console)
    monkeypatch.setattr(Forecast, "seconds", lambda plan: 1200.0)
    now = 50.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with lines() as tell:
        declare(Forecast(Path("averages"), work={"average": 100}))
        now = 650.0
        tell("round 1: 3 classes")
        # A step of the verb has a plan of its own.
        declare(Forecast(Path("class001"), work={"average": 1}))
        now = 1500.0
        tell("round 2: 3 classes")
    told = [line.strip() for line in said.getvalue().splitlines()]
    if on_a_terminal:
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in told]
        assert plain == [
            "about 20 min on this machine",
            "round 1: 3 classes  (about 10 min left)",
            "round 2: 3 classes",
        ]
    else:
        assert told == ["round 1: 3 classes", "round 2: 3 classes"]
    # Nobody listens any more.
    declare(Forecast(Path("averages"), work={"average": 100}))
