"""Harmony: two views of a particle, each brought to one canonical pose (Uddin et al., CVPR 2022)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cryodc.config import TrainConfig
from cryodc.data.views import View, rotate_weights
from cryodc.models import losses
from cryodc.models.base import Model
from cryodc.models.harmony import Harmony
from cryodc.models.networks import Posterior
from cryodc.objectives.steps import Batch, Objective, Step, autocast, draw_views, kl_weight
from cryodc.ops.rotations import resample
from cryodc.ops.wedge import apply_weight

TERMS = ("reconstruction", "agreement", "kl_content")


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """``γ [ ‖T₁⁻¹ m₁ − x₁‖² + ‖T₂⁻¹ m₂ − x₂‖² + ‖y₁ − y₂‖² ] + KL(q(c|x₁) ‖ q(c|x₂)) / dim``.

    ``y = T x`` is a view in its canonical pose, ``m`` what its content decodes to. As published ``m`` is compared with
    ``y``, which costs nothing where ``T`` shifts the particle out of the box; taken back to the particle's pose the
    distance is the same and the particle is always there. ``m`` is compared under the weight of its view, two
    views under what both have measured.
    """
    if not isinstance(model, Harmony):
        raise TypeError(f"expected a Harmony, found {type(model).__name__}")
    views = draw_views(batch, config, generator)
    with autocast(config, batch.images.device):
        posteriors = [model.encode(view.volumes) for view in views]
        decoded = [model.decode(q.content.sample(generator), q.transformation.mean) for q in posteriors]
    reconstructions = [
        losses.reconstruction(view.target, image, view.weights, batch.mask)
        for view, image in zip(views, decoded, strict=True)
    ]
    aligned = [align(model, view, posterior) for view, posterior in zip(views, posteriors, strict=True)]
    terms = {
        "reconstruction": reconstructions[0] + reconstructions[1],
        "agreement": agreement(aligned[0], aligned[1], batch.mask),
        "kl_content": losses.kl_between(*posteriors[0].content, *posteriors[1].content),
    }
    loss = config.loss.reconstruction_weight * (terms["reconstruction"] + terms["agreement"])
    divergence = terms["kl_content"] / config.model.content_dims
    yield Step("all", loss + kl_weight(config, batch.epoch) * divergence, terms)


OBJECTIVE = Objective(TERMS, steps)

Aligned = tuple[Tensor, Tensor | None]


def align(model: Harmony, view: View, posterior: Posterior) -> Aligned:
    """A view in its canonical pose, and its weight turned along (no gradient flows through that)."""
    matrices, offsets = model.alignment(posterior.transformation.mean)
    weights = None if view.weights is None else rotate_weights(view.weights, matrices.detach())
    return resample(view.target, matrices, offsets), weights


def agreement(first: Aligned, second: Aligned, mask: Tensor) -> Tensor:
    """``‖y₁ − y₂‖²`` per voxel, each seen under the weight of the other."""
    (y_first, w_first), (y_second, w_second) = first, second
    if w_second is not None:
        y_first = apply_weight(y_first, w_second)
    return losses.reconstruction(y_first, y_second, w_first, mask)
