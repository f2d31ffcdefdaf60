"""VITAE: transform and appearance, disentangled by un-warping (Detlefsen & Hauberg, NeurIPS 2019), conditional form.

A first encoder gives a latent ``u ~ q(u | x)`` and from it a transform; the particle is un-warped by the inverse; a
second encoder gives the content code of what is left; the decoded content is warped back. The transformation code is
the logarithm of the transform (:func:`cryodc.geometry.exponential`), so that minus the code undoes it exactly;
it is the one of the mean of ``q(u | x)`` and is told without a spread.

Networks are the convolutional ones of this package. Reconstructions are compared in the full box under each particle's
own weight; un-warping turns the missing wedge along, which the published model does not know of.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cryodc.dataset import recorded_view
from cryodc.geometry import exponential, resample
from cryodc.models import losses
from cryodc.models.base import Model, Placement, PosedModel, full_precision
from cryodc.models.config import ModelConfig, TrainConfig
from cryodc.models.networks import Decoder, Encoder, Gaussian, Posterior, certain, gaussian, set_to_zero
from cryodc.models.steps import Batch, Objective, Step, autocast, beta


class VITAE(PosedModel):
    """Two encoders, a network from the first one's latent to a transform, and a decoder of the un-warped image."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        z, c = config.transformation_dims, config.content_dims
        self.transform_encoder = Encoder(config, {"mean": z, "log_variance": z})
        last = nn.Linear(config.hidden, z)
        set_to_zero(last)
        self.transform_decoder = nn.Sequential(nn.Linear(z, config.hidden), nn.SiLU(), last)
        self.encoder = Encoder(config, {"mean": c, "log_variance": c})
        self.decoder = Decoder(config, transformation=False)

    def encode_transform(self, images: Float[Tensor, "b *image"]) -> Gaussian:
        """``q(u | x)``."""
        found = self.transform_encoder(images)
        return gaussian(found["mean"], found["log_variance"])

    def transformation(self, latent: Float[Tensor, "b z"]) -> Float[Tensor, "b z"]:
        """The logarithm of a transform; its shift in voxels."""
        code = self.transform_decoder(latent).float()
        # The network works in half-boxes, in which shifts and the linear part are of one size.
        scale = torch.ones_like(code[0])
        scale[-self.config.dims :] = self.config.box_size / 2
        return code * scale

    def encode_content(self, images: Float[Tensor, "b *image"], transformation: Float[Tensor, "b z"]) -> Gaussian:
        """``q(c | x, T)``: of the particle with its transform undone."""
        with full_precision(images):
            unwarped = resample(images, *exponential(-transformation, self.config.dims))
        found = self.encoder(unwarped)
        return gaussian(found["mean"], found["log_variance"])

    def encode(self, images: Float[Tensor, "b *image"]) -> Posterior:
        """The transform at the mean of ``q(u | x)``, and the content under it."""
        code = self.transformation(self.encode_transform(images).mean)
        return Posterior(self.encode_content(images, code), certain(code))

    def canonical(self, content: Float[Tensor, "b c"]) -> Float[Tensor, "b *image"]:
        """The decoded image before it is warped."""
        images: Tensor = self.decoder(content)
        return images

    def placement(self, transformation: Float[Tensor, "b z"]) -> Placement:
        """``particle(x) = canonical(M x + t)``."""
        return Placement(*exponential(transformation, self.config.dims))

    def decode(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b *image"]:
        """The decoded image, warped."""
        canonical = self.canonical(content)
        with full_precision(canonical):
            return resample(canonical, *self.placement(transformation))


TERMS = ("reconstruction", "kl_content", "kl_transformation")


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """``‖W ∘ F(x̂) − F(x)‖² + β [ KL(q(u|x)) + KL(q(c|x, T)) ]`` with ``x̂ = T(u) dec(c)``, β warmed up.

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
