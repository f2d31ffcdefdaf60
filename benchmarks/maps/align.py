"""Alignment from nothing, one protein at a time: how far the average agrees with the truth, and is noise called noise.

python -m benchmarks.maps.align --maps PATH --seeds 3 4 5

PATH holds 3j9i, 4cr2, 4v4r and 1bxn as .mrc.gz. Without --maps the four phantoms of the demo are aligned. Prints one
JSON line per protein and seed, and one per seed for as many particles of pure noise.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import positive, run
from cryodc.alignment import Alignment, align_class
from cryodc.errors import InputError
from cryodc.evaluation import compare_maps, pose_errors
from cryodc.fourier import ParticleStack, apply_weight, standardise
from cryodc.maps import average_particles
from cryodc.particles import Poses
from cryodc.simulation import (
    Phantom,
    SimulatedParticles,
    SimulationConfig,
    choose_proteins,
    demo_phantoms,
    simulate_particles,
)
from cryodc.volumes import Volume

COMPLEXES = ("3j9i", "4cr2", "4v4r", "1bxn")
SYMMETRIC = ("3j9i", "1bxn")
"""Their axes lie as deposited, so a pose error modulo symmetry has no meaning."""


def align(particles: SimulatedParticles, volumes: torch.Tensor, config: SimulationConfig) -> tuple[Alignment, float]:
    """Align as ``cryodc average`` does, and say how long it took."""
    began = time.perf_counter()
    stack = ParticleStack(standardise(volumes), particles.weights, particles.weight_index)
    return align_class(stack, seed=config.seed, n_starts=2), time.perf_counter() - began


def run_protein(name: str, item: Volume | Phantom, config: SimulationConfig) -> dict[str, Any]:
    """Simulate one protein, align it, and compare with the truth."""
    particles = simulate_particles({name: item}, config)
    found, seconds = align(particles, particles.volumes, config)
    stack = ParticleStack(standardise(particles.volumes), particles.weights, particles.weight_index)
    maps = average_particles(stack, found.rotations, found.origins_voxels, found.half_sets, found.independent)
    spacing = config.spacing_angstrom
    agreement = compare_maps(Volume(maps.average.numpy(), spacing), Volume(particles.maps[0].numpy(), spacing))
    estimated = Poses(found.rotations.double().numpy(), found.origins_voxels.double().numpy() * spacing)
    errors = pose_errors(estimated, particles.truth.poses, particles.truth.symmetries[0])
    return {
        "protein": name,
        "symmetry": particles.truth.symmetries[0],
        "aligned": found.aligned,
        "evidence": round(found.evidence, 2),
        "fsc_to_truth_0.5_fraction_of_nyquist": round(agreement.fraction_of_nyquist, 2),
        "pose_error_median_degrees": None if name in SYMMETRIC else round(errors.median_degrees, 2),
        "seconds": round(seconds),
    }


def run_noise(like: Mapping[str, Volume | Phantom], config: SimulationConfig) -> dict[str, Any]:
    """Align as many particles that hold nothing but noise in the same wedge."""
    particles = simulate_particles(dict(list(like.items())[:1]), config)
    noise = torch.randn(particles.volumes.shape, generator=torch.Generator().manual_seed(config.seed))
    found, seconds = align(particles, apply_weight(noise, particles.weights[particles.weight_index]), config)
    return {
        "protein": "noise",
        "aligned": found.aligned,
        "evidence": round(found.evidence, 2),
        "seconds": round(seconds),
    }


def main() -> None:
    """Run every protein and the null for every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--only", nargs="+", help="names of the proteins to run, and noise")
    parser.add_argument("--n", type=positive, default=80)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    arguments = parser.parse_args()
    proteins: Mapping[str, Volume | Phantom] = demo_phantoms()
    if arguments.maps is not None:
        proteins = choose_proteins(None, [arguments.maps / f"{name}.mrc.gz" for name in COMPLEXES])
    names = arguments.only or [*proteins, "noise"]
    for name in names:
        if name not in (*proteins, "noise"):
            raise InputError("no such protein", expected=", ".join([*proteins, "noise"]), found=f"--only {name}")
    base = SimulationConfig(n_per_map=arguments.n, snr=arguments.snr)
    for seed in arguments.seeds:
        config = replace(base, seed=seed)
        for name in names:
            result = run_noise(proteins, config) if name == "noise" else run_protein(name, proteins[name], config)
            shared = {"n": arguments.n, "snr": arguments.snr, "seed": seed, "cores": os.cpu_count()}
            print(json.dumps(result | shared), flush=True)


if __name__ == "__main__":
    run(main)
