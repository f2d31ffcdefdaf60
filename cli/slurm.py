"""``--slurm`` of the verbs that several processes do together: the command as a job of a cluster.

A job starts one process a GPU on every node, as ``torchrun`` would. This module is imported by the processes of a job
before they know their place among each other, so it imports nothing that asks for it.
"""

import functools
import os
import runpy
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.slurm_keys import OWN, minutes_of, n_processes_per_node, read_keys

from cryodc.errors import InputError

_NAME = "slurm"
_FOLDER = Path("slurm")


class Job:
    """The command as each process of a job runs it; called by submitit, which keeps it in a file.

    Parameters
    ----------
    words
        Of the command, from the verb on.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)

    def __call__(self) -> None:
        """Tell this process its place, as torchrun does, and run the command."""
        from submitit.helpers import TorchDistributedEnvironment

        # Each process chooses its own of all GPUs of its node.
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if "SLURM_GPUS_PER_TASK" in os.environ:
            # It sees its own alone.
            os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
        sys.argv = ["cryodc", *self.words]
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")):
            from cryodc_cli.stopping import words_to_go_on

            sys.argv = ["cryodc", *words_to_go_on(self.words)]
        try:
            runpy.run_module("cryodc", run_name="__main__")
        except SystemExit as left:
            if left.code:
                raise

    def checkpoint(self) -> Any:
        """What to do when the job's time is over: the same again, which goes on where it was stopped."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def add_slurm(command: click.Command) -> None:
    """Give a verb the option, once."""
    if any(option.name == _NAME for option in command.params):
        return
    work = command.callback
    assert work is not None

    @functools.wraps(work)
    def work_or_submit(*arguments: Any, slurm: str | None, **options: Any) -> Any:
        if slurm is None:
            return work(*arguments, **options)
        asked, dry_run = read_keys(slurm), options.pop("dry_run")
        words = _without_slurm(sys.argv[1:])
        if "run" in options and options["run"] is None:
            from cryodc_cli.options import resolve_run

            # What is the latest run now, need not be it when the job starts.
            options["run"] = resolve_run(None, writes=True).path
            words.insert(1, str(options["run"]))
        # A job may wait for long: what is wrong with the input is found before.
        _check(functools.partial(work, *arguments, dry_run=False, **{**options, "device": "cpu"}))
        _submit(words, asked, dry_run)
        return None

    command.callback = work_or_submit
    told = (
        "Run this as a job of Slurm, a process for each GPU, and print its sbatch file: partition=gpu,nodes=4 and "
        "whatever else sbatch knows. With --dry-run nothing is submitted."
    )
    command.params.append(click.Option(["--slurm", _NAME], metavar="KEY=VALUE,…", help=told))


def _without_slurm(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    taken = False
    for word in words:
        if not (taken or word in ("--slurm", "--dry-run") or word.startswith("--slurm=")):
            kept.append(word)
        taken = word == "--slurm"
    return kept


def _check(work: functools.partial[Any]) -> None:
    from cryodc.dry_run import Planned, planning

    try:
        with planning():
            work()
    except Planned:
        return


def _submit(words: Sequence[str], asked: Mapping[str, str | bool], dry_run: bool) -> None:
    """Print the sbatch file; submit it unless nothing is to be done."""
    from cryodc_cli.options import console

    out, folder = console(), Path(str(asked.get("folder", _FOLDER)))
    executor = _executor(folder, words, asked)
    if dry_run:
        out.print(executor.text(), markup=False, soft_wrap=True)
        out.print("Nothing was submitted.")
        return
    if shutil.which("sbatch") is None:
        raise InputError(
            "there is no Slurm on this machine",
            expected="the command sbatch",
            found="none on PATH",
            remedy="give the command where jobs are submitted; with --dry-run it prints the sbatch file",
        )
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        job = executor.submit(Job(words))
    except (FailedJobError, FailedSubmissionError) as error:
        said = [line for line in str(error).splitlines() if line.strip()]
        raise InputError(
            "sbatch refused the job",
            expected="options that this cluster accepts",
            found=" ".join(said[-2:]),
            remedy="change --slurm",
        ) from error
    out.print(job.paths.submission_file.read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    out.print(
        f"Submitted job {job.job_id}. What it says: {job.paths.stdout}, {job.paths.stderr}",
        markup=False,
        soft_wrap=True,
    )


def _executor(folder: Path, words: Sequence[str], asked: Mapping[str, str | bool]) -> Any:
    """The executor of submitit that makes such jobs."""
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise InputError(
            "submitit is not installed", remedy="in your clone of cryodc: pip install '.[slurm]'"
        ) from error

    class Executor(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            # Whether there is a Slurm is asked when something is submitted.
            return 2

        def text(self) -> str:
            return self._make_submission_file_text(self._submitit_command_str, "")

        def _make_submission_file_text(self, command: str, uid: str) -> str:
            text = super()._make_submission_file_text(command, uid)
            if "time" in asked:
                return text
            # Without a time it is that of the partition, and not submitit's five minutes.
            return "".join(line for line in text.splitlines(True) if not line.startswith("#SBATCH --time="))

    executor = Executor(folder)
    executor.update_parameters(
        job_name=f"cryodc-{words[0]}",
        nodes=int(asked.get("nodes", 1)),
        ntasks_per_node=n_processes_per_node(asked),
        time=minutes_of(str(asked["time"])) if "time" in asked else 0,
        setup=[str(asked["setup"])] if "setup" in asked else None,
        srun_args=shlex.split(str(asked.get("srun-args", ""))) or None,
        wckey=None,
        additional_parameters={k: v for k, v in asked.items() if k not in (*OWN, "nodes", "ntasks-per-node")},
    )
    return executor
