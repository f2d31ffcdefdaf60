"""Train DualContrast: two alternating steps per batch, checkpoints, a log line per epoch.

Step A minimises both ELBOs, the content contrast and the transformation negatives over all parameters. Step B
minimises the transformation positives over the encoder alone, decoder frozen, with an optimiser of its own:
Adam is scale-invariant, so folded into step A that small term would all but vanish.
"""

import csv
import io
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from cryodc.checkpoint import TrainingState, load_checkpoint, save_checkpoint, start_state
from cryodc.config import TrainConfig
from cryodc.data.dataset import SubtomogramDataset
from cryodc.data.views import View, add_noise, random_low_pass, random_view, recorded_view, through_mask
from cryodc.distributed import Team, average_gradients, average_number
from cryodc.errors import InputError
from cryodc.io.run import RunFolder, write_text
from cryodc.models import losses
from cryodc.models.dualcontrast import DualContrast, Posterior
from cryodc.ops.filters import view_mask

TERMS = (
    "reconstruction",
    "kl_content",
    "kl_transformation",
    "content",
    "transformation_negative",
    "transformation_positive",
)
COLUMNS = ("epoch", "seconds", "total", *TERMS, "learning_rate")


@dataclass(frozen=True)
class Listener:
    """What a caller wants to hear: particles packed and in all, done and in all at the start, each batch and epoch."""

    on_pack: Callable[[int, int], None] = lambda n_particles, n_total: None
    on_start: Callable[[int, int], None] = lambda n_done, n_total: None
    on_batch: Callable[[int], None] = lambda n_particles: None
    on_epoch: Callable[[dict[str, float]], None] = lambda line: None


def train(
    dataset: SubtomogramDataset,
    config: TrainConfig,
    run: RunFolder,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    team: Team | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> DualContrast:
    """Train to the configured number of epochs, writing log.csv and checkpoints into a run folder.

    Parameters
    ----------
    dataset
        At least two particles.
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
        Go on from checkpoints/last.pt.
    listener
        Hears of progress.

    Returns
    -------
    The trained model, on ``device``, in evaluation mode.

    Raises
    ------
    InputError
        If there are fewer than two particles, the loss is no longer finite, there is nothing to resume from,
        or the run folder cannot be written.
    """
    device = device or torch.device("cpu")
    team = team or Team(0, 1)
    listener = listener or Listener()
    if len(dataset) < 2 * team.size:
        raise InputError(
            "too few particles to contrast",
            file=dataset.particles.source,
            expected=f"at least {2 * team.size}",
            found=str(len(dataset)),
        )
    state = start_state(config, n_batches(len(dataset), config, team), seed, device)
    if resume:
        load_checkpoint(run.checkpoints / "last.pt", state, device)
    share = len(dataset) // team.size
    listener.on_start(state.epoch * share, config.optimisation.epochs * share)
    mask = view_mask(dataset.particles.box_size, device)
    while state.epoch < config.optimisation.epochs:
        began = time.monotonic()
        terms = train_epoch(state, dataset, config, mask, seed, team, listener.on_batch)
        state.epoch += 1
        line = {"epoch": state.epoch, "seconds": round(time.monotonic() - began, 3), **terms}
        state.log.append(line)
        improved = line["total"] < state.best_total
        state.best_total = min(line["total"], state.best_total)
        if team.leads:
            save_checkpoint(run.checkpoints / "last.pt", state, config)
            if improved:
                save_checkpoint(run.checkpoints / "best.pt", state, config)
            write_log(run.log, state.log)
        listener.on_epoch(line)
    return state.model.eval()


def train_epoch(
    state: TrainingState,
    dataset: SubtomogramDataset,
    config: TrainConfig,
    mask: Tensor,
    seed: int,
    team: Team,
    on_batch: Callable[[int], None],
) -> dict[str, float]:
    """One pass over the particles; mean of each loss term over the batches."""
    device = mask.device
    generator = torch.Generator(device).manual_seed(_mix(seed, state.epoch, team.rank))
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(_mix(seed, state.epoch, -1)))
    sums = dict.fromkeys(("total", *TERMS), 0.0)
    steps_b = 0
    rate = state.optimiser.param_groups[0]["lr"]
    state.model.train()
    batches = _batches(order[team.rank :: team.size], n_batches(len(dataset), config, team))
    for step, (volumes, weights) in enumerate(dataset.batches(batches)):
        volumes, weights = volumes.to(device, non_blocking=True), weights.to(device, non_blocking=True)
        first, second = draw_views(volumes, weights, mask, config, generator)

        # Step A: all parameters.
        terms, content = step_a_terms(state.model, first, second, mask, config, generator)
        total = weighted_total(terms, config)
        _descend(total, state.optimiser, state.schedulers[0], state.model, team)

        # Step B: the encoder alone.
        if step % config.optimisation.transformation_every == 0:
            positive = step_b_term(state.model, content, weights, mask, config, generator)
            weighted = config.loss.transformation_weight * positive
            _descend(weighted, state.encoder_optimiser, state.schedulers[1], state.model, team)
            sums["transformation_positive"] += float(positive.detach())
            total = total.detach() + weighted.detach()
            steps_b += 1
        else:
            state.schedulers[1].step()

        sums["total"] += float(total.detach())
        for name, value in terms.items():
            sums[name] += float(value.detach())
        if not math.isfinite(sums["total"]):
            raise InputError(
                f"the loss is no longer finite in epoch {state.epoch + 1}",
                remedy="lower --learning-rate, or look for extreme voxels with `cryodc check`",
            )
        on_batch(len(volumes))
    means = {
        name: value / (steps_b if name == "transformation_positive" else len(batches)) for name, value in sums.items()
    }
    return {name: average_number(value, team) for name, value in means.items()} | {"learning_rate": rate}


