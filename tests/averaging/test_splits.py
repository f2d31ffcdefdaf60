"""A class that holds two proteins is split, however few the second has; one protein is not, also where it moves."""

import numpy as np
import pytest
import torch

from cryodc.alignment import ClassPoses, balanced_halves
from cryodc.averaging.loop import ClassLoop
from cryodc.averaging.splits import axis_parts, split_classes
from cryodc.fourier import ParticleStack, standardise
from cryodc.simulation import SimulationConfig, phantom, simulate_particles

SPACING = 13.0


def class_of(counts: dict[str, int]) -> tuple[ClassLoop, np.ndarray]:
    """One class of particles in their true poses, each protein's in its own frame; and which protein each is."""
    volumes, turns, moves, labels = [], [], [], []
    for place, (name, n) in enumerate(counts.items()):
        config = SimulationConfig(n_per_map=n, snr=0.5, seed=6 + place, box_size=24, spacing_angstrom=SPACING)
        made = simulate_particles({name: phantom(name)}, config)
        volumes.append(standardise(made.volumes))
        turns.append(torch.from_numpy(made.poses.rotations).float())
        moves.append(torch.from_numpy(made.poses.origins_angstrom / SPACING).float())
        labels += [place] * n
    n = len(labels)
    stack = ParticleStack(torch.cat(volumes), made.weights, torch.zeros(n, dtype=torch.long))
    halves = torch.from_numpy(balanced_halves(n, 1))
    loop = ClassLoop(stack, torch.zeros(n, dtype=torch.long), halves, 1, lambda text: None, None)
    poses = ClassPoses(torch.cat(turns)[:, None], torch.cat(moves)[:, None], torch.ones(n, 1))
    loop.begin(poses, torch.zeros(n, dtype=torch.long))
    return loop, np.array(labels)


def test_the_few_particles_of_a_second_protein_lie_together_on_the_axes_of_variation() -> None:
    loop, labels = class_of({"wheel": 60, "clamp": 16})
    parts = axis_parts(loop, torch.arange(len(labels)), 0)
    shares = [np.mean(labels[small.numpy()] == 1) for small, _ in parts]
    assert max(shares) > 0.8


def test_a_protein_of_one_particle_in_five_becomes_a_class() -> None:
    loop, labels = class_of({"wheel": 60, "clamp": 16})
    assert split_classes(loop)
    found = loop.labels.numpy()
    assert len(loop.references) == 2
    assert max((found == labels).sum(), (found != labels).sum()) >= len(labels) - 1


@pytest.mark.parametrize("name", ["wheel", "clamp"])
def test_one_protein_is_not_split_though_the_clamp_moves(name: str) -> None:
    loop, _ = class_of({name: 52})
    assert not split_classes(loop)
    assert len(loop.references) == 1
