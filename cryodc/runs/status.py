"""How far a run is: what is done, what is of something earlier, who is writing into it, and what comes next."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from cryodc.errors import InputError
from cryodc.runs.codes import load_codes
from cryodc.runs.config import load_config
from cryodc.runs.current import (
    classes_if_any,
    current_averages,
    fingerprint_of_averages,
    fingerprint_of_clusters,
    fingerprint_of_codes,
    fingerprint_of_decoded,
    fingerprint_of_shown,
)
from cryodc.runs.folder import RunFolder
from cryodc.runs.lock import written_by
from cryodc.runs.summaries import SUMMARY, AverageSummary, ClusterSummary, StatesSummary, Summary, read_summary
from cryodc.runs.tables import read_table
from cryodc.unfinished import stopped_command

# Their folders may lie anywhere, and need what the user chose.
_FOR_OTHERS = ("export", "map-back", "encode", "identify")
State = Literal["done", "running", "begun", "stale", "missing", "damaged"]


@dataclass(frozen=True)
class Step:
    """One verb, and what the run has of it.

    Parameters
    ----------
    verb
        Its name.
    state
        ``running`` is what a process makes now, ``begun`` what a stopped one left, and ``stale`` what was made of
        something that has changed since.
    told
        In a few words.
    finished
        When its result was written, ISO 8601 in local time; None where there is none.
    go_on
        What was typed to make it, where a process was stopped that keeps what it has done.
    """

    verb: str
    state: State
    told: str = ""
    finished: str | None = None
    go_on: str | None = None


@dataclass(frozen=True)
class RunStatus:
    """Every step of a run, the process that writes into it now, and the command to go on with.

    Parameters
    ----------
    run
        The folder.
    running
        The process that holds the lock, as it called itself; None where none does.
    steps
        In the order of the story.
    next
        None while a process is running, and where nothing is left to do.
    """

    run: str
    running: str | None
    steps: tuple[Step, ...]
    next: str | None


def run_status(run: RunFolder) -> RunStatus:
    """How far a run is; nothing is written.

    Raises
    ------
    InputError
        If its config.yaml is damaged.
    """
    described, running = load_config(run), written_by(run)
    train = _train(run, described)
    steps = [train, _judged("cluster", run.clusters / SUMMARY, partial(_clusters, run))]
    if described["model"].get("dims", 3) == 3:
        steps.append(_judged("average", run.averages / SUMMARY, partial(_averages, run)))
        begun = {run.states / path.name[1:].partition(".")[0] for path in run.states.glob(".class*.begun.*")}
        found = sorted(begun | {path.parent for path in run.states.glob(f"class*/{SUMMARY}")})
        steps += [_judged("states", path / SUMMARY, partial(_states, run, path / SUMMARY)) for path in found]
        if (run.identified / SUMMARY).exists():
            steps.append(_judged("identify", run.identified / SUMMARY, partial(_identified, run)))
    decoded = sorted(run.generated.glob(f"*/{SUMMARY}"))
    if decoded:
        steps.append(_judged("generate", decoded[0], partial(_decoded, run, decoded)))
    steps.append(_report(run))
    if running:
        steps = [_running(step) if running.startswith(f"cryodc {step.verb}, ") else step for step in steps]
    steps += _given(run)
    return RunStatus(str(run.path), running, tuple(steps), None if running else _next(run, described, steps))


def _running(step: Step) -> Step:
    """The step that a process makes now; of several classes' states, those that were begun or are not there yet."""
    return step if step.verb == "states" and step.state != "begun" else replace(step, state="running", go_on=None)


def _train(run: RunFolder, described: dict[str, Any]) -> Step:
    wanted = described.get("optimisation", {}).get("epochs")
    try:
        n_done = len(read_table(run.log, ("epoch",), "cryodc train")) if run.log.exists() else 0
    except InputError as error:
        return Step("train", "damaged", str(error).splitlines()[0])
    if not run.codes.exists():
        told = f"{n_done} of {wanted} epochs" if n_done < (wanted or 0) else "trained, but not encoded"
        return Step("train", "begun", told, _time(run.log) if n_done else None)
    if wanted is not None and n_done < wanted:
        return Step("train", "begun", f"{n_done} of {wanted} epochs", _time(run.log))
    return Step("train", "done", f"{n_done} epochs", _time(run.codes))


