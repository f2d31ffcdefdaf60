"""Practice particles with a known answer: protein, state, pose, shift, tomogram, wedge and noise.

A particle is ``F⁻¹ [ W · F( clean + noise ) ]``: a specimen in its pose, white noise, then the wedge. The SNR is the
variance of the clean box over the variance of that noise, before the wedge.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.data.maps import prepare_map
from cryodc.data.phantoms import DEMO_PHANTOMS, Phantom, phantom
from cryodc.errors import InputError
from cryodc.ops.rotations import random_rotations
from cryodc.ops.wedge import TiltAxis, apply_weight, wedge_from_tilt_range
from cryodc.particles import Poses
from cryodc.volumes import Volume

_BATCH = 32


class Specimen(Protocol):
    """What can be put under the microscope: a phantom, or a prepared map."""

    @property
    def symmetry(self) -> str:
        """Point group, RELION's orientation."""

    @property
    def moves(self) -> bool:
        """Whether it has states."""

    def render(
        self,
        rotations: Float[Tensor, "b 3 3"],
        origins_angstrom: Float[Tensor, "b 3"],
        states: Float[Tensor, " b"],
        box_size: int,
        spacing_angstrom: float,
    ) -> Float[Tensor, "b d h w"]:
        """Clean volumes in these poses."""

    def mean_map(self, box_size: int, spacing_angstrom: float) -> Float[Tensor, "d h w"]:
        """The unrotated specimen, averaged over its states."""


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
class SimulatedTruth:
    """The answer: everything about the particles but their voxels, in random order.

    Parameters
    ----------
    proteins
        Names of the specimens; ``labels`` index them.
    symmetries
        Point group of each protein.
    names
        Unique particle names.
    labels
        ``(n,)`` protein of each particle.
    states
        ``(n,)`` in [0, 1]; 0 for rigid proteins.
    poses
        Rotations and origins, as everywhere.
    tomograms
        ``(n,)`` 0-based.
    """

    proteins: tuple[str, ...]
    symmetries: tuple[str, ...]
    names: tuple[str, ...]
    labels: Int[NDArray[np.int64], " n"]
    states: Float[NDArray[np.float64], " n"]
    poses: Poses
    tomograms: Int[NDArray[np.int64], " n"]

    def __len__(self) -> int:
        return len(self.names)


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

    truth: SimulatedTruth
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


def demo_phantoms() -> dict[str, Volume | Phantom]:
    """The four phantoms of ``cryodc demo`` by name."""
    return {name: phantom(name) for name in DEMO_PHANTOMS}


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
    >>> particles = simulate_particles(demo_phantoms(), SimulationConfig(n_per_map=2, box_size=16, spacing_angstrom=20))
    >>> particles.volumes.shape
    torch.Size([8, 16, 16, 16])
    """
    config = config or SimulationConfig()
    specimens = prepare_specimens(maps, config)
    truth = draw_truth(specimens, config)
    volumes = torch.cat([batch for _, batch in simulate_batches(specimens, truth, config)])
    index = torch.from_numpy(truth.tomograms % len(config.tilt_ranges))
    return SimulatedParticles(truth, volumes, tilt_weights(config), index, clean_maps(specimens, config))


def prepare_specimens(
    maps: Mapping[str, Volume | Phantom], config: SimulationConfig, symmetries: Mapping[str, str] | None = None
) -> dict[str, Specimen]:
    """Maps centred, resampled and normalised for a simulation; phantoms as they are.

    Raises
    ------
    InputError
        If there is nothing to simulate, or a map or phantom does not fit the box.
    """
    if not maps:
        raise InputError("there is nothing to simulate", remedy="name phantoms or maps")
    specimens: dict[str, Specimen] = {}
    half_box = config.box_size / 2 * config.spacing_angstrom
    for name, item in maps.items():
        if isinstance(item, Volume):
            symmetry = (symmetries or {}).get(name, "C1")
            specimens[name] = prepare_map(name, item, config.box_size, config.spacing_angstrom, symmetry)
            continue
        if item.radius_angstrom() > half_box:
            raise InputError(
                f"phantom {name!r} does not fit the box",
                expected=f"a radius of at most {half_box:g} Å",
                found=f"{item.radius_angstrom():.0f} Å",
                remedy="use a larger --box or --spacing",
            )
        specimens[name] = item
    return specimens


def draw_truth(specimens: Mapping[str, Specimen], config: SimulationConfig) -> SimulatedTruth:
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
    return SimulatedTruth(
        proteins,
        tuple(specimens[name].symmetry for name in proteins),
        tuple(f"subtomograms/particle{i + 1:06d}.mrc" for i in range(n)),
        labels.numpy(),
        torch.where(moves[labels], states, torch.zeros(())).numpy(),
        Poses(_orthonormal(rotations.numpy()), origins.numpy()),
        tomograms.numpy(),
    )


def simulate_batches(
    specimens: Mapping[str, Specimen], truth: SimulatedTruth, config: SimulationConfig
) -> Iterator[tuple[slice, Float[Tensor, "b d h w"]]]:
    """Noisy particles, a batch at a time, with their place in the whole."""
    weights = tilt_weights(config)
    scales = _scales(specimens, config)
    for start in range(0, len(truth), _BATCH):
        rows = slice(start, min(start + _BATCH, len(truth)))
        clean = render(specimens, truth, rows, config, scales)
        noisy = clean if config.snr == float("inf") else clean + _noise(clean, rows, config)
        yield rows, apply_weight(noisy, weights[torch.from_numpy(truth.tomograms[rows] % len(weights))])


def render(
    specimens: Mapping[str, Specimen],
    truth: SimulatedTruth,
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
