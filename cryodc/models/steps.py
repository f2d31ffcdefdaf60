"""What a training step is, and what the objectives share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.dataset import View, random_view, recorded_view
from cryodc.models.base import Model
from cryodc.models.config import TrainConfig


class Found(NamedTuple):
    """What templates found of the particles of a step.

    Parameters
    ----------
    groups
        Of each particle; -1 where it is undecided.
    rotations
        Of each, from the common frame of all groups.
    averages
        Of each particle's group, as the particle lies, with nothing missing, in units of its grey values.
    """

    groups: Int[Tensor, " b"]
    rotations: Float[Tensor, "b 3 3"]
    averages: Float[Tensor, "b d h w"]


class Batch(NamedTuple):
    """Particles of one step.

    Parameters
    ----------
    images
        Standardised: ``(b, d, h, w)``; ``(b, h, w)`` or ``(b, ch, h, w)`` in 2D.
    weights
        Of each, or None in 2D.
    mask
        That views are seen through.
    epoch, step
        0-based.
    found
        What templates found of them, where there are some.
    """

    images: Float[Tensor, "b *image"]
    weights: Float[Tensor, "b d h hw"] | None
    mask: Float[Tensor, "*space"]
    epoch: int
    step: int
    found: Found | None = None


class Step(NamedTuple):
    """One descent: of which part of the model (:meth:`cryodc.models.base.Model.parts`), on what, and its terms."""

    part: str
    loss: Tensor
    terms: dict[str, Tensor]


class Objective(NamedTuple):
    """The terms a model is trained on, as log.csv names them, and its steps for a batch.

    The weights are stepped between one step that ``steps`` yields and the next.
    """

    terms: tuple[str, ...]
    steps: Callable[[Model, Batch, TrainConfig, torch.Generator], Iterator[Step]]


def draw_views(batch: Batch, config: TrainConfig, generator: torch.Generator) -> tuple[View, View]:
    """The two views of every particle that are compared."""
    second = random_view(batch.images, batch.weights, batch.mask, config.views, generator)
    if config.views.rotate_both:
        return random_view(batch.images, batch.weights, batch.mask, config.views, generator), second
    return recorded_view(batch.images, batch.weights, batch.mask, config.views), second


def beta(config: TrainConfig, epoch: int) -> float:
    """Weight of the KL divergences in an epoch (0-based), per voxel."""
    return kl_weight(config, epoch) / config.model.n_values


def transformation_beta(config: TrainConfig, epoch: int) -> float:
    """β of the transformation code of DualContrast, which may have a weight of its own."""
    own = config.loss.transformation_kl_weight
    return beta(config, epoch) if own is None else own * _risen(config, epoch) / config.model.n_values


def kl_weight(config: TrainConfig, epoch: int) -> float:
    """The configured weight, as far as it has risen."""
    return config.loss.kl_weight * _risen(config, epoch)


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """The precision that networks run in."""
    enabled = config.optimisation.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def _risen(config: TrainConfig, epoch: int) -> float:
    warm_up = config.loss.kl_warm_up_epochs
    return 1.0 if warm_up == 0 else min(1.0, epoch / warm_up)
