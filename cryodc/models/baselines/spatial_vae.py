"""SpatialVAE: an image is a function of coordinates, and a pose moves the coordinates (Bepler et al., NeurIPS 2019).

The decoder is a network from a point and a content code to a grey value, evaluated at ``R(θ) x + t``. The
transformation code is the posterior mean of ``(θ, t)``: a rotation (angle, or rotation vector in radians) and a shift
in voxels. In 3D the posterior of the rotation is ``exp(θ) exp(ε)``, ``ε ~ N(0, s²)``, which in 2D is the published one.

Differences from the published model: the encoder is the convolutional trunk of this package; in 3D a step compares
``coordinates_per_particle`` voxels drawn from each particle. Single voxels have no Fourier transform, so the missing
wedge is not taken into account.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cryodc.dataset import recorded_view
from cryodc.geometry import n_rotation_parameters, rigid, rotations_from_parameters
from cryodc.models import losses
from cryodc.models.base import Model, Placement, PosedModel, full_precision
from cryodc.models.config import ModelConfig, TrainConfig
from cryodc.models.networks import Encoder, Gaussian, Posterior, gaussian, with_channels, without_channels
from cryodc.models.steps import Batch, Objective, Step, autocast, beta

SHIFT_SCALE = 0.1
"""Half-boxes that a shift of one standard deviation of its prior moves an image by."""
_POINTS_AT_ONCE = 2**16


class CoordinateNetwork(nn.Module):
    """Grey values at points, from the points and a content code: two hidden layers of tanh."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        units = config.coordinate_units
        self.from_point = nn.Linear(config.dims, units)
        self.from_content = nn.Linear(config.content_dims, units, bias=False)
        self.rest = nn.Sequential(nn.Tanh(), nn.Linear(units, units), nn.Tanh(), nn.Linear(units, config.channels))

    def forward(self, points: Float[Tensor, "b n k"], content: Float[Tensor, "b c"]) -> Float[Tensor, "b n ch"]:
        """Values at points in half-boxes from the centre."""
        values: Tensor = self.rest(self.from_point(points) + self.from_content(content)[:, None])
        return values.float()


class SpatialVAE(PosedModel):
    """Encoder of content, rotation and shift; coordinate network as decoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        c, z = config.content_dims, config.transformation_dims
        lengths = {"mean": c, "log_variance": c, "pose": z, "pose_log_variance": z}
        self.encoder = Encoder(config, lengths, at_zero=("pose",))
        self.decoder = CoordinateNetwork(config)

    @property
    def shift_voxels(self) -> float:
        """Standard deviation of a shift under its prior."""
        return SHIFT_SCALE * self.config.box_size / 2

    def encode(self, images: Float[Tensor, "b *image"]) -> Posterior:
        """``q(c | x)`` and ``q(θ, t | x)``; a shift has the prior ``N(0, shift_voxels²)``."""
        found = self.encoder(images)
        n_angles = n_rotation_parameters(self.config.dims)
        scale = torch.ones_like(found["pose"][0])
        scale[n_angles:] = self.shift_voxels
        pose = gaussian(found["pose"] * scale, found["pose_log_variance"] + 2 * scale.log())
        return Posterior(gaussian(found["mean"], found["log_variance"]), pose)

    def placement(self, transformation: Float[Tensor, "b z"]) -> Placement:
        """``particle(x) = canonical(R(θ) x + t)``, as published."""
        return Placement(*rigid(transformation, self.config.dims))

    def sample_placement(self, pose: Gaussian, generator: torch.Generator) -> Placement:
        """One draw from ``q(θ, t | x)``: ``exp(θ) exp(ε)`` and a shift."""
        n_angles = n_rotation_parameters(self.config.dims)
        drawn = pose.sample(generator)
        with full_precision(drawn):
            turned = rotations_from_parameters(pose.mean[:, :n_angles]) @ rotations_from_parameters(
                (drawn - pose.mean)[:, :n_angles]
            )
        return Placement(turned, drawn[:, n_angles:])

    def values(
        self, points_voxels: Float[Tensor, "b n k"], content: Float[Tensor, "b c"], placement: Placement
    ) -> Float[Tensor, "b n ch"]:
        """Values of particles at points, voxels from the box centre."""
        with full_precision(content):
            moved = points_voxels @ placement.matrices.mT + placement.offsets_voxels[:, None]
        values: Tensor = self.decoder(moved * (2 / self.config.box_size), content)
        return values

    def canonical(self, content: Float[Tensor, "b c"]) -> Float[Tensor, "b *image"]:
        """The image at pose 0."""
        return self.decode(content, content.new_zeros(len(content), self.config.transformation_dims))

    def decode(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b *image"]:
        """The function of each content code at every voxel of the placed box."""
        config = self.config
        with full_precision(content):
            placement = self.placement(transformation)
        points = box_points(config.box_size, config.dims, content.device)
        parts = points.split(max(1, _POINTS_AT_ONCE // len(content)))
        values = [self.values(part.expand(len(content), -1, -1), content, placement) for part in parts]
        images = torch.cat(values, dim=1).mT
        return without_channels(images.reshape(len(content), config.channels, *[config.box_size] * config.dims))


def box_points(box_size: int, dims: int, device: torch.device | None = None) -> Float[Tensor, "n k"]:
    """Every voxel of a box in voxels from its centre, index ``N // 2``; the last axis runs fastest."""
    axis = torch.arange(box_size, dtype=torch.float32, device=device) - box_size // 2
    return torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij"), dim=-1).reshape(-1, dims)


TERMS = ("reconstruction", "kl_content", "kl_rotation", "kl_shift")


def steps(model: Model, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Iterator[Step]:
    """``mean (x̂ − x)² + β [ KL(c) + KL(θ) + KL(t) ]``, the mean over voxels drawn within the mask.

    In 2D every voxel of the mask is taken where there are no more than ``coordinates_per_particle``.

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
    """For each particle the flat indices of some voxels within the mask; all of them if there are no more.

    Parameters
    ----------
    mask
        Within which voxels are drawn.
    n_particles, n_voxels
        So many voxels of each of so many particles.
    generator
        Draws all that is random.
    """
    within = mask.flatten().nonzero()[:, 0]
    if len(within) <= n_voxels:
        return within.expand(n_particles, -1)
    drawn = torch.randint(len(within), (n_particles, n_voxels), generator=generator, device=mask.device)
    return within[drawn]


def _log(value: float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).log()
