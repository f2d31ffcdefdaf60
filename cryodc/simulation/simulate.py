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

from cryodc.dataset import whiten
from cryodc.fourier import apply_weight, wedge_from_tilt_range
from cryodc.io import MEASURED_MULTIPLICITY, Atoms
from cryodc.particles import Poses
from cryodc.simulation.config import SimulationConfig as SimulationConfig
from cryodc.simulation.phantoms import Phantom
from cryodc.simulation.scene import clean_maps, draw_truth, map_scales, render, render_neighbours, weight_index
from cryodc.simulation.specimens import Specimen, prepare_specimens
from cryodc.simulation.tilt_images import simulate_tilt_batches
from cryodc.simulation.truth import Truth
from cryodc.volumes import Volume

_BATCH = 32


@dataclass(frozen=True)
class SimulatedParticles:
    """Particles in memory with their answer.

    Parameters
    ----------
    truth
        Names, labels, states, poses, tomograms.
    volumes
        ``(n, d, h, w)`` as recorded, not standardised; of a tilt series, ``ΣC · image / √W``.
    weights
        ``(m, d, h, w // 2 + 1)``: the wedge of each tilt range; of tilt series, ``√W`` of each particle, largest 1.
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
    maps: Mapping[str, Volume | Phantom | Atoms], config: SimulationConfig | None = None
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
    >>> from cryodc.simulation.phantoms import (demo_phantoms)
    >>> config = SimulationConfig(n_per_map=2, box_size=16, spacing_angstrom=20.0)
    >>> simulate_particles(demo_phantoms(), config).volumes.shape
    torch.Size([8, 16, 16, 16])
    """
    config = config or SimulationConfig()
    specimens = prepare_specimens(maps, config.box_size, config.spacing_angstrom, config.resolution_angstrom)
    truth = draw_truth(specimens, config)
    maps_clean = clean_maps(specimens, config)
    if config.tilt_series is not None:
        return SimulatedParticles(truth, *_tilt_series_particles(specimens, truth, config), maps_clean)
    volumes = torch.cat([batch for _, batch in simulate_batches(specimens, truth, config)])
    return SimulatedParticles(truth, volumes, tilt_weights(config), weight_index(truth, config), maps_clean)


def simulate_batches(
    specimens: Mapping[str, Specimen], truth: Truth, config: SimulationConfig
) -> Iterator[tuple[slice, Float[Tensor, "b d h w"]]]:
    """Noisy particles behind a binary wedge, a batch at a time, with their place in the whole."""
    weights = tilt_weights(config)
    index = weight_index(truth, config)
    scales = map_scales(specimens, config)
    for start in range(0, len(truth), _BATCH):
        rows = slice(start, min(start + _BATCH, len(truth)))
        clean = render(specimens, truth, rows, config, scales)
        noisy = clean if config.snr == float("inf") else clean + _noise(clean, rows, config)
        if config.crowding is not None:
            noisy = noisy + render_neighbours(specimens, truth, rows, config, scales)
        yield rows, apply_weight(noisy, weights[index[rows]])


def _tilt_series_particles(
    specimens: Mapping[str, Specimen], truth: Truth, config: SimulationConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Particles whitened as they are read, ``√W`` of each scaled to 1, and the index of that."""
    volumes = torch.empty(len(truth), *(config.box_size,) * 3)
    weights = torch.empty(len(truth), config.box_size, config.box_size, config.box_size // 2 + 1)
    for rows, result in simulate_tilt_batches(specimens, truth, config):
        power = result.weight * (result.multiplicity > MEASURED_MULTIPLICITY)
        roots = (power / power.amax(dim=(1, 2, 3), keepdim=True)).sqrt()
        for place, row in enumerate(rows):
            weights[row], volumes[row] = roots[place], whiten(result.data[place], roots[place])
    return volumes, weights, torch.arange(len(truth))


def tilt_weights(config: SimulationConfig) -> Float[Tensor, "m d h hw"]:
    """The wedge of each tilt range."""
    return torch.stack(
        [wedge_from_tilt_range(config.box_size, low, high, config.tilt_axis) for low, high in config.tilt_ranges]
    )


def _noise(clean: Float[Tensor, "b d h w"], rows: slice, config: SimulationConfig) -> Float[Tensor, "b d h w"]:
    """White noise of the variance that makes each particle's SNR; a particle's noise does not depend on its batch."""
    noise = torch.empty_like(clean)
    for place, row in enumerate(range(rows.start, rows.stop)):
        seed = (config.seed * 1_000_003 + row + 1) % 2**63
        torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed), out=noise[place])
    spread = clean.std(dim=(1, 2, 3), correction=0, keepdim=True) / config.snr**0.5
    return noise * spread
