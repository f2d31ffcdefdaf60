"""Encode: the codes of every particle, in input order, by name."""

import numpy as np
import torch
from torch import Tensor

from cryodc.codes import Codes
from cryodc.dataset import Dataset, ViewConfig, at_box, mask_of_views, random_view, recorded_view
from cryodc.models import Gaussian, Model

_BATCH = 64


@torch.no_grad()
def encode_particles(
    model: Model,
    dataset: Dataset,
    views: ViewConfig,
    *,
    n_views: int = 1,
    seed: int = 0,
) -> Codes:
    """Codes of every particle; no particle is dropped.

    The transformation code is read from the particle as recorded. The content code is the mean direction (mean, for a
    model whose codes are not directional) over ``n_views`` random views as training draws them (1: from the particle
    as recorded), since no pose may change it; its log-variance is their mean.

    Parameters
    ----------
    model, dataset, views
        The network, the particles, and how views of them are made.
    n_views
        Views per particle.
    seed
        Draws the views.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    dataset, views = at_box(dataset, views, model.config.box_size)
    mask = mask_of_views(views, dataset.box_size, device, dataset.dims)
    model.eval()
    columns: list[list[Tensor]] = [[], [], [], []]
    for volumes, weights in dataset.batches(torch.arange(len(dataset)).split(_BATCH)):
        volumes, weights = volumes.to(device), None if weights is None else weights.to(device)
        recorded = model.encode(recorded_view(volumes, weights, mask, views).volumes)
        content = recorded.content
        if n_views > 1:
            views_of_each = (
                random_view(volumes, weights, mask, views, generator, seen_alone=True) for _ in range(n_views)
            )
            drawn = [model.encode(view.volumes).content for view in views_of_each]
            content = _pool(drawn, model.directional)
        for column, values in zip(columns, [*content, *recorded.transformation], strict=True):
            column.append(values.cpu())
    content_mean, content_log_variance, mean, log_variance = (
        np.ascontiguousarray(torch.cat(column).numpy()) for column in columns
    )
    return Codes(dataset.names, content_mean, mean, content_log_variance, log_variance, model.directional)


def _pool(views: list[Gaussian], directional: bool) -> Gaussian:
    means = torch.stack([view.mean for view in views])
    log_variance = torch.stack([view.log_variance for view in views]).mean(0)
    if not directional:
        return Gaussian(means.mean(dim=0), log_variance)
    length = means.norm(dim=2, keepdim=True)
    direction = (means / length.clamp_min(1e-12)).mean(dim=0)
    return Gaussian(direction * length.mean(dim=0), log_variance)