def _judged(verb: str, path: Path, judge: Callable[[], tuple[bool, str]]) -> Step:
    """The step whose result is a summary: begun, missing, damaged, or what ``judge`` says of it."""
    command = stopped_command(path.parent)
    if command is not None:
        told = f"{path.parent.name}: stopped" if verb == "states" else "stopped"
        # What another program typed is of no use here.
        typed = command if command.startswith("cryodc ") else None
        return Step(verb, "begun", told, _time(path) if path.exists() else None, typed)
    if not path.exists():
        return Step(verb, "missing")
    try:
        current, told = judge()
    except InputError as error:
        name = f"{path.parent.name}: " if verb == "states" else ""
        return Step(verb, "damaged", name + str(error).splitlines()[0], _time(path))
    return Step(verb, "done" if current else "stale", told, _time(path))


def _clusters(run: RunFolder) -> tuple[bool, str]:
    found = read_summary(run.clusters, ClusterSummary, "cryodc cluster")
    current = run.codes.exists() and found.made_of == fingerprint_of_codes(run)
    return current, f"{found.n_clusters} clusters" if current else "of earlier codes"


def _averages(run: RunFolder) -> tuple[bool, str]:
    found = read_summary(run.averages, AverageSummary, "cryodc average")
    # Clusters that are stale make averages of them stale.
    current = _clusters(run)[0] and found.made_of == fingerprint_of_clusters(run)
    return current, f"{len(found.classes)} classes" if current else "of an earlier clustering"


def _states(run: RunFolder, path: Path) -> tuple[bool, str]:
    found = read_summary(path.parent, StatesSummary, "cryodc states")
    current = _averages(run)[0] and found.made_of == fingerprint_of_averages(run)
    told = f"{found.n_states} states" if current else "of earlier averages"
    return current, f"class {found.class_number}: {told}"


def _identified(run: RunFolder) -> tuple[bool, str]:
    current = _averages(run)[0] and _made_of(run.identified) == fingerprint_of_averages(run)
    return current, "" if current else "of earlier averages"


def _decoded(run: RunFolder, summaries: list[Path]) -> tuple[bool, str]:
    classes = classes_if_any(run)
    today = fingerprint_of_decoded(load_codes(run), None if classes is None else classes.labels)
    stale = [path.parent.name for path in summaries if _made_of(path.parent) != today]
    return not stale, f"{', '.join(stale)} of earlier codes or classes" if stale else ""


def _report(run: RunFolder) -> Step:
    if not run.report.exists():
        return Step("report", "missing")
    # Only the head is read: the page holds megabytes.
    with run.report.open("rb") as page:
        current = f'name="cryodc-made-of" content="{fingerprint_of_shown(run)}"'.encode() in page.read(2000)
    return Step("report", "done" if current else "stale", "" if current else "of earlier results", _time(run.report))


def _given(run: RunFolder) -> list[Step]:
    """What `export`, `map-back` and `encode` made of this run, in the run folder or beside it."""
    home, steps = run.path.resolve(), []
    for path in sorted({*home.glob(f"*/{SUMMARY}"), *home.parent.glob(f"*/{SUMMARY}")}):
        try:
            told = json.loads(path.read_bytes())
            mine = isinstance(told, dict) and Path(str(told.get("run"))) == home
            made_of = told.get("made_of") if mine else None
        except (OSError, ValueError):
            continue
        if mine:
            verb = str(told.get("verb", "encode"))
            current = made_of in _sources(run, verb)
            place = path.parent.name if current else f"{path.parent.name}: of earlier results, make it again"
            steps.append(Step(verb, "done" if current else "stale", place, _time(path)))
    return steps


def _sources(run: RunFolder, verb: str) -> set[str]:
    """The fingerprints of today's results that a folder for others may be made of; none where these are stale."""
    try:
        if verb in ("export", "map-back"):
            return {fingerprint_of_averages(run)} if _averages(run)[0] else set()
        if not ((run.clusters / SUMMARY).exists() and _clusters(run)[0]):
            return {fingerprint_of_codes(run)}
        of_averages = {fingerprint_of_averages(run)} if current_averages(run) is not None else set()
        return {fingerprint_of_clusters(run), *of_averages}
    except InputError:
        return set()


class _AnySummary(Summary):
    """Any summary, of which only the source is of interest."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _made_of(folder: Path) -> str:
    return read_summary(folder, _AnySummary, "the command that made it").made_of


def _next(run: RunFolder, described: dict[str, Any], steps: list[Step]) -> str | None:
    """The first step that is not done; folders for others are made again by whom they are for."""
    step = next((step for step in steps if step.state != "done" and step.verb not in _FOR_OTHERS), None)
    if step is None:
        return None
    if step.go_on is not None:
        return step.go_on
    words = ["cryodc", step.verb, str(run.path)]
    if step.verb == "train":
        words = ["cryodc", "train", str(described.get("star", run.particles)), "--out", str(run.path), "--resume"]
    if step.verb == "states":
        words += ["--class", str(int(step.told.partition(":")[0].removeprefix("class")))]
    return shlex.join(words)


def _time(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="milliseconds")
