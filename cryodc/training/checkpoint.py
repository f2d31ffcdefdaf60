"""The state of a training run, and its checkpoints."""

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cryodc.errors import InputError
from cryodc.io import atomic_path
from cryodc.models import Model, TrainConfig, build_model

# What a checkpoint calls the optimiser of each part of a model.
_KEYS = {"all": "optimiser", "encoder": "encoder_optimiser"}


@dataclass
class TrainingState:
    """Everything a killed run needs to go on to the same losses; random numbers follow from seed and epoch.

    Parameters
    ----------
    model
        In training.
    optimisers, schedulers
        One for each part of the model, by name.
    average
        The running mean of the model's weights, if one is kept.
    epoch, log
        Epochs done, the lowest total of any, and a line for each.
    """

    model: Model
    optimisers: dict[str, torch.optim.Optimizer]
    schedulers: dict[str, LambdaLR]
    average: AveragedModel | None = None
    epoch: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    @property
    def encoding_model(self) -> Model:
        """The model that particles are encoded with."""
        return self.model if self.average is None else cast(Model, self.average.module)

    def update_average(self) -> None:
        """Move the running mean, if one is kept, towards the present weights."""
        if self.average is not None:
            self.average.update_parameters(self.model)


def start_state(config: TrainConfig, n_steps: int, seed: int, device: torch.device) -> TrainingState:
    """A fresh model and the optimisers of its parts.

    Parameters
    ----------
    config
        Settings.
    n_steps
        Batches of an epoch.
    seed
        Of the weights.
    device
        Where the model lies.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config.model)
    model = model.to(device)
    optimisation = config.optimisation
    settings: dict[str, Any] = {"lr": optimisation.learning_rate, "weight_decay": optimisation.weight_decay}
    optimisers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.AdamW(part.parameters(), **settings) for name, part in model.parts().items()
    }
    rate = _schedule(config, n_steps)
    schedulers = {name: LambdaLR(optimiser, rate) for name, optimiser in optimisers.items()}
    average = None
    if optimisation.ema_decay is not None:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(optimisation.ema_decay))
        # The first update copies: the mean begins at the weights before the first step.
        average.update_parameters(model)
    return TrainingState(model, optimisers, schedulers, average)


def save_checkpoint(path: Path, state: TrainingState, config: TrainConfig) -> None:
    """Write a checkpoint atomically: a full disk leaves the previous one untouched."""
    content = {
        "config": config.model_dump(),
        "model": state.model.state_dict(),
        "average": None if state.average is None else state.average.module.state_dict(),
        **{_KEYS[name]: optimiser.state_dict() for name, optimiser in state.optimisers.items()},
        "schedulers": [scheduler.state_dict() for scheduler in state.schedulers.values()],
        "epoch": state.epoch,
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
    with _of_this_shape(path):
        state.model.load_state_dict(content["model"])
        if state.average is not None:
            state.average.module.load_state_dict(content["average"])
        for name, optimiser in state.optimisers.items():
            optimiser.load_state_dict(content[_KEYS[name]])
        for scheduler, saved in zip(state.schedulers.values(), content["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        state.epoch, state.log = content["epoch"], content["log"]


def load_model(path: Path, device: torch.device | None = None) -> tuple[Model, TrainConfig]:
    """A trained model and its settings, from a checkpoint; with averaged weights if the run kept an average.

    Raises
    ------
    InputError
        If there is no checkpoint, or it is damaged or of another version.
    """
    device = device or torch.device("cpu")
    content = _read_checkpoint(path, device)
    with _of_this_shape(path):
        config = TrainConfig.model_validate(content["config"])
        model = build_model(config.model)
        model.load_state_dict(content["average"] if content.get("average") is not None else content["model"])
    return model.to(device).eval(), config


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    if not path.is_file():
        raise InputError("no checkpoint", file=path, remedy="put it back, or train anew in another --out")
    try:
        # torch itself does not compare checksums.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"the checksum of {broken} is another")
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    # What a damaged archive raises is up to zipfile, pickle and torch.
    except Exception as error:
        raise InputError(
            "this checkpoint cannot be read",
            file=path,
            found=next(iter(str(error).splitlines()), type(error).__name__),
            remedy="put it back, or train anew in another --out",
        ) from error
    return content


@contextmanager
def _of_this_shape(path: Path) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            "this checkpoint belongs to a model of another shape",
            file=path,
            found=next(iter(str(error).splitlines()), type(error).__name__),
            remedy="resume with the settings the run began with",
        ) from error


def _schedule(config: TrainConfig, n_steps: int) -> Callable[[int], float]:
    optimisation = config.optimisation
    if optimisation.schedule == "constant":
        return lambda step: 1.0
    if optimisation.schedule == "step":
        return lambda step: 0.1 ** (step // n_steps // 50)
    total, warm_up = optimisation.epochs * n_steps, max(1, min(n_steps, 50))
    return lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * min(step / total, 1.0)))
