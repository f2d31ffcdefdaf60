"""VITAE: the evidence lower bound of a transform and of what it leaves (Detlefsen & Hauberg, NeurIPS 2019)."""

from collections.abc import Iterator

import torch

from cryodc.config import TrainConfig
from cryodc.data.views import recorded_view
from cryodc.models import losses
from cryodc.models.base import Model
from cryodc.models.vitae import VITAE
from cryodc.objectives.steps import Batch, Objective, Step, autocast, beta

TERMS = ("reconstruction", "kl_content", "kl_transformation")


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """``‖W ∘ F(x̂) − F(x)‖² + β [ KL(q(u|x)) + KL(q(c|x, T)) ]`` with ``x̂ = T(u) dec(c)``, β warmed up."""
    if not isinstance(model, VITAE):
        raise TypeError(f"expected a VITAE, found {type(model).__name__}")
    view = recorded_view(batch.images, batch.weights, batch.mask, config.views)
    with autocast(config, batch.images.device):
        latent = model.encode_transform(view.volumes)
        code = model.transformation(latent.sample(generator))
        content = model.encode_content(view.volumes, code)
        decoded = model.decode(content.sample(generator), code)
    terms = {
        "reconstruction": losses.reconstruction(view.target, decoded, view.weights, batch.mask),
        "kl_content": losses.kl_divergence(*content),
        "kl_transformation": losses.kl_divergence(*latent),
    }
    divergence = terms["kl_content"] + terms["kl_transformation"]
    loss = config.loss.reconstruction_weight * terms["reconstruction"]
    yield Step("all", loss + beta(config, batch.epoch) * divergence, terms)


OBJECTIVE = Objective(TERMS, steps)
