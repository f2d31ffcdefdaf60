"""A plain variational autoencoder (Kingma & Welling, ICLR 2014): one code, the floor of every comparison.

The whole code is the content code; the transformation code has length 0. Reconstructions are compared in the full
box under each particle's own weight.
"""

from jaxtyping import Float
from torch import Tensor

from cryodc.models.base import Model
from cryodc.models.config import ModelConfig
from cryodc.models.networks import Decoder, Encoder, Gaussian, Posterior, gaussian


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
