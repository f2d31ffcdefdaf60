"""A plain variational autoencoder (Kingma & Welling, ICLR 2014): one code, the floor of every comparison.

The whole code is the content code; the transformation code has length 0. Reconstructions are compared in the full
box under each particle's own weight.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.dataset import recorded_view
from cryodc.models import losses
from cryodc.models.base import Model
from cryodc.models.config import ModelConfig, TrainConfig
from cryodc.models.networks import Decoder, Encoder, Gaussian, Posterior, gaussian
from cryodc.models.steps import Batch, Objective, Step, autocast, beta


class VAE(Model):
    """The encoder and the decoder of the other models, without a transformation code."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config, {"mean": config.content_dims, "log_variance": config.content_dims})
        self.decoder = Decoder(config, transformation=False)

    def encode(self, images: Float[Tensor, "b *image"]) -> Posterior:
        """``q(c | x)``; of ``z`` there is nothing to say."""
        found = self.encoder(images)
        nothing = found["mean"][:, :0]
        return Posterior(gaussian(found["mean"], found["log_variance"]), Gaussian(nothing, nothing))

    def decode(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b *image"]:
        """``p(x | c)``; ``transformation`` has length 0."""
        images: Tensor = self.decoder(content)
        return images


TERMS = ("reconstruction", "kl_content")


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """``‖W ∘ F(x̂) − F(x)‖² + β KL(q(c|x) ‖ N(0, I))``.

    Parameters
    ----------
    model
        The network.
    batch
        Particles.
    config
        Settings.
    generator
        Draws all that is random.
    """
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
