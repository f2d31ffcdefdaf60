"""Decode codes made of templates: the average of a group, changed along its axes, rotated and shifted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from cryodc.codes import Codes
from cryodc.fourier import fourier_pad
from cryodc.geometry import resample
from cryodc.models import Found
from cryodc.templates.groups import N_PLACE, ROTATION_SCALE, TemplateGroups
from cryodc.templates.match import BOX

_DECIDED = 0.9


class TemplateDecoder(nn.Module):
    """Decodes content and transformation codes made of templates, without any training.

    Parameters
    ----------
    groups
        Of the run.
    """

    def __init__(self, groups: TemplateGroups) -> None:
        super().__init__()
        parts = {name: torch.from_numpy(values) for name, values in vars(groups).items()}
        self.parts = nn.ParameterDict({name: nn.Parameter(part, requires_grad=False) for name, part in parts.items()})

    @property
    def centres(self) -> Float[Tensor, "g k"]:
        """Mean content code of each group."""
        return self.parts["centres"]

    def decode(self, content: Float[Tensor, "b k"], transformation: Float[Tensor, "b p"]) -> Float[Tensor, "b d h w"]:
        """The average of the group nearest in content, at the coordinates and in the pose of the code.

        ``particle(x) = V(Aᵀ (x + o))``. A matrix that is no rotation (a mean of several) becomes the nearest rotation.
        """
        group = torch.cdist(content, self.parts["centres"]).argmin(dim=1)
        volumes = self.parts["maps"][group]
        volumes = volumes + torch.einsum("ba,badhw->bdhw", transformation[:, N_PLACE:], self.parts["axes"][group])
        left, _, right = torch.linalg.svd(transformation[:, :9].reshape(-1, 3, 3))
        sign = torch.ones_like(left[:, 0])
        sign[:, 2] = torch.linalg.det(left @ right)
        rotations = (left * sign[:, None]) @ right @ self.parts["turns"][group].transpose(1, 2)
        origins = transformation[:, 9:N_PLACE] + (rotations @ self.parts["moves"][group][..., None])[..., 0]
        inverse = rotations.transpose(1, 2)
        return resample(volumes, inverse, (inverse @ origins[..., None])[..., 0])


@dataclass(frozen=True)
class FoundPairs:
    """Groups, poses and averages of all particles of a run.

    Parameters
    ----------
    content, transformation
        Codes made of templates.
    groups
        Of each particle; -1 where it is undecided.
    decoder
        Gives averages as particles lie.
    """

    content: Float[Tensor, "n k"]
    transformation: Float[Tensor, "n p"]
    groups: Int[Tensor, " n"]
    decoder: TemplateDecoder

    def of(self, rows: Int[Tensor, " b"], box_size: int) -> Found:
        """What was found of these particles, averages in a box of at least :data:`cryodc.templates.BOX`.

        Particles are standardised in each box: in a larger one, which holds more of their noise, a protein is fainter.
        """
        at = rows.to(self.groups.device)
        content, transformation = self.content[at], self.transformation[at]
        averages = fourier_pad(self.decoder.decode(content, transformation), box_size) * (BOX / box_size) ** 1.5
        rotations = (transformation[:, :9] / ROTATION_SCALE).reshape(-1, 3, 3)
        return Found(self.groups[at], rotations, averages)


def found_pairs(decoder: TemplateDecoder, codes: Codes) -> FoundPairs | None:
    """The pairs that templates found; None if codes are not made of templates, or all particles are of one group.

    A particle is decided if its group has at least 0.9 of the posterior probability, under Gaussians about the centre
    of each group, with the spread within a protein, which is 1.
    """
    if codes.template_content is None or codes.template_pose is None:
        return None
    content = torch.from_numpy(codes.template_content).to(decoder.centres)
    transformation = torch.from_numpy(codes.template_pose).to(decoder.centres)
    sureness, groups = (-0.5 * torch.cdist(content, decoder.centres).square()).softmax(dim=1).max(dim=1)
    groups = torch.where(sureness >= _DECIDED, groups, -1)
    if len(groups[groups >= 0].unique()) < 2:
        return None
    return FoundPairs(content, transformation, groups, decoder)


def codes_of_templates(codes: Codes) -> Codes:
    """The codes that a :class:`TemplateDecoder` takes, as those of a network are.

    Raises
    ------
    ValueError
        If there are none.
    """
    if codes.template_content is None or codes.template_pose is None:
        raise ValueError("these codes are not made of templates")
    spreads = np.zeros_like(codes.template_content), np.zeros_like(codes.template_pose)
    return Codes(
        codes.names,
        codes.template_content,
        codes.template_pose,
        *spreads,
        False,
        codes.template_content,
        codes.template_pose,
    )


def conformation_axes(
    transformation: Float[NDArray[np.float32], "n p"], n_axes: int
) -> tuple[Float[NDArray[np.float64], "a p"], Float[NDArray[np.float64], " a"], Float[NDArray[np.float64], " p"]]:
    """Axes of conformation in a class, pose left out, in the order of their variance.

    Returns
    -------
    Unit vectors, the share of the variance of all coordinates along each, and the code of a particle that lies as the
    average does and is at the mean of every coordinate.
    """
    coordinates = transformation[:, N_PLACE:].astype(np.float64)
    variance = coordinates.var(axis=0)
    order = [q for q in np.argsort(-variance, kind="stable")[:n_axes] if variance[q] > 0]
    upright = np.concatenate([ROTATION_SCALE * np.eye(3).ravel(), np.zeros(3), coordinates.mean(axis=0)])
    return np.eye(len(upright))[[N_PLACE + q for q in order]], variance[order] / max(variance.sum(), 1e-12), upright


def groups_of(arrays: Mapping[str, NDArray[np.float32]]) -> TemplateGroups:
    """TemplateGroups as a run keeps them."""
    return TemplateGroups(
        **{name: np.asarray(arrays[name], dtype=np.float32) for name in TemplateGroups.__dataclass_fields__}
    )
