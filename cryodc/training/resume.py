"""Whether a folder may become a run, and whether a run may go on with what it is given."""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryodc.errors import InputError
from cryodc.io import read_yaml
from cryodc.models import TrainConfig
from cryodc.runs import RunFolder, load_config
from cryodc.training.request import TrainRequest

_SHOWN = 6
_LATER = ("optimisation.epochs", "templates.")
"""What has no part in the epochs that are done, so that a run may go on with another."""


def require_free(run: RunFolder) -> None:
    """Refuse a folder that holds a run or files of other kinds.

    A run that was stopped before its first epoch was done holds nothing to lose, and is begun again.

    Raises
    ------
    InputError
        If a run would be overwritten or its files mixed with others.
    """
    if not run.path.exists():
        return
    if not run.path.is_dir():
        raise InputError("this is a file, not a folder", file=run.path, remedy="choose another --out")
    if _is_run(run):
        if any(path.exists() for path in (run.log, run.checkpoints / "last.pt", run.codes)):
            raise InputError(
                "this folder already holds a run, which is never overwritten",
                file=run.path,
                remedy="choose another --out, or go on with it: --resume",
            )
        return
    others = sorted(path.name for path in run.path.iterdir() if path != run.pack and not path.name.startswith("."))
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        raise InputError(
            "this folder holds other files, and a run has a folder of its own",
            file=run.path,
            expected="a folder that does not exist yet, or an empty one",
            found=", ".join(others[:_SHOWN]) + more,
            remedy="choose another --out",
        )


def next_run_folder(resume: bool) -> Path:
    """``run``, or the first of ``run2``, ``run3`` … that is free; to resume, the last of them that is a run."""
    names = ("run" if number == 1 else f"run{number}" for number in itertools.count(1))
    if resume:
        runs = itertools.takewhile(lambda path: path.exists(), map(Path, names))
        return ([path for path in runs if _is_run(RunFolder(path))] or [Path("run")])[-1]
    for path in map(Path, names):
        with suppress(InputError):
            require_free(RunFolder(path))
            break
    return path


def require_run(run: RunFolder) -> None:
    """Refuse to resume what is no run.

    Raises
    ------
    InputError
        If the folder holds no config.yaml of a run.
    """
    if not _is_run(run):
        raise InputError("no run to resume", file=run.path, remedy="train without --resume")


def settings_to_resume(run: RunFolder, request: TrainRequest) -> dict[str, dict[str, Any]]:
    """What a resumed run is given: the settings it began with, and over them those named anew."""
    given = request.overrides or {}
    stored = load_config(run)
    if request.preset not in ("default", stored["preset"]):
        return given
    sections = [section for section in TrainConfig.model_fields if section in stored or section in given]
    return {section: {**stored.get(section, {}), **given.get(section, {})} for section in sections}


def require_same(run: RunFolder, described: dict[str, Any]) -> None:
    """Refuse to go on with other particles or settings; the number of epochs and the templates may be others.

    Raises
    ------
    InputError
        Naming each setting that differs, and nothing else.
    """
    begun = load_config(run)
    # Images have no section of templates.
    sections = [s for s in ("dataset", "input", *TrainConfig.model_fields, "seed") if s in described and s in begun]
    pairs = [*_differences("pack", _voxels(begun), _voxels(described))]
    pairs += [pair for section in sections for pair in _differences(section, begun[section], described[section])]
    differing = [pair for pair in pairs if not pair[0].startswith(_LATER)]
    if not differing:
        return
    names = [name for name, _, _ in differing]
    problem = f"this run began with another {names[0]}" if len(names) == 1 else "this run began with other settings"
    if all(name.startswith("dataset.") for name in names):
        problem = "this run began with other particles"
    raise InputError(
        problem,
        file=run.config,
        expected=", ".join(f"{name} {value}" for name, value, _ in differing),
        found=", ".join(f"{name} {value}" for name, _, value in differing),
        remedy="resume with the command it began with: " + begun["command"],
    )


def with_later_settings(run: RunFolder, described: dict[str, Any]) -> dict[str, Any]:
    """The content of config.yaml as the run began, with the epochs and templates that are asked for now."""
    later = {section: described[section] for section in ("optimisation", "templates") if section in described}
    return load_config(run) | later


def _is_run(run: RunFolder) -> bool:
    """Whether config.yaml is one of ours: many programs call their settings so."""
    try:
        return "cryodc_version" in read_yaml(run.config, "settings")
    except InputError:
        return False


def _differences(name: str, begun: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(begun, dict) and isinstance(found, dict):
        for key in {**begun, **found}:
            yield from _differences(f"{name}.{key}", begun.get(key), found.get(key))
    elif begun != found:
        yield name, begun, found


def _voxels(described: dict[str, Any]) -> dict[str, Any]:
    """What training sees of each particle; where it is read from does not matter."""
    pack = described.get("pack") or {"box_size": described["dataset"]["box_size"], "dtype": "float32"}
    return {"box_size": pack["box_size"], "dtype": pack["dtype"]}
