"""Train a run: from a STAR file to a run folder with a model and the codes of every particle."""

import hashlib
import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

from cryodc.codes import Codes
from cryodc.config import Preset, TrainConfig, preset_config
from cryodc.data.dataset import InputOptions, SubtomogramDataset, load_dataset
from cryodc.distributed import Team, choose_device, join_team
from cryodc.encode import encode_particles
from cryodc.errors import InputError
from cryodc.io.run import RunFolder, load_config, save_codes, save_config
from cryodc.io.star import read_particles, read_run_particles, read_star, write_star
from cryodc.io.weights import read_tilt_ranges
from cryodc.particles import ParticleSet
from cryodc.train import Listener, train


@dataclass(frozen=True)
class TrainRequest:
    """What a user asks of ``cryodc train``.

    Parameters
    ----------
    star
        Particles, read-only.
    out
        The run folder to make.
    preset, overrides
        Settings, see :func:`cryodc.config.preset_config`.
    data_dir
        Where images are looked for after the current folder and the STAR's.
    tilt_range, tilt_ranges_csv, tilt_axis, invert
        See :class:`cryodc.data.dataset.InputOptions`.
    seed
        Of everything random.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    resume
        Go on with the run in ``out``, under the settings it began with.
    """

    star: Path
    out: Path
    preset: Preset = "default"
    overrides: dict[str, dict[str, Any]] | None = None
    data_dir: Path | None = None
    tilt_range: tuple[float, float] | None = None
    tilt_ranges_csv: Path | None = None
    tilt_axis: str = "y"
    invert: bool = False
    seed: int = 0
    device: str = "auto"
    resume: bool = False


@dataclass(frozen=True)
class Prepared:
    """A run about to be trained: checked, read, and its folder begun."""

    run: RunFolder
    dataset: SubtomogramDataset
    config: TrainConfig


def prepare_run(request: TrainRequest, *, writes: bool = True) -> Prepared:
    """Check everything that can be checked, read the particles, and begin the run folder.

    Parameters
    ----------
    request
        What the user asks.
    writes
        Whether this process writes files; only one of several does.

    Raises
    ------
    InputError
        If the STAR or an image is bad, a setting is out of range, the folder holds another run, or, on resume,
        the particles or settings are not the ones the run began with.
    """
    run = RunFolder(request.out)
    exists = run.config.exists()
    if exists and not request.resume:
        raise InputError(
            "this folder already holds a run, which is never overwritten",
            file=run.path,
            remedy="choose another --out, or go on with it: --resume",
        )
    if request.resume and not exists:
        raise InputError("no run to resume", file=run.path, remedy="train without --resume")
    particles = read_particles(request.star, data_dir=request.data_dir)
    config = _settings(request, particles.box_size)
    described = describe_run(request, particles, config)
    if request.resume:
        _require_same(run, described)
    dataset = load_dataset(particles, input_options(described["input"]))
    if writes and not request.resume:
        write_star(read_star(request.star), run.particles)
        save_config(run, described)
    return Prepared(run, dataset, config)


def train_run(request: TrainRequest, listener: Listener | None = None) -> tuple[RunFolder, Codes]:
    """Train a run to its last epoch and encode every particle into codes.npz.

    Parameters
    ----------
    request
        What the user asks.
    listener
        Hears of progress.

    Raises
    ------
    InputError
        As :func:`prepare_run` and :func:`cryodc.train.train`.
    """
    device = choose_device(request.device)
    with join_team(device) as team:
        prepared = prepare_run(request, writes=team.leads)
        return prepared.run, fit_run(prepared, request, device, team, listener)


def fit_run(
    prepared: Prepared,
    request: TrainRequest,
    device: torch.device,
    team: Team,
    listener: Listener | None = None,
) -> Codes:
    """Train a prepared run and encode every particle."""
    model = train(
        prepared.dataset,
        prepared.config,
        prepared.run,
        seed=request.seed,
        device=device,
        team=team,
        resume=request.resume,
        listener=listener,
    )
    codes = encode_particles(
        model,
        prepared.dataset,
        prepared.config.views,
        n_views=prepared.config.optimisation.encoding_views,
        seed=request.seed,
    )
    if team.leads:
        save_codes(prepared.run, codes)
    return codes


