"""A class that holds two proteins is split, however few the second has; one protein is not, also where it moves."""

import numpy as np
import pytest
import torch

from cryodc.alignment import ClassPoses, References, balanced_halves
from cryodc.averaging.loop import ClassLoop
from cryodc.averaging.splits import axis_parts, follow_half_sets, split_classes
from cryodc.clustering import lie_apart
from cryodc.fourier import ParticleStack, standardise
from cryodc.simulation import SimulatedParticles, SimulationConfig, phantom, simulate_particles

SPACING = 13.0


def particles_of(name: str, n: int, seed: int) -> SimulatedParticles:
    """Particles of one protein."""
    config = SimulationConfig(n_per_map=n, snr=0.5, seed=seed, box_size=24, spacing_angstrom=SPACING)
    return simulate_particles({name: phantom(name)}, config)


def class_of(counts: dict[str, int]) -> tuple[ClassLoop, np.ndarray]:
    """One class of particles in their true poses, each protein's in its own frame; and which protein each is."""
    volumes, turns, moves, labels = [], [], [], []
    for place, (name, n) in enumerate(counts.items()):
        made = particles_of(name, n, 6 + place)
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


def test_two_references_of_one_protein_with_a_half_set_each_become_one_class_again() -> None:
    loop, _ = class_of({"wheel": 40})
    loop.begin(loop.poses.select([0, 0]), loop.halves - 1)
    loop.run(4, (2.0, 1.0), ())
    assert len(loop.references) == 1
    assert loop.references.fsc[0, 3] > 0.9  # Both halves have a map.
    assert float(loop.poses.scores.median()) > 10


def test_of_two_classes_that_lack_a_half_set_beside_others_one_stays_with_all_particles() -> None:
    loop, labels = class_of({"wheel": 40, "clamp": 40})
    classes = torch.from_numpy(labels) * loop.halves  # The clamp's half sets are classes 1 and 2.
    loop.begin(loop.poses.select([0, 0, 0]), classes)
    loop.run(4, (2.0, 1.0), ())
    found = loop.labels.numpy()
    assert len(loop.references) == 2
    assert max((found == labels).sum(), (found != labels).sum()) >= len(labels) - 1


def test_classes_that_follow_the_half_sets_are_no_two_proteins() -> None:
    halves = torch.tensor([1, 2]).repeat(60)
    assert follow_half_sets(halves - 1, halves)
    assert follow_half_sets(torch.where(torch.arange(120) < 30, 0, halves - 1), halves)
    assert not follow_half_sets((torch.arange(120) < 60).long(), halves)
    chance = [
        follow_half_sets(torch.randint(0, 2, (120,), generator=torch.Generator().manual_seed(s)), halves)
        for s in range(200)
    ]
    assert sum(chance) <= 2


def test_a_class_is_kept_where_the_two_references_in_its_place_explain_nothing() -> None:
    loop, labels = class_of({"wheel": 40, "clamp": 40})
    loop.begin(loop.poses.select([0, 0]), torch.from_numpy(labels))
    before = loop.labels.clone()
    noise = torch.randn(2, 2, 24, 24, 24, generator=torch.Generator().manual_seed(1))
    assert not loop.split({1: References(noise, loop.references.fsc)})
    assert torch.equal(loop.labels, before)
    assert loop.whole == [True, True]


def test_scores_of_two_proteins_lie_apart_and_those_of_a_moving_one_do_not() -> None:
    place, noise = torch.linspace(-6, 6, 200)[:, None], torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    moving, two = (30 + along * torch.tensor([[1.0, -1.0]]) + noise for along in (place, 6 * place.sign()))
    assert not lie_apart(moving)
    assert lie_apart(two)


def test_two_proteins_are_not_joined() -> None:
    loop, labels = class_of({"wheel": 40, "clamp": 40})
    loop.begin(loop.poses.select([0, 0]), torch.from_numpy(labels))
    loop.merge()
    assert len(loop.references) == 2
