"""What the models are made of: a convolutional trunk, heads, a convolutional decoder; in 2D and in 3D."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cryodc.models.config import ModelConfig

LOG_VARIANCE_FLOOR = -10.0
"""Log-variance of what a model tells without a spread."""
_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


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


def gaussian(mean: Tensor, log_variance: Tensor) -> Gaussian:
    """A posterior in single precision, its spread within bounds."""
    return Gaussian(mean.float(), log_variance.float().clamp(LOG_VARIANCE_FLOOR, 10))


def certain(mean: Tensor) -> Gaussian:
    """The posterior of a code without variance."""
    return Gaussian(mean.float(), torch.full_like(mean, LOG_VARIANCE_FLOOR, dtype=torch.float32))


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


def with_channels(images: Float[Tensor, "b *image"], config: ModelConfig) -> Float[Tensor, "b ch *space"]:
    """Images with an axis for their channels, as convolutions want them."""
    return images.reshape(len(images), config.channels, *[config.box_size] * config.dims)


def without_channels(images: Float[Tensor, "b ch *space"]) -> Float[Tensor, "b *image"]:
    """Images as everything else takes them: the axis of channels is there only where there are several."""
    return images[:, 0] if images.shape[1] == 1 else images


class BlurPool(nn.Module):
    """A binomial filter, then every second voxel (Zhang, ICML 2019): ``(b, ch, n, …) → (b, ch, ⌈n/2⌉, …)``."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        kernel = line
        for _ in range(dims - 1):
            kernel = kernel[..., None] * line
        self.kernel: Tensor
        self.register_buffer("kernel", kernel.expand(channels, 1, *kernel.shape).clone(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features at half the size."""
        convolve = F.conv2d if features.ndim == 4 else F.conv3d
        return convolve(features, self.kernel.to(features.dtype), stride=2, padding=1, groups=features.shape[1])


class Residual(nn.Module):
    """``x + f(x)`` at one size."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        convolution = _CONVOLUTION[dims](channels, channels, 3, padding=1)
        self.layers = nn.Sequential(convolution, nn.GroupNorm(8, channels), nn.SiLU())

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return features + self.layers(features)


def make_trunk(config: ModelConfig) -> nn.Sequential:
    """Convolutions down to at most 4 voxels: ``(b, ch, n, …) → (b, max_channels, 4, …)``."""
    convolution, channels = _CONVOLUTION[config.dims], channel_counts(config)
    layers: list[nn.Module] = []
    inputs: int = config.channels
    if config.first_stride == 1:
        layers += [convolution(inputs, config.width, 3, padding=1), nn.GroupNorm(8, config.width), nn.SiLU()]
        inputs = config.width
    for before, after in zip([inputs, *channels[:-1]], channels, strict=True):
        if config.downsampling == "stride":
            layers += [convolution(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        else:
            layers += [convolution(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [BlurPool(after, config.dims)]
        layers += [Residual(after, config.dims) for _ in range(config.blocks_per_level - 1)]
    layers += [convolution(channels[-1], config.max_channels, 3, padding=1)]
    layers += [nn.GroupNorm(8, config.max_channels), nn.SiLU()]
    return nn.Sequential(*layers)


def n_trunk_features(config: ModelConfig) -> int:
    """Numbers that the trunk makes of one particle."""
    return config.max_channels * pyramid(config.box_size)[-1] ** config.dims


class Encoder(nn.Module):
    """A trunk, a hidden layer, and one linear head for each quantity asked for.

    Parameters
    ----------
    config
        Of the model.
    heads
        Name → length. Quantities named in ``at_zero`` are 0 for every particle at first, as a pose should be.
    """

    def __init__(self, config: ModelConfig, heads: dict[str, int], at_zero: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.config = config
        self.trunk = make_trunk(config)
        self.hidden = nn.Sequential(nn.Linear(n_trunk_features(config), config.hidden), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(config.hidden, length) for name, length in heads.items()})
        for name in at_zero:
            set_to_zero(self.heads[name])

    def forward(self, images: Float[Tensor, "b *image"]) -> dict[str, Tensor]:
        """Each quantity, ``(b, length)``, by name."""
        hidden = self.hidden(self.trunk(with_channels(images, self.config)).flatten(1))
        return {name: head(hidden).float() for name, head in self.heads.items()}


def set_to_zero(layer: nn.Module) -> None:
    """Let a layer's output begin at 0, whatever its input."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Upsampling(nn.Module):
    """Every voxel twice along each axis, then a convolution of three: ``(b, ch, n, …) → (b, ch', 2n, …)``.

    Both at once are a transposed convolution whose kernel is that of the convolution summed over neighbours. Unlike a
    free kernel of four it treats voxels of even and odd index alike wherever features do not change, so it makes no
    checkerboard (Odena et al., Distill 2016).
    """

    def __init__(self, before: int, after: int, dims: int) -> None:
        super().__init__()
        convolution = _CONVOLUTION[dims](before, after, 3, padding=1)
        self.weight = nn.Parameter(convolution.weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(after))

    def kernel(self) -> Float[Tensor, "before after *four"]:
        """Of the transposed convolution of stride 2 that does the same."""
        kernel = self.weight.flip(*range(2, self.weight.ndim)).transpose(0, 1)
        for axis in range(2, kernel.ndim):
            pad = [0, 0] * (kernel.ndim - 1 - axis)
            kernel = F.pad(kernel, [*pad, 0, 1]) + F.pad(kernel, [*pad, 1, 0])
        return kernel

    def forward(self, features: Tensor) -> Tensor:
        """Features at twice the size."""
        transposed = F.conv_transpose2d if features.ndim == 4 else F.conv_transpose3d
        return transposed(features, self.kernel(), self.bias, stride=2, padding=1)


def make_upsampling(before: int, after: int, config: ModelConfig) -> nn.Module:
    """One doubling of the box in the decoder."""
    if config.upsampling == "nearest":
        return Upsampling(before, after, config.dims)
    return _TRANSPOSED[config.dims](before, after, 4, stride=2, padding=1)


def joint_layers(units: int, n_outputs: int) -> nn.Sequential:
    """What follows two projections that were added: with a hidden layer more, one code can turn what the other says."""
    return nn.Sequential(nn.SiLU(), nn.Linear(units, units), nn.SiLU(), nn.Linear(units, n_outputs))


class Decoder(nn.Module):
    """``p(x | c, z)``: one projection per code, perhaps layers in which both meet, then doublings up to the box.

    A model that decodes the content alone, and places it, has no projection of the transformation code.
    """

    def __init__(self, config: ModelConfig, *, transformation: bool) -> None:
        super().__init__()
        sizes = pyramid(config.box_size)
        channels = channel_counts(config)
        convolution = _CONVOLUTION[config.dims]
        self.dims = config.dims
        self.sizes = sizes[-2::-1]
        self.smallest = sizes[-1]
        self.deepest = channels[-1]
        n_features = self.deepest * self.smallest**config.dims
        joint = config.joint_units if transformation else 0
        projected = joint or n_features
        self.from_content = nn.Linear(config.content_dims, projected)
        self.from_transformation = nn.Linear(config.transformation_dims, projected) if transformation else None
        self.joint = nn.Identity() if joint == 0 else joint_layers(joint, n_features)
        self.first = nn.Sequential(
            nn.SiLU(),
            convolution(self.deepest, self.deepest, 3, padding=1),
            nn.GroupNorm(8, self.deepest),
            nn.SiLU(),
        )
        outputs = [*channels[-2::-1], config.channels]
        self.ups = nn.ModuleList(
            make_upsampling(before, after, config) for before, after in zip(channels[::-1], outputs, strict=True)
        )
        self.activations = nn.ModuleList(nn.Sequential(nn.GroupNorm(8, after), nn.SiLU()) for after in outputs[:-1])

    def forward(
        self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"] | None = None
    ) -> Float[Tensor, "b *image"]:
        """Volumes or images with the missing wedge filled: nothing is weighted here."""
        features = self.from_content(content)
        if self.from_transformation is not None:
            features = features + self.from_transformation(transformation)
        images = self.first(self.joint(features).reshape(-1, self.deepest, *[self.smallest] * self.dims))
        for level, up in enumerate(self.ups):
            crop = (..., *[slice(self.sizes[level])] * self.dims)
            images = up(images)[crop]
            if level < len(self.activations):
                images = self.activations[level](images)
        return without_channels(torch.Tensor.float(images))
