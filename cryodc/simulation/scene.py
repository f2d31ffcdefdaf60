"""What is under the microscope: which protein lies where, in which pose and state, beside which neighbours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.geometry import random_rotations
from cryodc.particles import Poses
from cryodc.simulation.config import Crowding, SimulationConfig
from cryodc.simulation.specimens import Specimen
from cryodc.simulation.truth import Truth

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


TOMOGRAM_SHAPE = (200, 960, 928)
"""Voxels, zyx, of every simulated tomogram."""
_TO_DEFOCUS, _TO_NEIGHBOURS = 1, 2


def draw_truth(specimens: Mapping[str, Specimen], config: SimulationConfig) -> Truth:
    """Draw order, states, poses and tomograms: rotations uniform over SO(3), origins uniform in a cube."""
    generator = torch.Generator().manual_seed(config.seed)
    proteins = tuple(specimens)
    n = config.n_per_map * len(proteins)
    labels = torch.arange(len(proteins)).repeat_interleave(config.n_per_map)
    labels = labels[torch.randperm(n, generator=generator)]
    rotations = random_rotations(n, generator).double()
    reach = config.max_shift_voxels * config.spacing_angstrom
    origins = (2 * torch.rand(n, 3, generator=generator, dtype=torch.float64) - 1) * reach
    states = torch.rand(n, generator=generator, dtype=torch.float64)
    moves = torch.tensor([specimens[name].moves for name in proteins])
    tomograms = torch.randint(config.n_tomograms, (n,), generator=generator)
    names = tuple(_tomogram_name(number) for number in tomograms.tolist())
    poses = Poses(_orthonormal(rotations.numpy()), origins.numpy())
    return Truth(
        tuple(f"subtomograms/particle{i + 1:06d}.mrc" for i in range(n)),
        proteins,
        tuple(specimens[name].symmetry for name in proteins),
        labels.numpy(),
        torch.where(moves[labels], states, torch.zeros(())).numpy(),
        poses,
        names,
        _extra_columns(poses, tomograms.numpy(), len(proteins), config),
    )


def render(
    specimens: Mapping[str, Specimen],
    truth: Truth,
    rows: slice | list[int],
    config: SimulationConfig,
    scales: Mapping[str, float] | None = None,
) -> Float[Tensor, "b d h w"]:
    """Clean particles: no neighbours, neither noise nor wedge.

    Parameters
    ----------
    specimens
        The proteins.
    truth
        What is to be seen.
    rows
        Of which particles.
    config
        Box and spacing.
    scales
        ``(proteins,)`` by which each protein is multiplied.
    """
    return render_poses(
        specimens,
        torch.from_numpy(truth.labels[rows]),
        torch.from_numpy(truth.poses.rotations[rows]).float(),
        torch.from_numpy(truth.poses.origins_angstrom[rows]).float(),
        torch.from_numpy(truth.states[rows]).float(),
        config,
        scales or map_scales(specimens, config),
    )


def render_poses(
    specimens: Mapping[str, Specimen],
    labels: Int[Tensor, " b"],
    rotations: Float[Tensor, "b 3 3"],
    origins_angstrom: Float[Tensor, "b 3"],
    states: Float[Tensor, " b"],
    config: SimulationConfig,
    scales: Mapping[str, float],
) -> Float[Tensor, "b d h w"]:
    """Specimens, by their place in the mapping, in poses and states; divided by their scales.

    Parameters
    ----------
    specimens
        The proteins.
    labels
        ``(n,)`` which protein each is.
    rotations, origins_angstrom, states
        Pose and state of each.
    config
        Box and spacing.
    scales
        ``(proteins,)`` by which each protein is multiplied.
    """
    clean = torch.empty(len(labels), *(config.box_size,) * 3)
    names = list(specimens)
    for label in torch.unique(labels).tolist():
        mine = torch.nonzero(labels == label)[:, 0]
        volumes = specimens[names[label]].render(
            rotations[mine], origins_angstrom[mine], states[mine], config.box_size, config.spacing_angstrom
        )
        clean[mine] = volumes / scales[names[label]]
    return clean


def render_neighbours(
    specimens: Mapping[str, Specimen],
    truth: Truth,
    rows: slice,
    config: SimulationConfig,
    scales: Mapping[str, float],
) -> Float[Tensor, "b d h w"]:
    """What neighbours put into the box of each particle.

    Parameters
    ----------
    specimens
        The proteins.
    truth
        What is to be seen.
    rows
        Of which particles.
    config
        Box, spacing and crowding.
    scales
        ``(proteins,)`` by which each protein is multiplied.
    """
    around = torch.zeros(len(truth.labels[rows]), *(config.box_size,) * 3)
    for place, row in enumerate(range(rows.start, rows.stop)):
        n = neighbours_of(row, truth, config)
        for j in range(len(n)):
            one = slice(j, j + 1)
            pose = (n.rotations[one], -n.centres_angstrom[one].float(), n.states[one])
            around[place] += render_poses(specimens, n.labels[one], *pose, config, scales)[0]
    return around


def neighbours_of(row: int, truth: Truth, config: SimulationConfig) -> Neighbours:
    """Neighbours of one particle, the same whenever they are asked for; none where nothing is crowded."""
    return _draw(row, truth.poses.origins_angstrom[row], len(truth.proteins), config)


def clean_maps(specimens: Mapping[str, Specimen], config: SimulationConfig) -> Float[Tensor, "k d h w"]:
    """The map of each protein: unrotated, centred, averaged over states, variance 1 over the box."""
    maps = [s.mean_map(config.box_size, config.spacing_angstrom) for s in specimens.values()]
    return torch.stack([volume / volume.std(correction=0) for volume in maps])


def map_scales(specimens: Mapping[str, Specimen], config: SimulationConfig) -> dict[str, float]:
    """What each specimen is divided by: the standard deviation of its map."""
    return {
        name: float(specimen.mean_map(config.box_size, config.spacing_angstrom).std(correction=0))
        for name, specimen in specimens.items()
    }


def weight_index(truth: Truth, config: SimulationConfig) -> Int[Tensor, " n"]:
    """Which tilt range each particle was recorded with: tomograms take them in turn."""
    place = {_tomogram_name(number): number % len(config.tilt_ranges) for number in range(config.n_tomograms)}
    return torch.tensor([place[tomogram] for tomogram in truth.tomograms])


def draw_coordinates(n_particles: int, config: SimulationConfig) -> Float[NDArray[np.float64], "n 3"]:
    """Where particles lie in their tomograms: ``(n, 3)`` zyx, voxels."""
    return np.random.default_rng(config.seed).uniform(0.05, 0.95, (n_particles, 3)) * TOMOGRAM_SHAPE


def _extra_columns(
    poses: Poses, tomograms: NDArray[np.int64], n_proteins: int, config: SimulationConfig
) -> dict[str, NDArray[np.float64]]:
    extra: dict[str, NDArray[np.float64]] = {}
    if config.crowding is not None:
        counts = [len(_draw(i, origin, n_proteins, config)) for i, origin in enumerate(poses.origins_angstrom)]
        extra["n_neighbours"] = np.array(counts, dtype=np.float64)
    if config.tilt_series is not None:
        low, high = config.tilt_series.defocus_micrometres
        drawn = [
            np.random.default_rng([config.seed, number, _TO_DEFOCUS]).uniform(low, high)
            for number in range(config.n_tomograms)
        ]
        ranges = np.array(config.tilt_ranges)[tomograms % len(config.tilt_ranges)]
        extra |= {
            "defocus_micrometres": np.array(drawn)[tomograms],
            "tilt_min": ranges[:, 0],
            "tilt_max": ranges[:, 1],
        }
    return extra


def _draw(row: int, origin: NDArray[np.float64], n_proteins: int, config: SimulationConfig) -> Neighbours:
    crowding = config.crowding or Crowding(0.0, 1.0)
    seed = int(np.random.SeedSequence([config.seed, row, _TO_NEIGHBOURS]).generate_state(1)[0])
    # What lies farther off cannot reach into the sphere that fits the box.
    return draw_neighbours(crowding, n_proteins, -origin, config.box_size * config.spacing_angstrom, seed)


def _tomogram_name(number: int) -> str:
    return f"tomogram{number + 1:02d}"


def _orthonormal(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    u, _, vt = np.linalg.svd(rotations)
    return np.asarray(u @ vt)
