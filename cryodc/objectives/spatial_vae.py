"""SpatialVAE: the evidence lower bound at some voxels of each particle (Bepler et al., NeurIPS 2019)."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.config import TrainConfig
from cryodc.data.views import recorded_view
from cryodc.models import losses
from cryodc.models.base import Model
from cryodc.models.networks import Gaussian, with_channels
from cryodc.models.spatial_vae import SpatialVAE, box_points
from cryodc.objectives.steps import Batch, Objective, Step, autocast, beta
from cryodc.ops.transforms import n_rotation_parameters

TERMS = ("reconstruction", "kl_content", "kl_rotation", "kl_shift")


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """``mean (x̂ − x)² + β [ KL(c) + KL(θ) + KL(t) ]``, the mean over voxels drawn within the mask.

    In 2D every voxel of the mask is taken where there are no more than ``coordinates_per_particle``.
    """
    if not isinstance(model, SpatialVAE):
        raise TypeError(f"expected a SpatialVAE, found {type(model).__name__}")
    view = recorded_view(batch.images, batch.weights, batch.mask, config.views)
    chosen = draw_voxels(batch.mask, len(batch.images), config.model.coordinates_per_particle, generator)
    points = box_points(config.model.box_size, config.model.dims, batch.mask.device)[chosen]
    with autocast(config, batch.images.device):
        posterior = model.encode(view.volumes)
        placement = model.sample_placement(posterior.transformation, generator)
        decoded = model.values(points, posterior.content.sample(generator), placement)
    observed = with_channels(view.target, config.model).flatten(2).mT.gather(1, chosen[..., None].expand_as(decoded))
    n_angles = n_rotation_parameters(config.model.dims)
    shift = Gaussian(*(values[:, n_angles:] for values in posterior.transformation))
    in_units = shift.mean / model.shift_voxels, shift.log_variance - 2 * _log(model.shift_voxels, shift.mean)
    terms = {
        "reconstruction": ((decoded - observed) ** 2).mean(),
        "kl_content": losses.kl_divergence(*posterior.content),
        "kl_rotation": losses.kl_rotation(posterior.transformation.log_variance[:, :n_angles]),
        "kl_shift": losses.kl_divergence(*in_units),
    }
    divergence = terms["kl_content"] + terms["kl_rotation"] + terms["kl_shift"]
    yield Step(
        "all",
        config.loss.reconstruction_weight * terms["reconstruction"] + beta(config, batch.epoch) * divergence,
        terms,
    )


OBJECTIVE = Objective(TERMS, steps)


def draw_voxels(
    mask: Float[Tensor, "*space"], n_particles: int, n_voxels: int, generator: torch.Generator
) -> Int[Tensor, "b n"]:
    """For each particle the flat indices of some voxels within the mask; all of them if there are no more."""
    within = mask.flatten().nonzero()[:, 0]
    if len(within) <= n_voxels:
        return within.expand(n_particles, -1)
    drawn = torch.randint(len(within), (n_particles, n_voxels), generator=generator, device=mask.device)
    return within[drawn]


def _log(value: float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).log()
