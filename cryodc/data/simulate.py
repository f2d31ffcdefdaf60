"""Practice particles with a known answer: protein, state, pose, shift, tomogram, wedge and noise.

A particle is ``F⁻¹ [ W · F( clean + noise ) ]``: a specimen in its pose, white noise, then the wedge. The SNR is the
variance of the clean box over the variance of that noise, before the wedge.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.data.phantoms import Phantom
from cryodc.data.specimens import Specimen, prepare_specimens
from cryodc.errors import InputError
from cryodc.io.simulation import Truth
from cryodc.ops.rotations import random_rotations
from cryodc.ops.wedge import TiltAxis, apply_weight, wedge_from_tilt_range
from cryodc.particles import Poses
from cryodc.volumes import Volume

_BATCH = 32


@dataclass(frozen=True)
class SimulationConfig:
    """Settings of a simulation.

    Parameters
    ----------
    n_per_map
        Particles of each protein.
    box_size, spacing_angstrom
        Of the particles.
    snr
        Variance of the clean box over that of the added white noise; infinity adds none.
    tilt_ranges
        ``(min, max)`` degrees; tomograms take them in turn.
    tilt_axis
        The axis the specimen was tilted about.
    max_shift_voxels
        Each component of the origin is uniform within ± this.
    n_tomograms
        Particles are assigned to them at random.
    seed
        Same seed, same particles.
    """

    n_per_map: int = 300
    box_size: int = 32
    spacing_angstrom: float = 10.0
    snr: float = 0.05
    tilt_ranges: tuple[tuple[float, float], ...] = ((-60.0, 60.0),)
    tilt_axis: TiltAxis = "y"
    max_shift_voxels: float = 1.5
    n_tomograms: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        low_enough = all(-90 <= low < high <= 90 for low, high in self.tilt_ranges)
        rules = {
            "particles per protein": (self.n_per_map >= 1, "at least 1", self.n_per_map),
            "box size": (16 <= self.box_size <= 256 and self.box_size % 2 == 0, "even, 16 to 256", self.box_size),
            "voxel spacing": (0 < self.spacing_angstrom < float("inf"), "above 0 Å", self.spacing_angstrom),
            "SNR": (self.snr > 0, "above 0", self.snr),
            "tilt range": (low_enough and len(self.tilt_ranges) > 0, "-90 ≤ min < max ≤ 90", self.tilt_ranges),
            "largest shift": (
                0 <= self.max_shift_voxels <= self.box_size / 4,
                f"0 to {self.box_size / 4:g} voxels",
                self.max_shift_voxels,
            ),
            "number of tomograms": (self.n_tomograms >= 1, "at least 1", self.n_tomograms),
        }
        for what, (holds, expected, found) in rules.items():
            if not holds:
                raise InputError(f"cannot simulate with this {what}", expected=expected, found=str(found))


@dataclass(frozen=True)
class SimulatedParticles:
    """Particles in memory with their answer.

    Parameters
    ----------
    truth
        Names, labels, states, poses, tomograms.
    volumes
        ``(n, d, h, w)`` as recorded, not standardised.
    weights
        ``(m, d, h, w // 2 + 1)``: the wedge of each tilt range.
    weight_index
        ``(n,)``: which of them each particle has.
    maps
        ``(k, d, h, w)`` clean map of each protein, unrotated, variance 1 over the box.
    """

    truth: Truth
    volumes: Float[Tensor, "n d h w"]
    weights: Float[Tensor, "m d h hw"]
    weight_index: Int[Tensor, " n"]
    maps: Float[Tensor, "k d h w"]

    @property
    def labels(self) -> Int[NDArray[np.int64], " n"]:
        """Protein of each particle."""
        return self.truth.labels

    @property
    def poses(self) -> Poses:
        """True poses."""
        return self.truth.poses

    @property
    def weight(self) -> Float[Tensor, "d h hw"]:
        """The one wedge all particles share.

        Raises
        ------
        ValueError
            If there are several tilt ranges.
        """
        if len(self.weights) != 1:
            raise ValueError(f"{len(self.weights)} tilt ranges, so there is no one weight")
        return self.weights[0]


def simulate_particles(
    maps: Mapping[str, Volume | Phantom], config: SimulationConfig | None = None
) -> SimulatedParticles:
    """Simulate particles in memory.

    Parameters
    ----------
    maps
        What to simulate, by protein name.
    config
        Settings.

    Raises
    ------
    InputError
        If a map does not fit the box.

    Examples
    --------
    >>> from cryodc.data.phantoms import demo_phantoms
    >>> config = SimulationConfig(n_per_map=2, box_size=16, spacing_angstrom=20.0)
    >>> simulate_particles(demo_phantoms(), config).volumes.shape
    torch.Size([8, 16, 16, 16])
    """
    config = config or SimulationConfig()
    specimens = prepare_specimens(maps, config.box_size, config.spacing_angstrom)
    truth = draw_truth(specimens, config)
    volumes = torch.cat([batch for _, batch in simulate_batches(specimens, truth, config)])
    index = weight_index(truth, config)
    return SimulatedParticles(truth, volumes, tilt_weights(config), index, clean_maps(specimens, config))


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
    return Truth(
        tuple(f"subtomograms/particle{i + 1:06d}.mrc" for i in range(n)),
        proteins,
        tuple(specimens[name].symmetry for name in proteins),
        labels.numpy(),
        torch.where(moves[labels], states, torch.zeros(())).numpy(),
        Poses(_orthonormal(rotations.numpy()), origins.numpy()),
        tuple(_tomogram_name(number) for number in tomograms.tolist()),
    )


def simulate_batches(
    specimens: Mapping[str, Specimen], truth: Truth, config: SimulationConfig
) -> Iterator[tuple[slice, Float[Tensor, "b d h w"]]]:
    """Noisy particles, a batch at a time, with their place in the whole."""
    weights = tilt_weights(config)
    index = weight_index(truth, config)
    scales = _scales(specimens, config)
    for start in range(0, len(truth), _BATCH):
        rows = slice(start, min(start + _BATCH, len(truth)))
        clean = render(specimens, truth, rows, config, scales)
        noisy = clean if config.snr == float("inf") else clean + _noise(clean, rows, config)
        yield rows, apply_weight(noisy, weights[index[rows]])


def render(
    specimens: Mapping[str, Specimen],
    truth: Truth,
    rows: slice,
    config: SimulationConfig,
    scales: Mapping[str, float] | None = None,
) -> Float[Tensor, "b d h w"]:
    """Clean particles: neither noise nor wedge."""
    scales = scales or _scales(specimens, config)
    labels = truth.labels[rows]
    clean = torch.empty(len(labels), *(config.box_size,) * 3)
    rotations = torch.from_numpy(truth.poses.rotations[rows])
    origins = torch.from_numpy(truth.poses.origins_angstrom[rows])
    states = torch.from_numpy(truth.states[rows])
    for label in np.unique(labels):
        mine = torch.from_numpy(np.flatnonzero(labels == label))
        name = truth.proteins[label]
        volumes = specimens[name].render(
            rotations[mine].float(),
            origins[mine].float(),
            states[mine].float(),
            config.box_size,
            config.spacing_angstrom,
        )
        clean[mine] = volumes / scales[name]
    return clean


def clean_maps(specimens: Mapping[str, Specimen], config: SimulationConfig) -> Float[Tensor, "k d h w"]:
    """The map of each protein: unrotated, centred, averaged over states, variance 1 over the box."""
    maps = [s.mean_map(config.box_size, config.spacing_angstrom) for s in specimens.values()]
    return torch.stack([volume / volume.std(correction=0) for volume in maps])


def tilt_weights(config: SimulationConfig) -> Float[Tensor, "m d h hw"]:
    """The wedge of each tilt range."""
    return torch.stack(
        [wedge_from_tilt_range(config.box_size, low, high, config.tilt_axis) for low, high in config.tilt_ranges]
    )


def weight_index(truth: Truth, config: SimulationConfig) -> Int[Tensor, " n"]:
    """Which tilt range each particle was recorded with: tomograms take them in turn."""
    place = {_tomogram_name(number): number % len(config.tilt_ranges) for number in range(config.n_tomograms)}
    return torch.tensor([place[tomogram] for tomogram in truth.tomograms])


def _tomogram_name(number: int) -> str:
    return f"tomogram{number + 1:02d}"


def _scales(specimens: Mapping[str, Specimen], config: SimulationConfig) -> dict[str, float]:
    return {
        name: float(specimen.mean_map(config.box_size, config.spacing_angstrom).std(correction=0))
        for name, specimen in specimens.items()
    }


def _noise(clean: Float[Tensor, "b d h w"], rows: slice, config: SimulationConfig) -> Float[Tensor, "b d h w"]:
    """White noise of the variance that makes each particle's SNR; a particle's noise does not depend on its batch."""
    noise = torch.empty_like(clean)
    for place, row in enumerate(range(rows.start, rows.stop)):
        seed = (config.seed * 1_000_003 + row + 1) % 2**63
        torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed), out=noise[place])
    spread = clean.std(dim=(1, 2, 3), correction=0, keepdim=True) / config.snr**0.5
    return noise * spread


def _orthonormal(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    u, _, vt = np.linalg.svd(rotations)
    return np.asarray(u @ vt)
