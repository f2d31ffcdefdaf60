"""DualContrast: a VAE with a content code and a transformation code (Uddin & Xu, arXiv 2405.16796).

One convolutional trunk and four linear heads encode; the decoder projects each code by its own layer. The
published decoder is a dense network of 172 M parameters at box 32; this one has under 20 M at any box from 16
to 128, and both codes keep a layer of their own.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cryodc.models.base import Model
from cryodc.models.config import ModelConfig
from cryodc.models.networks import (
    Decoder,
    Gaussian,
    Posterior,
    gaussian,
    make_trunk,
    n_trunk_features,
    with_channels,
)


class ContentAndTransformationEncoder(nn.Module):
    """``q(c, z | x)``: one trunk of strided convolutions, a hidden layer for each code, four heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = make_trunk(config)
        # Where a feature stands says nothing of identity, so content pools over positions; pose needs them.
        n_features = n_trunk_features(config)
        # At first all particles look alike to the network; batch normalisation removes what they have in common,
        # which would otherwise make all content codes parallel and the contrast blind.
        self.content_hidden = nn.Sequential(
            nn.BatchNorm1d(2 * config.max_channels),
            nn.Linear(2 * config.max_channels, config.hidden),
            nn.BatchNorm1d(config.hidden),
            nn.SiLU(),
        )
        self.transformation_hidden = nn.Sequential(nn.Linear(n_features, config.hidden), nn.SiLU())
        self.content_mean = nn.Linear(config.hidden, config.content_dims)
        self.content_log_variance = nn.Linear(config.hidden, config.content_dims)
        self.transformation_mean = nn.Linear(config.hidden, config.transformation_dims)
        self.transformation_log_variance = nn.Linear(config.hidden, config.transformation_dims)

    def forward(self, images: Float[Tensor, "b *image"]) -> Posterior:
        """Posteriors of both codes."""
        features = self.trunk(with_channels(images, self.config))
        return Posterior(self._content(features), self._transformation(features))

    def encode_transformation(self, images: Float[Tensor, "b *image"]) -> Gaussian:
        """``q(z | x)`` alone; statistics of the content path are not touched."""
        return self._transformation(self.trunk(with_channels(images, self.config)))

    def _content(self, features: Tensor) -> Gaussian:
        positions = tuple(range(2, features.ndim))
        pooled = torch.cat([features.mean(dim=positions), features.amax(dim=positions)], dim=1)
        content = self.content_hidden(pooled)
        return gaussian(self.content_mean(content), self.content_log_variance(content))

    def _transformation(self, features: Tensor) -> Gaussian:
        hidden = self.transformation_hidden(features.flatten(1))
        return gaussian(self.transformation_mean(hidden), self.transformation_log_variance(hidden))


class DualContrast(Model):
    """Encoder and decoder."""

    directional = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.encoder = ContentAndTransformationEncoder(config)
        self.decoder = Decoder(config, transformation=True)

    def encode(self, images: Float[Tensor, "b *image"]) -> Posterior:
        """``q(c, z | x)``."""
        posterior: Posterior = self.encoder(images)
        return posterior

    def decode(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b *image"]:
        """``p(x | c, z)``."""
        images: Tensor = self.decoder(content, transformation)
        return images

    def parts(self) -> dict[str, nn.Module]:
        """The encoder is optimised by itself in step B."""
        return {"all": self, "encoder": self.encoder}
