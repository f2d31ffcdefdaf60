"""Train a run: from a STAR file to a run folder with a model and the codes of every particle."""

import hashlib
import platform
import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cryodc.codes import Codes
from cryodc.dataset import (
    Dataset,
    image_dataset,
    read_recipe,
)
from cryodc.device import Team, choose_device, join_team, wait_for_all
from cryodc.errors import InputError
from cryodc.io import ImageFinder
from cryodc.models import Preset, TrainConfig
from cryodc.particles import ParticleSet, holds_images, read_image_particles, read_images, read_particles
from cryodc.runs import RunFolder, load_config, open_run_dataset, save_codes, save_config, writing
from cryodc.star import read_star, write_star
from cryodc.templates import add_template_code
from cryodc.training.encode import encode_particles
from cryodc.training.loop import Listener, train
from cryodc.training.settings import checked_config


@dataclass(frozen=True)
class TrainRequest:
    """What a user asks of ``cryodc train``.

    Parameters
    ----------
    star
        Particles, read-only: subtomograms, or the 2D images of single particles.
    out
        The run folder to make.
    preset, overrides
        Settings, see :func:`cryodc.models.presets.preset_config`.
    data_dir
        Where images are looked for after the current folder and the STAR's.
    tilt_range, tilt_ranges_csv, tilt_axis, invert
        See :class:`cryodc.dataset.reading.InputOptions`.
    packed
        Read particles from a pack; otherwise all are held in memory.
    pack
        One of these particles, made with the same options; by default one is made in the run folder.
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
    packed: bool = True
    pack: Path | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False


@dataclass(frozen=True)
class Prepared:
    """A run about to be trained: checked, read, and its folder begun."""

    run: RunFolder
    dataset: Dataset
    config: TrainConfig


def prepare_run(request: TrainRequest, team: Team | None = None, listener: Listener | None = None) -> Prepared:
    """Check everything that can be checked, read or pack the particles, and begin the run folder.

    Parameters
    ----------
    request
        What the user asks.
    team
        The processes training together: only its leader writes files.
    listener
        Hears of packing.

    Raises
    ------
    InputError
        If the STAR or an image is bad, a setting is out of range, the folder holds another run, the pack is none of
        these particles, or, on resume, the particles or settings are not the ones the run began with.
    """
    team, listener = team or Team(0, 1), listener or Listener()
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
    document = read_star(request.star)
    flat = holds_images(document)
    if flat:
        request = _without_wedge(request)
        particles = read_image_particles(document, ImageFinder.beside(request.star, request.data_dir))
    else:
        particles = read_particles(request.star, data_dir=request.data_dir)
    pack = describe_pack(request, particles)
    config = checked_config(request.preset, particles.box_size if pack is None else pack["box_size"], request.overrides)
    dims, channels = config.model.dims, config.model.channels
    if (dims, channels) != (2 if flat else 3, 1):
        raise InputError(
            f"these settings are for {'volumes' if dims == 3 else 'images' if channels == 1 else 'images in colour'}",
            file=request.star,
            expected=f"model.dims {2 if flat else 3}, model.channels 1",
            found=f"model.dims {dims}, model.channels {channels}, preset {request.preset}",
            remedy="choose another --preset, or leave model.dims and model.channels out",
        )
    described = describe_run(request, particles, config, pack)
    if request.resume:
        _require_same(run, described)
    dataset: Dataset
    if flat:
        images = read_images(particles)
        dataset = image_dataset(-images if request.invert else images, particles.names, particles.source)
    else:
        dataset = open_run_dataset(run, particles, described, team, listener.on_pack)
    # A process that looks after this whether the folder holds a run would find its own.
    wait_for_all(team)
    if team.leads and not request.resume:
        write_star(document, run.particles)
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
        As :func:`prepare_run` and :func:`cryodc.training.loop.train`; or if another process writes into the folder.
    """
    device = choose_device(request.device)
    with join_team(device) as team, writing(RunFolder(request.out), "train") if team.leads else nullcontext():
        prepared = prepare_run(request, team, listener)
        return prepared.run, fit_run(prepared, request, device, team, listener)


