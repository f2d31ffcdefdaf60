"""DualContrast: a VAE with a content code and a transformation code (Uddin & Xu, arXiv 2405.16796).

One convolutional trunk and four linear heads encode; the decoder projects each code by its own layer. The
published decoder is a dense network of 172 M parameters at box 32; this one has under 20 M at any box from 16
to 128, and both codes keep a layer of their own.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cryodc.dataset import View, add_noise, random_low_pass, recorded_view, through_mask
from cryodc.models import losses
from cryodc.models.base import Model
from cryodc.models.config import ModelConfig, TrainConfig
from cryodc.models.found import found_terms
from cryodc.models.networks import Decoder, Gaussian, Posterior, gaussian, make_trunk, n_trunk_features, with_channels
from cryodc.models.steps import Batch, Objective, Step, autocast, beta, draw_views, transformation_beta


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


TERMS = (
    "reconstruction",
    "kl_content",
    "kl_transformation",
    "content",
    "transformation_negative",
    "transformation_positive",
    "transformation_found",
    "dependence",
)


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """Step A, and at every so many batches step B.

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
    if not isinstance(model, DualContrast):
        raise TypeError(f"expected a DualContrast, found {type(model).__name__}")
    views, contrasted = draw_views(batch, config, generator), None
    if config.loss.contrast_apart:
        views, contrasted = draw_views(batch, undistorted(config), generator), views
    terms, codes = step_a_terms(model, batch, views, config, generator, contrasted)
    yield Step("all", weighted_total(terms, config, batch.epoch), terms)
    # Poses that were found are pairs that need not be decoded.
    made = batch.found is None or not config.loss.found_poses
    if made and batch.step % config.optimisation.transformation_every == 0:
        positive = step_b_term(model, *codes, batch.weights, batch.mask, config, generator)
        yield Step("encoder", config.loss.transformation_weight * positive, {"transformation_positive": positive})


OBJECTIVE = Objective(TERMS, steps)


