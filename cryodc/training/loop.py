"""Train a model: the steps of its objective for each batch, checkpoints, a log line per epoch."""

import csv
import io
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cryodc.dataset import Dataset, at_box, mask_of_views
from cryodc.device import Team, average_gradients, average_number
from cryodc.errors import InputError
from cryodc.io import write_text
from cryodc.models import OBJECTIVES, Batch, Model, ModelName, Step, TrainConfig
from cryodc.runs import RunFolder
from cryodc.templates import FoundPairs
from cryodc.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint, start_state


def log_columns(name: ModelName) -> tuple[str, ...]:
    """The columns of log.csv for a model."""
    return ("epoch", "seconds", "total", *OBJECTIVES[name].terms, "learning_rate")


@dataclass(frozen=True)
class Listener:
    """What a caller wants to hear.

    Particles packed and in all; done and in all at the start; each batch and epoch; steps towards templates; what to
    know of the request; what was left out, and why.
    """

    on_pack: Callable[[int, int], None] = lambda n_particles, n_total: None
    on_start: Callable[[int, int], None] = lambda n_done, n_total: None
    on_batch: Callable[[int], None] = lambda n_particles: None
    on_epoch: Callable[[dict[str, float]], None] = lambda line: None
    on_templates: Callable[[str], None] = lambda text: None
    on_note: Callable[[str], None] = lambda text: None
    on_warning: Callable[[str], None] = lambda text: None


def train(
    dataset: Dataset,
    config: TrainConfig,
    run: RunFolder,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    team: Team | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    pairs: FoundPairs | None = None,
) -> Model:
    """Train to the configured number of epochs, writing log.csv and checkpoints into a run folder.

    Parameters
    ----------
    dataset
        At least two particles: :class:`cryodc.dataset.dataset.SubtomogramDataset` or
        :class:`cryodc.dataset.images.ImageDataset`.
    config
        Settings; a resumed run must be given the ones it began with.
    run
        Where log.csv and checkpoints/ are written.
    seed
        Fixes initial weights, order, views and noise: same seed and machine, same result.
    device
        CPU if not given.
    team
        The processes training together.
    resume
        Go on from checkpoints/last.pt; from the beginning where no epoch was finished.
    listener
        Hears of progress.
    pairs
        What templates found of the particles.

    Returns
    -------
    The trained model, on ``device``, in evaluation mode; its averaged weights, if an average was kept.

    Raises
    ------
    InputError
        If there are fewer than two particles, they are not of the shape the model takes, the loss is no longer
        finite, the checkpoint to resume from is lost, damaged or of more epochs, or the run folder cannot be written.
    """
    device = device or torch.device("cpu")
    team = team or Team(0, 1)
    listener = listener or Listener()
    _require_fit(dataset, config, team)
    state = start_state(config, n_batches(len(dataset), config, team), seed, device)
    # A run that was stopped in its first epoch has finished none, and begins again.
    last = run.checkpoints / "last.pt"
    if resume and (last.exists() or run.log.exists()):
        load_checkpoint(last, state, device)
        _require_left(state.epoch, config.optimisation.epochs, run)
    dataset, views = at_box(dataset, config.views, config.model.box_size)
    seen = config.model_copy(update={"views": views})
    share = len(dataset) // team.size
    listener.on_start(state.epoch * share, config.optimisation.epochs * share)
    mask = mask_of_views(views, dataset.box_size, device, dataset.dims)
    while state.epoch < config.optimisation.epochs:
        began = time.monotonic()
        terms = train_epoch(state, dataset, seen, mask, seed, team, listener.on_batch, pairs)
        state.epoch += 1
        line = {"epoch": state.epoch, "seconds": round(time.monotonic() - began, 3), **terms}
        state.log.append(line)
        if team.leads:
            save_checkpoint(run.checkpoints / "last.pt", state, config)
            write_log(run.log, state.log, log_columns(config.model.name))
        listener.on_epoch(line)
    return state.encoding_model.eval()