def fit_run(
    prepared: Prepared,
    request: TrainRequest,
    device: torch.device,
    team: Team,
    listener: Listener | None = None,
) -> Codes:
    """Train a prepared run, encode every particle, and match it with templates learned from them."""
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
        config, tell = prepared.config.templates, None if listener is None else listener.on_templates
        codes = add_template_code(prepared.run, prepared.dataset, codes, config, request.seed, device, tell)
        save_codes(prepared.run, codes)
    wait_for_all(team)
    return codes


def _without_wedge(request: TrainRequest) -> TrainRequest:
    """The request for images, which are held in memory and miss nothing."""
    if request.tilt_range is not None or request.tilt_ranges_csv is not None or request.pack is not None:
        raise InputError(
            "these particles are 2D images: they have neither a tilt range nor a pack",
            file=request.star,
            remedy="leave --tilt-range, --tilt-ranges and --pack out",
        )
    overrides = request.overrides or {}
    model = {"dims": 2, **overrides.get("model", {})}
    return replace(request, packed=False, overrides={**overrides, "model": model})


def describe_pack(request: TrainRequest, particles: ParticleSet) -> dict[str, Any] | None:
    """The ``pack`` section of config.yaml: where the pack is, in the run folder or elsewhere; None without one."""
    if not request.packed:
        return None
    path, box_size, dtype = RunFolder(request.out).pack.name, particles.box_size, "float32"
    if request.pack is not None:
        made = read_recipe(request.pack)
        path, box_size, dtype = str(request.pack.resolve()), made.box_size, made.dtype
    spacing = particles.spacing_angstrom * particles.box_size / box_size
    return {"path": path, "box_size": box_size, "spacing_angstrom": spacing, "dtype": dtype}


def describe_run(
    request: TrainRequest, particles: ParticleSet, config: TrainConfig, pack: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of config.yaml: every setting, versions, seed, command, dataset fingerprint, and the pack."""
    settings = config.model_dump(mode="json")
    folders = [Path.cwd(), request.star.parent, *([] if request.data_dir is None else [request.data_dir])]
    return {
        "cryodc_version": version("cryodc"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": request.seed,
        "preset": request.preset,
        "star": str(request.star.resolve()),
        "image_folders": [str(folder.resolve()) for folder in folders],
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
        "pack": pack,
        "model": settings["model"],
        "loss": settings["loss"],
        "views": settings["views"],
        "optimisation": settings["optimisation"],
        # Images have none.
        **({"templates": settings["templates"]} if config.model.dims == 3 else {}),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")},
        },
    }


def fingerprint(particles: ParticleSet) -> str:
    """SHA-256 over names, image sizes and spacing: whether a set is the one a run was trained on."""
    digest = hashlib.sha256()
    digest.update(f"{particles.box_size} {particles.spacing_angstrom}\n".encode())
    sizes: dict[str, int] = {}
    for name, image in zip(particles.names, particles.images, strict=True):
        if image.file not in sizes:
            sizes[image.file] = image.path.stat().st_size
        digest.update(f"{name} {sizes[image.file]}\n".encode())
    return digest.hexdigest()


def _require_same(run: RunFolder, described: dict[str, Any]) -> None:
    stored = load_config(run)
    begun = _with_defaults(stored)
    # A run of before there were templates has no such section, and images never have.
    sections = [s for s in ("dataset", "input", *TrainConfig.model_fields, "seed") if s in described and s in stored]
    pairs = {"pack": (_voxels(begun), _voxels(described))} | {s: (begun[s], described[s]) for s in sections}
    for section, (expected, found) in pairs.items():
        if expected != found:
            raise InputError(
                f"this run began with another {section}",
                file=run.config,
                expected=str(expected),
                found=str(found),
                remedy="resume with the command it began with: " + begun["command"],
            )


def _with_defaults(described: dict[str, Any]) -> dict[str, Any]:
    """Settings that a run of an earlier version does not name are those of today's defaults."""
    sections = {section: described[section] for section in TrainConfig.model_fields if section in described}
    return described | TrainConfig.model_validate(sections).model_dump(mode="json")


def _voxels(described: dict[str, Any]) -> str:
    """What training sees of each particle; where it is read from does not matter."""
    pack = described.get("pack") or {"box_size": described["dataset"]["box_size"], "dtype": "float32"}
    return f"box {pack['box_size']}, {pack['dtype']}"
