"""A plain VAE: the evidence lower bound of particles as recorded (Kingma & Welling, ICLR 2014)."""

from collections.abc import Iterator

import torch

from cryodc.config import TrainConfig
from cryodc.data.views import recorded_view
from cryodc.models import losses
from cryodc.models.base import Model
from cryodc.objectives.steps import Batch, Objective, Step, autocast, beta

TERMS = ("reconstruction", "kl_content")


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """``‖W ∘ F(x̂) − F(x)‖² + β KL(q(c|x) ‖ N(0, I))``."""
    view = recorded_view(batch.images, batch.weights, batch.mask, config.views)
    with autocast(config, batch.images.device):
        posterior = model.encode(view.volumes)
        decoded = model.decode(posterior.content.sample(generator), posterior.transformation.mean)
    terms = {
        "reconstruction": losses.reconstruction(view.target, decoded, view.weights, batch.mask),
        "kl_content": losses.kl_divergence(*posterior.content),
    }
    loss = config.loss.reconstruction_weight * terms["reconstruction"]
    yield Step("all", loss + beta(config, batch.epoch) * terms["kl_content"], terms)


OBJECTIVE = Objective(TERMS, steps)
