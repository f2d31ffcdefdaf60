"""States of a class with true poses: two states, one state, continuous motion; one line of JSON each.

python -m benchmarks.maps.states --phantoms clamp --seeds 3 4 5
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from benchmarks.command import positive, run
from cryodc.alignment import balanced_halves
from cryodc.fourier import ParticleStack, agreeing_shells
from cryodc.maps import HalfMaps, average_particles
from cryodc.simulation import (
    SimulationConfig,
    Specimen,
    Truth,
    draw_truth,
    phantom,
    prepare_specimens,
    simulate_batches,
    tilt_weights,
    weight_index,
)
from cryodc.states import Conformations, find_conformations, measure

KINDS = ("two", "one", "continuous")


def simulate(name: str, kind: str, n: int, snr: float, seed: int) -> tuple[tuple[torch.Tensor, ...], np.ndarray]:
    """Particles of a phantom at hinge state 0.1 or 0.9, at 0.5 alone, or anywhere between 0 and 1."""
    config = SimulationConfig(n_per_map=n, snr=snr, seed=seed)
    specimens = prepare_specimens({name: phantom(name)}, config.box_size, config.spacing_angstrom)
    truth = draw_truth(specimens, config)
    if kind == "two":
        truth.states[:] = np.where(truth.states < 0.5, 0.1, 0.9)
    elif kind == "one":
        truth.states[:] = 0.5
    return posed_particles(specimens, truth, config), truth.states


def posed_particles(
    specimens: Mapping[str, Specimen], truth: Truth, config: SimulationConfig
) -> tuple[torch.Tensor, ...]:
    """Simulated volumes, weights and which of them each has, true rotations and origins (voxels)."""
    volumes = torch.cat([batch for _, batch in simulate_batches(specimens, truth, config)])
    rotations = torch.from_numpy(truth.poses.rotations).float()
    origins = torch.from_numpy(truth.poses.origins_angstrom / config.spacing_angstrom).float()
    volumes = (volumes - volumes.mean()) / volumes.std()
    return volumes, tilt_weights(config), weight_index(truth, config), rotations, origins


def analyse(
    simulated: tuple[torch.Tensor, ...], seed: int, numbers: Sequence[int | None] = (None,)
) -> list[Conformations]:
    """As ``cryodc states`` does after ``cryodc average``, once for each number of states."""
    volumes, weights, index, rotations, origins = simulated
    halves = balanced_halves(len(volumes), seed)
    maps = average_particles(ParticleStack(volumes, weights, index), rotations, origins, halves)
    particles, _ = measure(lambda: [(volumes, weights[index], rotations, origins)], maps.mask, supported_shells(maps))
    return [find_conformations(particles, halves, number, seed=seed) for number in numbers]


def supported_shells(maps: HalfMaps) -> int:
    """Shells before the half maps' FSC first falls below 0.143; at least 3."""
    return max(3, min(agreeing_shells(maps.fsc), len(maps.fsc) - 2))


def main() -> None:
    """Print a line for every phantom, kind, SNR and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", nargs="+", default=["clamp"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--n", type=positive, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    arguments = parser.parse_args()
    cases = itertools.product(arguments.phantoms, arguments.kinds, arguments.snr, arguments.seeds)
    for name, kind, snr, seed in cases:
        particles, states = simulate(name, kind, arguments.n, snr, seed)
        begun = time.perf_counter()
        (found,) = analyse(particles, seed)
        result: dict[str, Any] = {
            "phantom": name,
            "kind": kind,
            "snr": snr,
            "seed": seed,
            "n": arguments.n,
            "n_states": found.n_states,
            "axes_supported": found.axes_supported,
        }
        if kind == "two":
            result["ari"] = round(float(adjusted_rand_score(states > 0.5, found.labels)), 3)
        if kind == "continuous":
            result["correlation_of_axis_1"] = round(abs(float(np.corrcoef(states, found.coordinates[:, 0])[0, 1])), 3)
        seconds = round(time.perf_counter() - begun, 1)
        print(
            json.dumps(
                result
                | {
                    "seconds": seconds,
                    "verdict": found.verdict,
                    "trials": [[round(v, 2) for v in vars(t).values()] for t in found.trials],
                    "cores": os.cpu_count(),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    run(main)
