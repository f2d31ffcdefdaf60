"""``cryodc relion-job``."""

import difflib
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from cryodc_cli.options import OutPath, console
from cryodc_cli.stopping import Stopped, stoppable

if TYPE_CHECKING:
    from cryodc.plugins import RelionJob

_STEPS = ("train", "cluster", "average", "report")
# What the job says itself.
_OF_THE_JOB = {"--out", "--resume", "--json", "--quiet", "--dry-run", "--help", "-h"}
_YES_NO = {"yes": True, "true": True, "no": False, "false": False}
_SECONDS_BETWEEN_LOOKS = 0.5


@click.command(name="relion-job", context_settings={"ignore_unknown_options": True})
@click.option(
    "--in_parts",
    type=click.Path(path_type=Path, dir_okay=False),
    help="particles.star: field Input particles of RELION's External job.",
)
@click.option("--o", "out", type=OutPath(file_okay=False), required=True, help="The job's folder; RELION gives it.")
@click.option("--j", "n_threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads.")
@click.option("--pipeline_control", hidden=True)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]…")
@click.pass_context
def relion_job(
    context: click.Context,
    in_parts: Path | None,
    out: Path,
    n_threads: int,
    pipeline_control: str | None,
    options: tuple[str, ...],
) -> None:
    """Run train, cluster, average and report as an External job of RELION.

    In RELION's External job, the executable is "cryodc relion-job". Its parameters are options of train, cluster and
    average, with a Yes or No for those that take no value: tilt_range, k, classify. Run again, the job goes on where
    it stopped. Writes particles.star with the classes, and maps that later jobs can take.

    Example: cryodc relion-job --in_parts particles.star --o External/job012/ --j 8 --tilt_range -60 60 --classify Yes
    """
    from cryodc.errors import InputError
    from cryodc.plugins import RelionJob

    job = RelionJob(out)
    job.begin()
    try:
        if in_parts is None:
            raise InputError("no particles are given", remedy="fill in Input particles of the External job: --in_parts")
        with stoppable(), _watched(job):
            _run(context, job, in_parts, n_threads, options)
    except Stopped:
        job.end("ABORTED")
        raise
    except BaseException:
        job.end("FAILURE")
        raise
    job.end("SUCCESS")


def _run(context: click.Context, job: "RelionJob", star: Path, n_threads: int, options: tuple[str, ...]) -> None:
    """Every step that is not done, after the options of all of them were checked."""
    import torch
    from cryodc_cli.main import load_verb

    from cryodc.io import write_json
    from cryodc.runs import load_config, run_status

    torch.set_num_threads(n_threads)
    # None of the steps is of this job, but each prints what to do next on its own.
    context.meta["cryodc.steps"] = True
    commands = {verb: load_verb(verb) for verb in _STEPS}
    words = _by_verb(commands, options)
    run = str(job.run.path)
    words["train"] = [str(star), "--out", run, *words["train"]]
    for verb in _STEPS[1:]:
        words[verb] = [run, *words[verb]]
    resume = ["--resume"] if job.run.log.exists() or job.run.codes.exists() else []
    contexts = {
        verb: command.make_context(verb, words[verb] + (resume if verb == "train" else []), parent=context)
        for verb, command in commands.items()
    }
    before = json.loads(job.done.read_text(encoding="utf-8")) if job.done.exists() else {}
    done: dict[str, list[str]] = {}
    for number, verb in enumerate(_STEPS, start=1):
        head = f"Step {number} of {len(_STEPS)}: {verb}"
        if verb == "average" and load_config(job.run)["model"]["dims"] == 2:
            console().print(f"{head}: images have no averages", markup=False)
            continue
        states = {step.verb: step.state for step in run_status(job.run).steps} if job.run.config.exists() else {}
        if before.get(verb) == words[verb] and states.get(verb) == "done":
            console().print(f"{head}: was done before", markup=False)
        else:
            console().print(head, markup=False)
            with contexts[verb]:
                commands[verb].invoke(contexts[verb])
        done[verb] = words[verb]
        write_json(job.done, done)
    for path in job.offer():
        console().print(f"For later jobs: {path}", markup=False, soft_wrap=True)


def _by_verb(commands: dict[str, click.Command], options: tuple[str, ...]) -> dict[str, list[str]]:
    """``--KEY VALUE`` of RELION as words of the verbs that have such an option."""
    from cryodc.errors import InputError

    known: dict[str, list[tuple[str, click.Option]]] = {}
    for verb, command in commands.items():
        for option in (param for param in command.params if isinstance(param, click.Option)):
            for name in (*option.opts, *option.secondary_opts):
                if name not in _OF_THE_JOB:
                    known.setdefault(name.lstrip("-").replace("-", "_"), []).append((verb, option))
    words: dict[str, list[str]] = {verb: [] for verb in commands}
    for key, values in _pairs(options):
        name = key.lstrip("-").replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"a parameter of the job is no option of {', '.join(_STEPS[:-1])}",
                expected=f"--{near[0]}" if near else "an option that `cryodc train --help` and the others name",
                found=key,
                remedy="change the label in the job's parameters; particles are the only input that is read",
            )
        for verb, option in known[name]:
            words[verb] += _words(name, option, values)
    return words


def _pairs(options: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Each key with the values behind it; RELION gives a value of several words without quotes."""
    from cryodc.errors import InputError

    values: list[str] = []
    starts = [place for place, word in enumerate(options) if word.startswith("--")]
    if options and (not starts or starts[0] > 0):
        raise InputError("a value without a label", expected="--LABEL VALUE", found=options[0])
    for place, following in zip(starts, [*starts[1:], len(options)], strict=True):
        values = [part for word in options[place + 1 : following] for part in word.split()]
        yield options[place], values


def _words(name: str, option: click.Option, values: list[str]) -> Iterable[str]:
    """An option as its verb takes it."""
    from cryodc.errors import InputError

    yes, no = (list(names) for names in (option.opts, option.secondary_opts))
    named = next(opt for opt in [*yes, *no] if opt.lstrip("-").replace("-", "_") == name)
    if option.is_flag:
        said = _YES_NO.get(" ".join(values).lower()) if values else True
        if said is None:
            raise InputError(f"--{name} is on or off", expected="Yes or No", found=" ".join(values))
        if said:
            return [named]
        return no[:1] if named in yes else yes[:1]
    n_each = option.nargs
    if not values or len(values) % n_each or (len(values) > n_each and not option.multiple):
        raise InputError(
            f"--{name} has the wrong number of values",
            expected=f"{n_each}{' or a multiple of it' if option.multiple else ''}",
            found=f"{len(values)}{': ' if values else ''}{' '.join(values)}",
        )
    chunks = [values[start : start + n_each] for start in range(0, len(values), n_each)]
    return [word for chunk in chunks for word in (named, *chunk)]


@contextmanager
def _watched(job: "RelionJob") -> Iterator[None]:
    """Stop this process as SIGTERM does when RELION asks for an abort."""
    finished = threading.Event()

    def look() -> None:
        while not finished.wait(_SECONDS_BETWEEN_LOOKS):
            if job.abort_asked():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
