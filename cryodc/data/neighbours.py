"""Neighbours that reach into a particle's box: a crowd of hard spheres of the same proteins."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.data.simulation_config import Crowding
from cryodc.ops.rotations import random_rotations

_TRIES = 200


@dataclass(frozen=True)
class Neighbours:
    """Particles around a particle.

    Parameters
    ----------
    labels
        ``(k,)`` protein of each.
    centres_angstrom
        ``(k, 3)`` zyx from the centre of the box.
    rotations
        ``(k, 3, 3)`` uniform over SO(3).
    states
        ``(k,)`` uniform in [0, 1].
    """

    labels: Int[Tensor, " k"]
    centres_angstrom: Float[Tensor, "k 3"]
    rotations: Float[Tensor, "k 3 3"]
    states: Float[Tensor, " k"]

    def __len__(self) -> int:
        return len(self.labels)


def draw_neighbours(
    crowding: Crowding,
    n_proteins: int,
    centre_angstrom: Float[NDArray[np.float64], " 3"],
    reach_angstrom: float,
    seed: int,
) -> Neighbours:
    """Draw the neighbours of one particle.

    Their number is Poisson with mean density × volume of the shell from the smallest distance to ``reach_angstrom``.
    One after the other takes a place uniform in that shell, and another one while it is too near to an earlier one;
    one that finds none in 200 tries is left out.

    Parameters
    ----------
    crowding
        Density and smallest distance between centres.
    n_proteins
        Each neighbour is one of them, with equal chance.
    centre_angstrom
        ``(3,)`` zyx where the particle is, from the centre of the box.
    reach_angstrom
        How far from the particle neighbours are drawn.
    seed
        Of this particle.
    """
    generator = np.random.default_rng(seed)
    nearest = min(crowding.min_distance_angstrom, reach_angstrom)
    shell = 4 / 3 * math.pi * (reach_angstrom**3 - nearest**3)
    places = np.zeros((1, 3))
    for _ in range(generator.poisson(crowding.per_cubic_micrometre * 1e-12 * shell)):
        for _ in range(_TRIES):
            direction = generator.normal(size=3)
            radius = np.cbrt(generator.uniform(nearest**3, reach_angstrom**3))
            place = radius * direction / np.linalg.norm(direction)
            if np.linalg.norm(places - place, axis=1).min() >= nearest:
                places = np.vstack([places, place])
                break
    n = len(places) - 1
    torch_generator = torch.Generator().manual_seed(seed)
    return Neighbours(
        torch.from_numpy(generator.integers(n_proteins, size=n)),
        torch.from_numpy(places[1:] + centre_angstrom),
        random_rotations(n, torch_generator),
        torch.rand(n, generator=torch_generator),
    )