def draw_views(
    volumes: Tensor, weights: Tensor, mask: Tensor, config: TrainConfig, generator: torch.Generator
) -> tuple[View, View]:
    """The two views of every particle that are contrasted."""
    second = random_view(volumes, weights, mask, config.views, generator)
    if config.views.rotate_both:
        return random_view(volumes, weights, mask, config.views, generator), second
    return recorded_view(volumes, weights, mask, config.views), second


def step_a_terms(
    model: DualContrast,
    first: View,
    second: View,
    mask: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss terms of step A by name, and the detached content codes of the first view."""
    with _autocast(config, mask.device):
        q_first, q_second = model.encode(first.volumes), model.encode(second.volumes)
        decoded_first, decoded_second = (_decode(model, q, generator) for q in (q_first, q_second))
    terms = {
        "reconstruction": losses.reconstruction(first.target, decoded_first, first.weights, mask)
        + losses.reconstruction(second.target, decoded_second, second.weights, mask),
        "kl_content": losses.kl_divergence(*q_first.content) + losses.kl_divergence(*q_second.content),
        "kl_transformation": losses.kl_divergence(*q_first.transformation)
        + losses.kl_divergence(*q_second.transformation),
        "transformation_negative": losses.transformation_negative(
            q_first.transformation.mean, q_second.transformation.mean, config.loss.similarity
        ),
    }
    c_first, c_second = q_first.content.mean, q_second.content.mean
    if config.loss.content_loss == "infonce":
        terms["content"] = losses.content_infonce(c_first, c_second, config.loss.temperature)
    else:
        partner = losses.derangement(len(c_first), generator)
        terms["content"] = losses.content_contrast(c_first, c_second, partner, config.loss.similarity)
    return terms, c_first.detach()


def weighted_total(terms: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """``L = L_rec + β KL + γ_c L_con(c) + γ_z s(z, z(Rx))``: the objective of step A."""
    loss = config.loss
    beta = loss.kl_weight / config.model.box_size**3
    return (
        loss.reconstruction_weight * terms["reconstruction"]
        + beta * (terms["kl_content"] + terms["kl_transformation"])
        + loss.content_weight * terms["content"]
        + loss.transformation_weight * terms["transformation_negative"]
    )


def step_b_term(
    model: DualContrast,
    content: Tensor,
    weights: Tensor,
    mask: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> Tensor:
    """``mean d( z(p(z*, c_a)), z(p(z*, c_b)) )``: gradients reach the encoder only."""
    shared = torch.randn(len(content), config.model.transformation_dims, generator=generator, device=content.device)
    other = content[losses.derangement(len(content), generator)]
    with torch.no_grad(), _autocast(config, content.device):
        pair = [model.decode(codes, shared) for codes in (content, other)]
        if config.loss.decoded_noise:
            pair = [add_noise(volumes, weights, generator) for volumes in pair]
        pair = [through_mask(random_low_pass(volumes, config.views, generator), mask) for volumes in pair]
    with _autocast(config, content.device):
        z_a, z_b = (model.encoder.encode_transformation(volumes).mean for volumes in pair)
    return losses.transformation_positive(z_a, z_b, config.loss.similarity)


def n_batches(n_particles: int, config: TrainConfig, team: Team) -> int:
    """Batches per epoch of each process: every particle is seen, batches differ by at most one particle."""
    share = n_particles // team.size
    # No batch may hold a single particle: it would have nothing to be contrasted with.
    return max(1, min(math.ceil(share / config.optimisation.batch_size), share // 2))


def write_log(path: Path, log: list[dict[str, float]]) -> None:
    """Write log.csv: one line per epoch."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    write_text(path, buffer.getvalue())


def _decode(model: DualContrast, posterior: Posterior, generator: torch.Generator) -> Tensor:
    return model.decode(posterior.content.sample(generator), posterior.transformation.sample(generator))


def _descend(
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    scheduler: LambdaLR,
    model: DualContrast,
    team: Team,
) -> None:
    model.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(model.parameters(), team)
    optimiser.step()
    scheduler.step()


def _autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    enabled = config.optimisation.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def _batches(order: Tensor, n_batches: int) -> list[Tensor]:
    """Split into batches whose sizes differ by at most one."""
    return list(torch.tensor_split(order, n_batches))


def _mix(seed: int, epoch: int, rank: int) -> int:
    return (seed * 1_000_003 + epoch * 1_009 + rank + 1) % 2**63
