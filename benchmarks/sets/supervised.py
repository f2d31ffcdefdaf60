"""The supervised ceiling: the shipped encoder and a linear classifier, taught with the labels of other particles.

Particles of the same proteins are simulated anew for every epoch, so that none is learnt by heart. The encoder sees
them as it sees particles in training: random views, and at the end the mean over views.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn

from cryodc.dataset import random_view
from cryodc.fourier import crop_weights, fourier_crop, standardise, view_mask
from cryodc.io import Atoms
from cryodc.models import TrainConfig, build_model, preset_config
from cryodc.simulation import Phantom, SimulatedParticles, SimulationConfig, simulate_particles
from cryodc.volumes import Volume

_FRESH_SEED = 1_000_000
_FRESH_PER_MAP = 100
_VIEWS_PER_PARTICLE = 3
"""Simulating a particle takes longer than several steps with it."""
_BATCH = 64

Fresh = Callable[[int], SimulatedParticles]
"""Particles of an epoch."""


class Classifier(nn.Module):
    """Logits of each label from the content code of the shipped encoder."""

    def __init__(self, config: TrainConfig, n_labels: int) -> None:
        super().__init__()
        self.model = build_model(config.model)
        self.linear = nn.Linear(config.model.content_dims, n_labels)

    def forward(self, images: Tensor) -> Tensor:
        """``(b, n_labels)``."""
        logits: Tensor = self.linear(self.model.encode(images).content.mean)
        return logits


def fresh_particles(proteins: dict[str, Volume | Phantom | Atoms], config: SimulationConfig) -> Fresh:
    """Simulations of the same proteins under seeds of which none is that of a measured set."""

    def simulate(epoch: int) -> SimulatedParticles:
        # Seeds of measured sets are small, and every one of them has a thousand epochs of its own.
        seed = _FRESH_SEED + 1000 * config.seed + epoch
        return simulate_particles(proteins, replace(config, n_per_map=_FRESH_PER_MAP, seed=seed))

    return simulate


def time_budget(minutes: float) -> Callable[[], float]:
    """The share of a time that is over since this was called: what is taught within it depends on the machine."""
    began = time.monotonic()
    return lambda: (time.monotonic() - began) / (60 * minutes)


def supervised_labels(
    particles: SimulatedParticles,
    fresh: Fresh,
    family_of_source: Int[NDArray[np.int64], " k"],
    seed: int,
    spent: Callable[[], float],
) -> tuple[Int[NDArray[np.int64], " n"], int]:
    """Labels that the taught classifier gives to particles it has not seen, and the epochs it was taught.

    Parameters
    ----------
    particles
        To be labelled; their own labels are not looked at.
    fresh
        Particles to teach with, by epoch.
    family_of_source
        The label of each simulated protein.
    seed
        Of weights, order and views.
    spent
        Share of the budget that is spent, as :func:`time_budget` says: epochs are begun as long as it is below 1, and
        the learning rate falls with it, as a cosine.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = preset_config("default", particles.volumes.shape[-1])
    classifier = Classifier(config, int(family_of_source.max()) + 1)
    settings = config.optimisation
    optimiser = torch.optim.AdamW(
        classifier.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    epoch = 0
    while (share := spent()) < 1:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (0.01 + 0.99 * math.cos(math.pi / 2 * share) ** 2)
        taught = fresh(epoch)
        _teach(classifier, optimiser, taught, torch.from_numpy(family_of_source[taught.labels]), config, generator)
        epoch += 1
    return _predict(classifier, particles, config, generator), epoch


def _teach(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    particles: SimulatedParticles,
    labels: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> None:
    classifier.train()
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(_VIEWS_PER_PARTICLE)]
    for rows in (rows for order in orders for rows in order.split(_BATCH)):
        # A batch of one has no variance to be normalised by.
        if len(rows) < 2:
            continue
        loss = F.cross_entropy(classifier(_views(particles, rows, config, generator)), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def _predict(
    classifier: Classifier, particles: SimulatedParticles, config: TrainConfig, generator: torch.Generator
) -> Int[NDArray[np.int64], " n"]:
    classifier.eval()
    found = []
    for rows in torch.arange(len(particles.volumes)).split(_BATCH):
        views = [
            classifier(_views(particles, rows, config, generator)).log_softmax(dim=1)
            for _ in range(config.optimisation.encoding_views)
        ]
        found.append(torch.stack(views).mean(dim=0).argmax(dim=1))
    return torch.cat(found).numpy()


def _views(particles: SimulatedParticles, rows: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Random views of some particles, at the box of the network as training makes them."""
    whole, box = particles.volumes.shape[-1], config.model.box_size
    volumes, weights = particles.volumes[rows], particles.weights[particles.weight_index[rows]]
    if box < whole:
        volumes, weights = fourier_crop(volumes, box), crop_weights(weights, box)
    shift = config.views.max_shift_voxels * box / whole
    views = config.views.model_copy(update={"max_shift_voxels": shift})
    return random_view(standardise(volumes), weights, view_mask(box), views, generator).volumes
