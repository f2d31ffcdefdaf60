"""DualContrast: a VAE with a content code and a transformation code (Uddin & Xu, arXiv 2405.16796).

One convolutional trunk and four linear heads encode; the decoder projects each code by its own layer. The
published decoder is a dense network of 172 M parameters at box 32; this one has under 20 M at any box from 16
to 128, and both codes keep a layer of their own.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor, nn


class ModelConfig(BaseModel, extra="forbid", frozen=True):
    """Shape of the network; saved with every checkpoint.

    Parameters
    ----------
    box_size
        Even, 16 to 128 voxels.
    content_dims, transformation_dims
        Lengths of the two codes.
    width
        Channels of the first convolution; they double at each halving of the box, up to ``max_channels``.
    max_channels
        Channels of the deepest convolution.
    hidden
        Units of the layers between trunk and heads.
    """

    box_size: int = Field(ge=16, le=128, multiple_of=2)
    content_dims: int = Field(default=32, ge=1)
    transformation_dims: int = Field(default=16, ge=1)
    width: int = Field(default=16, ge=8, multiple_of=8)
    max_channels: int = Field(default=256, ge=8, multiple_of=8)
    hidden: int = Field(default=256, ge=8)


class Gaussian(NamedTuple):
    """A diagonal Gaussian posterior: mean and log σ², each ``(b, dims)``."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "b dims"]:
        """One draw per row, reparameterised."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + noise * torch.exp(0.5 * self.log_variance)


class Posterior(NamedTuple):
    """``q(c, z | x)``."""

    content: Gaussian
    transformation: Gaussian


def pyramid(box_size: int) -> list[int]:
    """Box sizes of the successive halvings, down to at most 4 voxels.

    Examples
    --------
    >>> pyramid(32), pyramid(18)
    ([32, 16, 8, 4], [18, 9, 5, 3])
    """
    sizes = [box_size]
    while sizes[-1] > 4:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def channel_counts(config: ModelConfig) -> list[int]:
    """Channels at each halving of the box, outermost first."""
    n_levels = len(pyramid(config.box_size)) - 1
    return [min(config.width * 2**level, config.max_channels) for level in range(n_levels)]


class Encoder(nn.Module):
    """``q(c, z | x)``: one trunk of strided convolutions, a hidden layer for each code, four heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = channel_counts(config)
        layers: list[nn.Module] = []
        for before, after in zip([1, *channels[:-1]], channels, strict=True):
            layers += [nn.Conv3d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        layers += [nn.Conv3d(channels[-1], config.max_channels, 3, padding=1)]
        layers += [nn.GroupNorm(8, config.max_channels), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        # Where a feature stands says nothing of identity, so content pools over positions; pose needs them.
        n_features = config.max_channels * pyramid(config.box_size)[-1] ** 3
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

    def forward(self, volumes: Float[Tensor, "b d h w"]) -> Posterior:
        """Posteriors of both codes."""
        features = self.trunk(volumes[:, None])
        return Posterior(self._content(features), self._transformation(features))

    def encode_transformation(self, volumes: Float[Tensor, "b d h w"]) -> Gaussian:
        """``q(z | x)`` alone; statistics of the content path are not touched."""
        return self._transformation(self.trunk(volumes[:, None]))

    def _content(self, features: Tensor) -> Gaussian:
        pooled = torch.cat([features.mean(dim=(2, 3, 4)), features.amax(dim=(2, 3, 4))], dim=1)
        content = self.content_hidden(pooled)
        return _gaussian(self.content_mean(content), self.content_log_variance(content))

    def _transformation(self, features: Tensor) -> Gaussian:
        hidden = self.transformation_hidden(features.flatten(1))
        return _gaussian(self.transformation_mean(hidden), self.transformation_log_variance(hidden))


class Decoder(nn.Module):
    """``p(x | c, z)``: one projection per code, then transposed convolutions up to the box."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = pyramid(config.box_size)
        channels = channel_counts(config)
        self.sizes = sizes[-2::-1]
        self.smallest = sizes[-1]
        self.deepest = channels[-1]
        n_features = self.deepest * self.smallest**3
        self.from_content = nn.Linear(config.content_dims, n_features)
        self.from_transformation = nn.Linear(config.transformation_dims, n_features)
        self.first = nn.Sequential(
            nn.SiLU(),
            nn.Conv3d(self.deepest, self.deepest, 3, padding=1),
            nn.GroupNorm(8, self.deepest),
            nn.SiLU(),
        )
        outputs = [*channels[-2::-1], 1]
        self.ups = nn.ModuleList(
            nn.ConvTranspose3d(before, after, 4, stride=2, padding=1)
            for before, after in zip(channels[::-1], outputs, strict=True)
        )
        self.activations = nn.ModuleList(nn.Sequential(nn.GroupNorm(8, after), nn.SiLU()) for after in outputs[:-1])

    def forward(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b d h w"]:
        """Volumes with the missing wedge filled: nothing is weighted here."""
        features = self.from_content(content) + self.from_transformation(transformation)
        volumes = self.first(features.reshape(-1, self.deepest, *[self.smallest] * 3))
        for level, up in enumerate(self.ups):
            size = self.sizes[level]
            volumes = up(volumes)[..., :size, :size, :size]
            if level < len(self.activations):
                volumes = self.activations[level](volumes)
        return torch.Tensor.float(volumes[:, 0])


class DualContrast(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, volumes: Float[Tensor, "b d h w"]) -> Posterior:
        """``q(c, z | x)`` of standardised volumes."""
        posterior: Posterior = self.encoder(volumes)
        return posterior

    def decode(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b d h w"]:
        """``p(x | c, z)``: mean volumes."""
        volumes: Tensor = self.decoder(content, transformation)
        return volumes


def _gaussian(mean: Tensor, log_variance: Tensor) -> Gaussian:
    return Gaussian(mean.float(), log_variance.float().clamp(-10, 10))
