"""Harmony: a content code and an explicit rotation and shift, learned from pairs (Uddin et al., CVPR 2022).

The transformation code ``(θ, t)``, a rotation (angle, or rotation vector in radians) and a shift in voxels, takes a
particle to its canonical pose, ``canonical(x) = particle(R(θ) x + t)``; it is told without a spread. In the terms of
:class:`cryodc.particles.Poses` ``A = R(θ)`` and ``o = −t``.

The published encoder and decoder are replaced by the convolutional ones of this package. Images are compared in the
full box under each particle's own weight, and in the pose of the particle rather than the canonical one: see
:mod:`cryodc.objectives.harmony`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.models.base import Placement, full_precision
from cryodc.models.config import ModelConfig
from cryodc.models.networks import Decoder, Encoder, Posterior, certain, gaussian
from cryodc.models.posed import PosedModel
from cryodc.ops.rotations import resample
from cryodc.ops.transforms import invert, n_rotation_parameters, rigid


class Harmony(PosedModel):
    """Encoder of pose and content, decoder of the canonical image."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        lengths = {"mean": config.content_dims, "log_variance": config.content_dims, "pose": config.transformation_dims}
        self.encoder = Encoder(config, lengths, at_zero=("pose",))
        self.decoder = Decoder(config, transformation=False)

    def encode(self, images: Float[Tensor, "b *image"]) -> Posterior:
        """``q(c | x)`` and the pose; a shift stays within a quarter of the box, or it could lose the particle."""
        found = self.encoder(images)
        n_angles, reach = n_rotation_parameters(self.config.dims), self.config.box_size / 4
        angles, shift = found["pose"][:, :n_angles], reach * torch.tanh(found["pose"][:, n_angles:] / reach)
        pose = torch.cat([angles, shift], dim=1)
        return Posterior(gaussian(found["mean"], found["log_variance"]), certain(pose))

    def canonical(self, content: Float[Tensor, "b c"]) -> Float[Tensor, "b *image"]:
        """The decoded image in its canonical pose."""
        images: Tensor = self.decoder(content)
        return images

    def alignment(self, transformation: Float[Tensor, "b z"]) -> Placement:
        """``canonical(x) = particle(R(θ) x + t)``, the pose as published."""
        return Placement(*rigid(transformation, self.config.dims))

    def placement(self, transformation: Float[Tensor, "b z"]) -> Placement:
        """The other way."""
        return Placement(*invert(*self.alignment(transformation)))

    def decode(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b *image"]:
        """The canonical image in the pose of the particle."""
        canonical = self.canonical(content)
        with full_precision(canonical):
            return resample(canonical, *self.placement(transformation))