def load_run_dataset(run: RunFolder) -> SubtomogramDataset:
    """The dataset a run was trained on, from its config.yaml and its copy of the STAR."""
    return load_dataset(load_run_particles(run), input_options(load_config(run)["input"]))


def load_run_particles(run: RunFolder) -> ParticleSet:
    """The particles a run was trained on, from its copy of the STAR."""
    return read_run_particles(run, [Path(folder) for folder in load_config(run)["image_folders"]])


def image_folders(request: TrainRequest) -> list[Path]:
    """Where relative image paths are looked for, in order."""
    return [Path.cwd(), request.star.parent, *([] if request.data_dir is None else [request.data_dir])]


def input_options(given: dict[str, Any]) -> InputOptions:
    """The ``input`` section of config.yaml as options."""
    tilt_range, csv = given["tilt_range"], given["tilt_ranges"]
    return InputOptions(
        tilt_range=None if tilt_range is None else (tilt_range[0], tilt_range[1]),
        tilt_ranges=None if csv is None else read_tilt_ranges(Path(csv)),
        tilt_axis=given["tilt_axis"],
        invert=given["invert"],
    )


def describe_run(request: TrainRequest, particles: ParticleSet, config: TrainConfig) -> dict[str, Any]:
    """The content of config.yaml: every setting, versions, seed, command, dataset fingerprint."""
    settings = config.model_dump(mode="json")
    return {
        "cryodc_version": version("cryodc"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": request.seed,
        "preset": request.preset,
        "star": str(request.star.resolve()),
        "image_folders": [str(folder.resolve()) for folder in image_folders(request)],
        "dataset": {
            "n_particles": len(particles),
            "box_size": particles.box_size,
            "spacing_angstrom": particles.spacing_angstrom,
            "fingerprint": fingerprint(particles),
        },
        "input": {
            "tilt_range": None if request.tilt_range is None else list(request.tilt_range),
            "tilt_ranges": None if request.tilt_ranges_csv is None else str(request.tilt_ranges_csv.resolve()),
            "tilt_axis": request.tilt_axis,
            "invert": request.invert,
        },
        "model": settings["model"],
        "loss": settings["loss"],
        "views": settings["views"],
        "training": settings["optimisation"],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")},
        },
    }


def fingerprint(particles: ParticleSet) -> str:
    """SHA-256 over names, image sizes and spacing: whether a set is the one a run was trained on."""
    digest = hashlib.sha256()
    digest.update(f"{particles.box_size} {particles.spacing_angstrom}\n".encode())
    sizes: dict[Path, int] = {}
    for name, image in zip(particles.names, particles.images, strict=True):
        if image.path not in sizes:
            sizes[image.path] = image.path.stat().st_size
        digest.update(f"{name} {sizes[image.path]}\n".encode())
    return digest.hexdigest()


def read_overrides(path: Path | None) -> dict[str, dict[str, Any]]:
    """Settings from a YAML file with sections model, loss, views and training; none for no file.

    Raises
    ------
    InputError
        If it is no YAML, or holds anything but these sections.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError("this is not YAML", file=path, found=str(error).splitlines()[0]) from error
    sections = {"model", "loss", "views", "training"}
    if not isinstance(content, dict) or not set(content) <= sections:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            "unknown section",
            file=path,
            expected=", ".join(sorted(sections)),
            found=found,
            remedy="copy these sections from the config.yaml of a run",
        )
    content["optimisation"] = content.pop("training", {})
    return {section: dict(values) for section, values in content.items()}


def _settings(request: TrainRequest, box_size: int) -> TrainConfig:
    try:
        return preset_config(request.preset, box_size, request.overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"setting {name}: {first['msg'][0].lower()}{first['msg'][1:]}",
            found=str(first.get("input")),
            remedy="see `cryodc train --help` for the range of every setting",
        ) from error


def _require_same(run: RunFolder, described: dict[str, Any]) -> None:
    begun = load_config(run)
    for section in ("dataset", "input", "model", "loss", "views", "training", "seed"):
        if begun[section] != described[section]:
            raise InputError(
                f"this run began with another {section}",
                file=run.config,
                expected=str(begun[section]),
                found=str(described[section]),
                remedy="resume with the command it began with: " + begun["command"],
            )
