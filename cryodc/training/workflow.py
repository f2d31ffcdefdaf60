"""Train a run: from a STAR file to a run folder with a model and the codes of every particle."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch

from cryodc.codes import Codes
from cryodc.dataset import Dataset, image_dataset
from cryodc.device import Team, by_leader, choose_device, join_team, sharing, wait_for_all
from cryodc.dry_run import Forecast, declare, particle_bytes
from cryodc.errors import InputError
from cryodc.io import ImageFinder
from cryodc.models import TrainConfig
from cryodc.particles import holds_images, read_image_particles, read_images, read_particles
from cryodc.runs import RunFolder, load_codes, open_run_dataset, save_codes, save_config, writing
from cryodc.star import read_star, write_star
from cryodc.templates import add_template_code, forget_steps, found_pairs, load_template_decoder
from cryodc.training.description import describe_pack, describe_run
from cryodc.training.encode import encode_particles
from cryodc.training.loop import Listener, train
from cryodc.training.request import TrainRequest
from cryodc.training.resume import (
    require_free,
    require_run,
    require_same,
    settings_to_resume,
    with_later_settings,
)
from cryodc.training.settings import checked_config


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
    if request.resume:
        require_run(run)
        request = replace(request, overrides=settings_to_resume(run, request))
    else:
        require_free(run)
    document = read_star(request.star)
    flat = holds_images(document)
    if flat:
        request = _without_wedge(request)
        particles = read_image_particles(document, ImageFinder.beside(request.star, request.data_dir))
    else:
        particles = read_particles(request.star, data_dir=request.data_dir)
    if particles.weight_images is not None and (request.tilt_range or request.tilt_ranges_csv):
        listener.on_note("the STAR names weight volumes: the tilt range is not used")
    pack = describe_pack(request, particles)
    box_size = particles.box_size if pack is None else pack["box_size"]
    config = checked_config(request.preset, box_size, request.overrides, len(particles))
    dims, channels = config.model.dims, config.model.channels
    if (dims, channels) != (2 if flat else 3, 1):
        raise InputError(
            f"these settings are for {'volumes' if dims == 3 else 'images' if channels == 1 else 'images in colour'}",
            file=request.star,
            expected=f"model.dims {2 if flat else 3}, model.channels 1",
            found=f"model.dims {dims}, model.channels {channels}, preset {request.preset}",
            remedy="choose another --preset, or leave model.dims and model.channels out",
        )
    if config.optimisation.epochs == 0:
        _require_templates(request, config, len(particles))
    described = describe_run(request, particles, config, pack)
    if request.resume:
        require_same(run, described)
    declare(_plan(run, config, len(particles), particles.box_size))
    dataset: Dataset
    if flat:
        images = read_images(particles)
        dataset = image_dataset(-images if request.invert else images, particles.names, particles.source)
    else:
        dataset = open_run_dataset(run, particles, described, team, listener.on_pack)
    # A process that looks after this whether the folder holds a run would find its own.
    wait_for_all(team)
    if team.leads:
        # First what says that this folder is a run.
        save_config(run, with_later_settings(run, described) if request.resume else described)
        if not (request.resume and run.particles.exists()):
            write_star(document, run.particles)
    return Prepared(run, dataset, config)


def _require_templates(request: TrainRequest, config: TrainConfig, n_particles: int) -> None:
    """Refuse to train no network where templates alone would give no codes."""
    if config.model.dims == 2 or config.templates.n_templates < 2:
        raise InputError(
            "without a network there would be no codes: these settings learn no templates",
            file=request.star,
            expected="subtomograms, and a preset and model that learn templates",
            found=f"model {config.model.name}, dims {config.model.dims}, {config.templates.n_templates} templates",
            remedy="leave --no-network out",
        )
    fewest = 2 * config.templates.particles_per_template
    if config.templates.n_of(n_particles) == 0:
        raise InputError(
            "too few particles for templates, and no network is to be trained",
            file=request.star,
            expected=f"at least {fewest}",
            found=str(min(n_particles, config.templates.n_particles)),
            remedy="leave --no-network out",
        )


def _plan(run: RunFolder, config: TrainConfig, n_particles: int, box_size: int) -> Forecast:
    box, epochs, views = (box_size,) * config.model.dims, config.optimisation.epochs, config.optimisation.encoding_views
    work = {"step": n_particles * epochs, "code": n_particles * views if epochs else 0}
    n_bytes = 4.0 * n_particles * box_size**2
    if config.model.dims == 3:
        n_bytes = particle_bytes(n_particles, box_size)
        work["templates"] = n_particles if config.templates.n_templates else 0
    told = f"{n_particles} particles of box {box_size}"
    return Forecast(run.path, told, n_bytes, n_bytes, box, work, 40 * config.optimisation.batch_size)


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
    """Learn templates of a prepared run and match every particle with them; then train the network and encode.

    Templates do not depend on the network, so they come first: what is clustered is there when the network begins.
    Processes of a team share the particles that are matched, and train one network.

    Parameters
    ----------
    prepared
        The run, checked and begun.
    request
        What the user asks.
    device
        Where to compute.
    team
        The processes that train together.
    listener
        Hears of progress.
    """
    hears, config, run = listener or Listener(), prepared.config, prepared.run
    with sharing(team):
        codes = _template_codes(prepared, request, device, hears if team.leads else Listener())
    if config.optimisation.epochs:
        # Read back by every process of a team.
        decoder = load_template_decoder(run, device)
        pairs = None if decoder is None else found_pairs(decoder, load_codes(run))
        model = train(
            prepared.dataset,
            config,
            run,
            seed=request.seed,
            device=device,
            team=team,
            resume=request.resume,
            listener=listener,
            pairs=pairs,
        )
        n_views = config.optimisation.encoding_views
        of_network = encode_particles(model, prepared.dataset, config.views, n_views=n_views, seed=request.seed)
        codes = replace(of_network, template_content=codes.template_content, template_pose=codes.template_pose)
        if team.leads:
            save_codes(run, codes)
    if team.leads:
        # Not before: where training is stopped in the network, templates have not to be learned again.
        forget_steps(run)
    wait_for_all(team)
    return codes


def _template_codes(prepared: Prepared, request: TrainRequest, device: torch.device, hears: Listener) -> Codes:
    """Codes made of templates alone, kept in the run where there are any.

    Raises
    ------
    InputError
        If there are none and no network will be trained.
    """
    config, reasons = prepared.config, list[str]()
    codes = add_template_code(
        prepared.run,
        prepared.dataset,
        Codes.of_no_network(prepared.dataset.names),
        config.templates,
        request.seed,
        device,
        progress=hears.on_templates,
        warn=reasons.append,
    )
    if codes.template_content is not None:
        # Whatever becomes of the network, what templates tell is kept.
        by_leader(lambda: save_codes(prepared.run, codes))
    elif config.optimisation.epochs == 0:
        raise InputError(
            "no templates could be learned, and no network is to be trained",
            file=request.star,
            found="; ".join(reasons),
            remedy="go on with the network: --resume --epochs 20",
        )
    for reason in reasons:
        hears.on_warning(reason)
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