def step_a_terms(
    model: DualContrast,
    batch: Batch,
    views: tuple[View, View],
    config: TrainConfig,
    generator: torch.Generator,
    contrasted: tuple[View, View] | None = None,
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    """Loss terms of step A by name, and the detached content and transformation codes of the first view.

    Content codes that are contrasted are those of ``views``, or of two further ones.

    Parameters
    ----------
    model
        The network.
    batch
        Particles.
    views
        Two views of each.
    config
        Settings.
    generator
        Draws all that is random.
    contrasted
        Two further views, whose content codes are contrasted instead.
    """
    (first, second), mask = views, batch.mask
    with autocast(config, mask.device):
        q_first, q_second = model.encode(first.volumes), model.encode(second.volumes)
        c_for_first, c_for_second = q_first.content, q_second.content
        if config.loss.exchange_contents:
            c_for_first, c_for_second = c_for_second, c_for_first
        decoded_first = _decode(model, c_for_first, q_first.transformation, generator)
        decoded_second = _decode(model, c_for_second, q_second.transformation, generator)
    terms = {
        "reconstruction": losses.reconstruction(first.target, decoded_first, first.weights, mask)
        + losses.reconstruction(second.target, decoded_second, second.weights, mask),
        "kl_content": losses.kl_divergence(*q_first.content) + losses.kl_divergence(*q_second.content),
        "kl_transformation": losses.kl_divergence(*q_first.transformation)
        + losses.kl_divergence(*q_second.transformation),
        "transformation_negative": losses.transformation_negative(
            *_compared(q_first.transformation.mean, q_second.transformation.mean, config), config.loss.similarity
        ),
    }
    c_first, c_second = q_first.content.mean, q_second.content.mean
    if contrasted is not None:
        with autocast(config, mask.device):
            c_first, c_second = model.encode(torch.cat([view.volumes for view in contrasted])).content.mean.chunk(2)
    if config.loss.content_loss == "infonce":
        terms["content"] = losses.content_infonce(c_first, c_second, config.loss.temperature)
    else:
        partner = losses.derangement(len(c_first), generator)
        terms["content"] = losses.content_contrast(c_first, c_second, partner, config.loss.similarity)
    if batch.found is not None:
        codes, decoded = (q_first, q_second), (decoded_first, decoded_second)
        terms |= found_terms(batch.found, views, codes, decoded, mask, config, generator)
    terms["dependence"] = _dependence(model, batch, (q_first, q_second), config)
    return terms, (q_first.content.mean.detach(), q_first.transformation.mean.detach())


def undistorted(config: TrainConfig) -> TrainConfig:
    """The same settings, with views that are neither stretched nor bent."""
    return config.model_copy(update={"views": config.views.model_copy(update={"stretch": 0.0, "elastic_voxels": 0.0})})


def weighted_total(terms: dict[str, Tensor], config: TrainConfig, epoch: int) -> Tensor:
    """``L_rec + β KL(c) + β_z KL(z) + γ_c L_con(c) + γ_z [s(z, z(Rx)) + L_pose(z)] + γ_i D(z, c)``: that of step A."""
    loss, zero = config.loss, terms["reconstruction"].new_zeros(())
    return (
        loss.reconstruction_weight * terms["reconstruction"]
        + beta(config, epoch) * terms["kl_content"]
        + transformation_beta(config, epoch) * terms["kl_transformation"]
        + loss.content_weight * terms["content"]
        + loss.transformation_weight * terms["transformation_negative"]
        + loss.transformation_weight * terms.get("transformation_found", zero)
        + loss.independence_weight * terms["dependence"]
    )


def step_b_term(
    model: DualContrast,
    content: Tensor,
    transformation: Tensor,
    weights: Tensor | None,
    mask: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> Tensor:
    """``mean d( z(p(z*, c_a)), z(p(z*, c_b)) )``: gradients reach the encoder only.

    Parameters
    ----------
    model
        The network.
    content, transformation
        Codes of the batch, detached.
    weights, mask
        Of the particles: what decoded volumes are given before they are encoded.
    config
        Settings.
    generator
        Draws all that is random.
    """
    if config.loss.shared_transformation == "prior":
        shared = torch.randn(transformation.shape, generator=generator, device=content.device)
    else:
        shared = transformation[losses.derangement(len(content), generator)]
    other = content[losses.derangement(len(content), generator)]
    with torch.no_grad(), autocast(config, content.device):
        pair = [model.decode(codes, shared) for codes in (content, other)]
        if config.loss.decoded_noise:
            pair = [add_noise(images, weights, generator) for images in pair]
        pair = [through_mask(random_low_pass(images, config.views, mask.ndim, generator), mask) for images in pair]
    with autocast(config, content.device):
        z_a, z_b = (model.encoder.encode_transformation(images).mean for images in pair)
    return losses.transformation_positive(*_compared(z_a, z_b, config), config.loss.similarity)


def _dependence(
    model: DualContrast, batch: Batch, posteriors: tuple[Posterior, Posterior], config: TrainConfig
) -> Tensor:
    """Mean over both views, each with the content of the other, and the particle as recorded, which z is read from.

    0 where its weight is 0: it takes one encoding more.
    """
    if config.loss.independence_weight == 0:
        return batch.mask.new_zeros(())
    recorded = recorded_view(batch.images, batch.weights, batch.mask, config.views).volumes
    with autocast(config, batch.mask.device):
        z_recorded = model.encoder.encode_transformation(recorded).mean
    first, second = posteriors
    content = (second.content.mean, first.content.mean, (first.content.mean + second.content.mean) / 2)
    z = (first.transformation.mean, second.transformation.mean, z_recorded)
    return torch.stack([losses.dependence(*pair) for pair in zip(z, content, strict=True)]).mean()


def _compared(first: Tensor, second: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    return losses.centred(first, second) if config.loss.centred_transformation else (first, second)


def _decode(model: DualContrast, content: Gaussian, transformation: Gaussian, generator: torch.Generator) -> Tensor:
    return model.decode(content.sample(generator), transformation.sample(generator))
