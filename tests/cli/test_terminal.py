"""What the command line says and refuses before any work: options, names, the next command, the run that is meant."""

import errno
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from cryodc_cli.learn.train import epoch_line
from cryodc_cli.main import VERBS, cli, load_verb, main
from cryodc_cli.options import OutPath, print_next, resolve_run

from cryodc.errors import InputError
from cryodc.runs import RunFolder
from cryodc.training import next_run_folder

LONG = "a" * 300


def refusal(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that ends with exit code 2, on one line."""
    monkeypatch.setattr(sys, "argv", ["cryodc", *arguments])
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(re.sub("[│╭╮╰╯─]", " ", said).split())


@pytest.mark.parametrize("verb", ["train", "pack", "check", "extract", "simulate"])
@pytest.mark.parametrize("angles", [("60", "-60"), ("0", "0"), ("nan", "60"), ("-60", "inf"), ("-100", "60")])
def test_a_tilt_range_goes_up(
    verb: str, angles: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal([verb, "a.star", "--tilt-range", *angles], monkeypatch, capsys)
    assert "'--tilt-range': expected MIN below MAX, both from -90 to 90 degrees" in said


@pytest.mark.parametrize("seed", [2**31, 2**63, 2**70, -1])
def test_a_seed_is_one_that_every_library_takes(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    takers = [verb for verb in VERBS if any("--seed" in param.opts for param in load_verb(verb).params)]
    assert {"train", "cluster", "average"} <= set(takers)
    for verb in takers:
        assert f"'--seed': {seed} is not in the range" in refusal([verb, "--seed", str(seed)], monkeypatch, capsys)


def test_every_out_is_a_name_that_a_file_system_holds() -> None:
    outs = {verb: param for verb in VERBS for param in load_verb(verb).params if param.name == "out"}
    assert set(outs) >= {"train", "pack", "import", "extract", "simulate", "convert", "export", "select", "map-back"}
    assert [verb for verb, param in outs.items() if not isinstance(param.type, OutPath)] == []


@pytest.mark.parametrize("name", [LONG, f"{LONG}/run", f"run/{'ä' * 128}", "", "a\0b"])
def test_a_name_no_file_system_holds_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'--out': expected" in refusal(["train", "a.star", "--out", name], monkeypatch, capsys)


@pytest.mark.parametrize("verb", ["cluster", "average", "states", "report"])
def test_a_run_that_cannot_be_written_is_refused_before_any_work(
    verb: str, small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    more = ["--class", "1"] if verb == "states" else []
    said = refusal([verb, str(small_run), *more], monkeypatch, capsys)
    assert "this run folder cannot be written" in said


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG])
def test_what_a_disk_refuses_is_one_error(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "some/file.mrc")

    monkeypatch.setattr(cli, "main", refuse)
    said = refusal([], monkeypatch, capsys)
    assert os.strerror(code) in said
    assert "file: some/file.mrc" in said


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train"), ("Cluster", "cluster"), ("map_back", "map-back"), ("averge", "average")]
)
def test_a_mistyped_verb_is_told_the_nearest(
    typed: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"did you mean `{meant}`?" in refusal([typed], monkeypatch, capsys)


def test_a_word_like_no_verb_is_told_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["xyzzy"], monkeypatch, capsys)
    assert "there is no verb 'xyzzy'" in said
    assert "did you mean" not in said


def test_the_first_screen_shows_each_command_on_its_own_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cryodc", "--help"])
    with pytest.raises(SystemExit):
        main()
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert not any("\\b" in line or "\b" in line for line in lines)
    for command in ("train particles.star --out run/", "cluster run/", "average run/", "report run/"):
        assert f"cryodc {command}" in lines


def test_the_next_command_is_one_line_that_a_shell_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    folder = Path("/data/my project (2)/a folder with a name longer than any line of this terminal")
    print_next("cluster", folder)
    (line,) = capsys.readouterr().out.splitlines()
    assert shlex.split(line.removeprefix("Next: ")) == ["cryodc", "cluster", str(folder)]


@pytest.mark.parametrize(("seconds", "n_epochs"), [(0.04, 40), (123456.7, 10000), (3.0, 1)])
def test_an_epoch_fits_a_line(seconds: float, n_epochs: int) -> None:
    line = {"epoch": float(n_epochs), "seconds": seconds, "total": -12345.678901, "learning_rate": 1.2345678e-5}
    for epoch in (1.0, float(n_epochs)):
        assert len(epoch_line({**line, "epoch": epoch}, epoch * 500_000, n_epochs * 500_000)) <= 80


def test_an_epoch_says_how_long_the_rest_takes() -> None:
    line = {"epoch": 3.0, "seconds": 2.0, "total": 1.91634, "learning_rate": 1e-3}
    assert epoch_line(line, 3000, 10000) == ("epoch 3 of 10  loss 1.916  rate 0.001  500 particles/s  14 s left")


def test_a_second_run_takes_the_next_name(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert next_run_folder(resume=False) == Path("run")
    shutil.copytree(small_run, "run")
    assert next_run_folder(resume=False) == Path("run2")
    (tmp_path / "run2").mkdir()
    (tmp_path / "run2" / "thesis.tex").touch()
    assert next_run_folder(resume=False) == Path("run3")
    assert next_run_folder(resume=True) == Path("run")
    shutil.copytree(small_run, "run3")
    assert next_run_folder(resume=True) == Path("run3")


@pytest.mark.parametrize("place", [".", "averages", "checkpoints"])
def test_verbs_find_the_run_they_are_called_in(
    place: str, small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small_run / place)
    found = resolve_run(None)
    assert isinstance(found, RunFolder)
    assert found.path.resolve() == small_run.resolve()
    assert "Using the latest run" in capsys.readouterr().err


def test_a_config_of_another_program_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("site: docs\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no run in this folder"):
        resolve_run(None)


def test_no_bar_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["train", "nothing.star"], monkeypatch, capsys)
    assert said.startswith("Error:")
    assert "Reading" not in said


def test_here_is_a_folder_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--out .`` has no last part whose length could be judged."""
    monkeypatch.chdir(tmp_path)
    assert OutPath().convert(".", None, None) == Path()
