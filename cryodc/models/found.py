"""Terms of DualContrast whose pairs templates found in the data, and need not be made by augmentation and decoding."""

import torch
from torch import Tensor

from cryodc.dataset import View
from cryodc.fourier import apply_weight
from cryodc.geometry import resample
from cryodc.models import losses
from cryodc.models.config import TrainConfig
from cryodc.models.networks import Posterior
from cryodc.models.steps import Found


def found_terms(
    found: Found,
    views: tuple[View, View],
    posteriors: tuple[Posterior, Posterior],
    decoded: tuple[Tensor, Tensor],
    mask: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Terms of step A whose pairs were found by templates; they replace those of the same names, or are added.

    Parameters
    ----------
    found
        What was found of the particles.
    views, posteriors, decoded
        Two views of each, their codes, and what was decoded of these.
    mask
        That views are seen through.
    config
        Settings.
    generator
        Draws partners.
    """
    loss, terms, groups = config.loss, dict[str, Tensor](), found.groups
    if loss.found_content:
        first, second = (q.content.mean for q in posteriors)
        terms["content"] = losses.content_found(first, second, groups, loss.temperature)
    if loss.found_poses:
        partner = losses.derangement(len(groups), generator)
        upright = [
            losses.turned(q.transformation.mean, _pose_of_view(view, found).transpose(1, 2))
            for view, q in zip(views, posteriors, strict=True)
        ]
        terms["transformation_found"] = losses.pose_found(upright[0], upright[1], groups, partner)
    if loss.found_averages:
        known = (groups >= 0)[:, None, None, None]
        targets = [torch.where(known, _average_of_view(view, found, mask), view.target) for view in views]
        terms["reconstruction"] = sum(
            (
                losses.reconstruction(target, volumes, view.weights, mask)
                for target, volumes, view in zip(targets, decoded, views, strict=True)
            ),
            start=mask.new_zeros(()),
        )
    return terms


def _pose_of_view(view: View, found: Found) -> Tensor:
    """``view(x) = particle(M x + t)`` and ``particle(x) = average(Aᵀ (x + o))``, so a view lies as ``Mᵀ A``."""
    return found.rotations if view.turns is None else view.turns.transpose(1, 2) @ found.rotations


def _average_of_view(view: View, found: Found, mask: Tensor) -> Tensor:
    """What the view would be without noise: the average turned and shifted, under the weight of the view."""
    there = found.averages if view.turns is None else resample(found.averages, view.turns, view.shifts)
    there = there if view.weights is None else apply_weight(there, view.weights)
    return mask * (there - (mask * there).sum(dim=(1, 2, 3), keepdim=True) / mask.sum())
