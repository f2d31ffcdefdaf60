"""``--slurm``: the command as a job, whose processes find one another; what is wrong is said before it waits."""

import builtins
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryodc_cli.main import main
from cryodc_cli.slurm import Job
from cryodc_cli.slurm_keys import minutes_of, n_processes_per_node, read_keys

from cryodc.errors import InputError
from tests.cli.slurm import put_slurm

_PATIENCE_SECONDS = 300


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_run.parent / "sim", tmp_path / "sim")
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def typed(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Type a command; its exit code."""
    monkeypatch.setattr(sys, "argv", ["cryodc", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_a_job_runs_its_processes_together_to_the_result_of_one_command(run: Path, tmp_path: Path) -> None:
    asked = "partition=gpu,ntasks_per_node=2,time=1:30:00,mail_type=END,FAIL,account=lab"
    command = [sys.executable, "-m", "cryodc", "states", str(run), "--class", "1", "--starts", "1"]
    environment = put_slurm(tmp_path / "node")
    submitted = subprocess.run(
        [*command, "--slurm", asked], capture_output=True, text=True, timeout=240, env=environment, cwd=tmp_path
    )
    assert submitted.returncode == 0, submitted.stderr
    end = time.monotonic() + _PATIENCE_SECONDS
    while not (code := tmp_path / "node/code").exists() and time.monotonic() < end:
        time.sleep(0.2)
    log = (tmp_path / "node/job.log").read_text()
    assert code.read_text().strip() == "0", log
    assert "global_rank=1(2)" in log
    assert log.count("Next:") == 1
    assert (run / "states/class001/summary.json").exists()
    script = (tmp_path / "node/submitted.sh").read_text()
    assert script.strip() in submitted.stdout
    assert "Submitted job 7" in submitted.stdout
    lines = set(script.splitlines())
    wanted = ("partition=gpu", "ntasks-per-node=2", "nodes=1", "time=1:30:00", "mail-type=END,FAIL", "account=lab")
    assert lines >= {f"#SBATCH --{line}" for line in wanted}


def test_a_dry_run_prints_the_file_and_submits_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent)
    before = sorted(run.parent.rglob("*"))
    words = ("average", run, "--slurm=nodes=4,gpus-per-node=a100:2,exclusive,setup=module load cuda", "--dry-run")
    assert typed(monkeypatch, *words, "--device", "cuda") == 0
    said = capsys.readouterr().out.splitlines()
    wanted = ("nodes=4", "gpus-per-node=a100:2", "ntasks-per-node=2", "exclusive", "job-name=cryodc-average")
    assert {f"#SBATCH --{line}" for line in wanted} <= set(said)
    # The partition's own, where none is asked for.
    assert not any(line.startswith("#SBATCH --time") for line in said)
    assert said.index("module load cuda") < next(i for i, line in enumerate(said) if line.startswith("srun"))
    assert sorted(run.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("partitoin=gpu", "did you mean partition"),
        ("nodes=two", "--slurm nodes is no number"),
        ("partition", "--slurm partition has no value"),
        ("time=soon", "--slurm time is none"),
        ("output=here", "does not know for such a job"),
        ("partition=gpu", "there is no Slurm on this machine"),
    ],
)
def test_what_cannot_be_asked_of_slurm_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: str, said: str
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert typed(monkeypatch, "average", run, "--slurm", asked) == 2
    assert said in capsys.readouterr().err


def test_what_the_job_would_refuse_is_refused_before_it_waits(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", put_slurm(tmp_path / "node")["PATH"])
    assert typed(monkeypatch, "states", run, "--class", "9", "--slurm", "nodes=1") == 2
    assert "there is no such class" in capsys.readouterr().err
    assert not (tmp_path / "node/submitted.sh").exists()


def test_without_submitit_the_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "submitit":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert typed(monkeypatch, "average", run, "--slurm", "nodes=1", "--dry-run") == 2
    assert "'.[slurm]'" in capsys.readouterr().err


def test_a_job_that_slurm_starts_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training whose time was over is begun, so that it has to be resumed."""
    typed_words: list[list[str]] = []
    monkeypatch.setattr("runpy.run_module", lambda *_, **__: typed_words.append(sys.argv[1:]))
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    words = ["train", "a.star", "--out", str(tmp_path)]
    (tmp_path / "config.yaml").touch()
    job = Job(words)
    job()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.checkpoint().function()
    assert typed_words == [words, [*words, "--resume"]]
    assert os.environ["WORLD_SIZE"] == "1"


def test_keys_are_those_of_sbatch_and_of_submitit() -> None:
    assert read_keys("slurm_partition=gpu,timeout_min=90,mem_gb=8,tasks_per_node=4") == {
        "partition": "gpu",
        "time": "90",
        "mem": "8G",
        "ntasks-per-node": "4",
    }
    assert read_keys("nodelist=a[1,2],gres=gpu:h100:8") == {"nodelist": "a[1,2]", "gres": "gpu:h100:8"}
    assert n_processes_per_node(read_keys("gres=gpu:h100:8")) == 8
    assert minutes_of("1-12:00:30") == 36 * 60 + 1
    with pytest.raises(InputError, match="ntasks-per-node"):
        read_keys("ntasks=8")