def train_epoch(
    state: TrainingState,
    dataset: Dataset,
    config: TrainConfig,
    mask: Tensor,
    seed: int,
    team: Team,
    on_batch: Callable[[int], None],
    pairs: FoundPairs | None = None,
) -> dict[str, float]:
    """One pass over the particles; mean of each loss term over the batches.

    Parameters
    ----------
    state
        Model and optimisers, changed in place.
    dataset
        Particles.
    config
        Settings.
    mask
        What views are seen through.
    seed
        Of everything random.
    team
        The processes that train together.
    on_batch
        Called with the number of particles of each batch.
    pairs
        What templates found of the particles.
    """
    device = mask.device
    generator = torch.Generator(device).manual_seed(_mix(seed, state.epoch, team.rank))
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(_mix(seed, state.epoch, -1)))
    objective = OBJECTIVES[config.model.name]
    # Summed where they are: to read a number is to wait for the device.
    sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in ("total", *objective.terms)}
    counts = Counter[str]()
    rate = state.optimisers["all"].param_groups[0]["lr"]
    state.model.train()
    batches = _batches(order[team.rank :: team.size], n_batches(len(dataset), config, team))
    for i, (images, weights) in enumerate(dataset.batches(batches)):
        found = None if pairs is None else pairs.of(batches[i], mask.shape[0])
        weights = None if weights is None else _to(weights, device)
        batch = Batch(_to(images, device), weights, mask, state.epoch, i, found)
        for step in objective.steps(state.model, batch, config, generator):
            _descend(step, state, team)
            sums["total"] += step.loss.detach()
            for name, value in step.terms.items():
                sums[name] += value.detach()
                counts[name] += 1
        for name, scheduler in state.schedulers.items():
            # One that has no part in these steps has no rate to change.
            if state.optimisers[name].state:
                scheduler.step()
        state.update_average()
        on_batch(len(images))
    if not math.isfinite(float(sums["total"])):
        raise InputError(
            f"the loss is no longer finite in epoch {state.epoch + 1}",
            remedy="lower --learning-rate, or look for extreme voxels with `cryodc check`",
        )
    counts["total"] = len(batches)
    # A term that is not part of these steps is 0.
    means = {name: average_number(float(sums[name]) / max(counts[name], 1), team) for name in sums}
    return means | {"learning_rate": rate}


def n_batches(n_particles: int, config: TrainConfig, team: Team) -> int:
    """Batches per epoch of each process: every particle is seen, batches differ by at most one particle."""
    share = n_particles // team.size
    # No batch may hold a single particle: it would have nothing to be contrasted with.
    return max(1, min(math.ceil(share / config.optimisation.batch_size), share // 2))


def write_log(path: Path, log: list[dict[str, float]], columns: tuple[str, ...]) -> None:
    """Write log.csv: one line per epoch."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    write_text(path, buffer.getvalue())


def _require_fit(dataset: Dataset, config: TrainConfig, team: Team) -> None:
    if len(dataset) < 2 * team.size:
        raise InputError(
            "too few particles to contrast",
            file=dataset.source,
            expected=f"at least {2 * team.size}",
            found=str(len(dataset)),
        )
    model = config.model
    expected = (model.dims, model.channels, model.box_size)
    found = (dataset.dims, dataset.n_channels, dataset.box_size)
    cropped = model.dims == 3 and model.box_size < dataset.box_size
    if found[:2] != expected[:2] or (found != expected and not cropped):
        raise InputError(
            "these particles are not of the shape the model takes",
            file=dataset.source,
            expected="dims {}, channels {}, box {}".format(*expected),
            found="dims {}, channels {}, box {}".format(*found),
            remedy="set dims, channels and box_size of the section model; volumes may have a larger box",
        )


def _require_left(n_done: int, n_epochs: int, run: RunFolder) -> None:
    if n_epochs < n_done:
        raise InputError(
            "this run has been trained for more epochs than that",
            file=run.log,
            expected=f"--epochs {n_done} or more",
            found=f"--epochs {n_epochs}",
            remedy="leave --epochs out to go on with what it has",
        )


def _descend(step: Step, state: TrainingState, team: Team) -> None:
    state.model.zero_grad(set_to_none=True)
    step.loss.backward()
    average_gradients(state.model.parameters(), team)
    state.optimisers[step.part].step()


def _to(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, non_blocking=True)


def _batches(order: Tensor, n_batches: int) -> list[Tensor]:
    """Split into batches whose sizes differ by at most one."""
    return list(torch.tensor_split(order, n_batches))


def _mix(seed: int, epoch: int, rank: int) -> int:
    return (seed * 1_000_003 + epoch * 1_009 + rank + 1) % 2**63
