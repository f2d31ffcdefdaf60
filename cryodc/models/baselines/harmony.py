"""Harmony: a content code and an explicit rotation and shift, learned from pairs (Uddin et al., CVPR 2022).

The transformation code ``(θ, t)``, a rotation (angle, or rotation vector in radians) and a shift in voxels, takes a
particle to its canonical pose, ``canonical(x) = particle(R(θ) x + t)``; it is told without a spread. In the terms of
:class:`cryodc.particles.table.Poses` ``A = R(θ)`` and ``o = −t``.

The published encoder and decoder are replaced by the convolutional ones of this package. Images are compared in the
full box under each particle's own weight, and in the pose of the particle rather than the canonical one: see
:mod:`cryodc.models.baselines.harmony`.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.dataset import View, rotate_weights
from cryodc.fourier import apply_weight
from cryodc.geometry import invert, n_rotation_parameters, resample, rigid
from cryodc.models import losses
from cryodc.models.base import Model, Placement, PosedModel, full_precision
from cryodc.models.config import ModelConfig, TrainConfig
from cryodc.models.networks import Decoder, Encoder, Posterior, certain, gaussian
from cryodc.models.steps import Batch, Objective, Step, autocast, draw_views, kl_weight


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
        """The inverse of :meth:`alignment`: ``particle(x) = canonical(M x + t)``."""
        return Placement(*invert(*self.alignment(transformation)))

    def decode(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b *image"]:
        """The canonical image in the pose of the particle."""
        canonical = self.canonical(content)
        with full_precision(canonical):
            return resample(canonical, *self.placement(transformation))


TERMS = ("reconstruction", "agreement", "kl_content")


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """``γ [ ‖T₁⁻¹ m₁ − x₁‖² + ‖T₂⁻¹ m₂ − x₂‖² + ‖y₁ − y₂‖² ] + KL(q(c|x₁) ‖ q(c|x₂)) / dim``.

    ``y = T x`` is a view in its canonical pose, ``m`` what its content decodes to. As published ``m`` is compared with
    ``y``, which costs nothing where ``T`` shifts the particle out of the box; taken back to the particle's pose the
    distance is the same and the particle is always there. ``m`` is compared under the weight of its view, two
    views under what both have measured.

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
