"""The state of a training run, and its checkpoints."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from cryodc.config import TrainConfig
from cryodc.errors import InputError
from cryodc.io.run import atomic_path
from cryodc.models.dualcontrast import DualContrast


@dataclass
class TrainingState:
    """Everything a killed run needs to go on to the same losses; random numbers follow from seed and epoch."""

    model: DualContrast
    optimiser: torch.optim.Optimizer
    encoder_optimiser: torch.optim.Optimizer
    schedulers: tuple[LambdaLR, LambdaLR]
    epoch: int = 0
    best_total: float = math.inf
    log: list[dict[str, float]] = field(default_factory=list)


def start_state(config: TrainConfig, n_steps: int, seed: int, device: torch.device) -> TrainingState:
    """A fresh model and its two optimisers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DualContrast(config.model)
    model = model.to(device)
    optimisation = config.optimisation
    settings: dict[str, Any] = {"lr": optimisation.learning_rate, "weight_decay": optimisation.weight_decay}
    optimiser = torch.optim.AdamW(model.parameters(), **settings)
    encoder_optimiser = torch.optim.AdamW(model.encoder.parameters(), **settings)
    rate = _schedule(config, n_steps)
    schedulers = (LambdaLR(optimiser, rate), LambdaLR(encoder_optimiser, rate))
    return TrainingState(model, optimiser, encoder_optimiser, schedulers)


def save_checkpoint(path: Path, state: TrainingState, config: TrainConfig) -> None:
    """Write a checkpoint atomically: a full disk leaves the previous one untouched."""
    content = {
        "config": config.model_dump(),
        "model": state.model.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "encoder_optimiser": state.encoder_optimiser.state_dict(),
        "schedulers": [scheduler.state_dict() for scheduler in state.schedulers],
        "epoch": state.epoch,
        "best_total": state.best_total,
        "log": state.log,
    }
    # torch.save hides a full disk behind a RuntimeError; a plain write raises OSError.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, state: TrainingState, device: torch.device) -> None:
    """Put a checkpoint's content into a state.

    Raises
    ------
    InputError
        If there is no checkpoint, or it is damaged or of another model.
    """
    content = _read_checkpoint(path, device)
    try:
        state.model.load_state_dict(content["model"])
        state.optimiser.load_state_dict(content["optimiser"])
        state.encoder_optimiser.load_state_dict(content["encoder_optimiser"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            "this checkpoint belongs to a model of another shape",
            file=path,
            remedy="resume with the settings the run began with",
        ) from error
    for scheduler, saved in zip(state.schedulers, content["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    state.epoch, state.best_total, state.log = content["epoch"], content["best_total"], content["log"]


def load_model(path: Path, device: torch.device | None = None) -> tuple[DualContrast, TrainConfig]:
    """A trained model and its settings, from a checkpoint.

    Raises
    ------
    InputError
        If there is no checkpoint, or it is damaged.
    """
    device = device or torch.device("cpu")
    content = _read_checkpoint(path, device)
    config = TrainConfig.model_validate(content["config"])
    model = DualContrast(config.model)
    model.load_state_dict(content["model"])
    return model.to(device).eval(), config


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    if not path.is_file():
        raise InputError("no checkpoint", file=path, remedy="train without --resume")
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise InputError("this checkpoint cannot be read", file=path, found=str(error).splitlines()[0]) from error
    return content


def _schedule(config: TrainConfig, n_steps: int) -> Callable[[int], float]:
    optimisation = config.optimisation
    if optimisation.schedule == "step":
        return lambda step: 0.1 ** (step // n_steps // 50)
    total, warm_up = optimisation.epochs * n_steps, max(1, min(n_steps, 50))
    return lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * min(step / total, 1.0)))
