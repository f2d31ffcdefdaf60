"""Alignment from nothing of symmetric complexes, with their point group in the search and only imposed afterwards.

python -m benchmarks.maps.symmetric_search --maps PATH --seeds 3

PATH holds 1f4a and 3j9i as .mrc.gz. One line of JSON for each complex, seed and way; both averages are symmetric.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.command import hardware, positive, run
from cryodc.alignment import align_class
from cryodc.averaging import PlacedClass, on_axes
from cryodc.evaluation import compare_maps
from cryodc.fourier import ParticleStack, standardise
from cryodc.maps import average_particles
from cryodc.simulation import SimulationConfig, choose_proteins, simulate_particles
from cryodc.volumes import Volume

GROUPS = {"1f4a": "D2", "3j9i": "D7"}


def main() -> None:
    """Print a line for every complex, seed and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--n", type=positive, default=60)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    arguments = parser.parse_args()
    proteins = choose_proteins(None, [arguments.maps / f"{name}.mrc.gz" for name in GROUPS])
    for seed in arguments.seeds:
        for name, group in GROUPS.items():
            config = SimulationConfig(n_per_map=arguments.n, snr=arguments.snr, seed=seed)
            made = simulate_particles({name: proteins[name]}, config)
            stack = ParticleStack(standardise(made.volumes), made.weights, made.weight_index)
            truth = Volume(made.maps[0].numpy(), config.spacing_angstrom)
            for searched in ("C1", group):
                began = time.process_time()
                found = align_class(stack, seed=seed, n_starts=1, symmetry=searched)
                seconds = time.process_time() - began
                poses = (found.rotations, found.origins_voxels)
                placed = PlacedClass(
                    *poses, found.independent, found.half_sets, found.aligned, found.symmetry_note, found.symmetry
                )
                placed, imposed = on_axes(stack, placed, group, use_star=False)
                maps = average_particles(
                    stack,
                    placed.rotations,
                    placed.origins_voxels,
                    placed.half_sets,
                    placed.independent,
                    imposed,
                )
                agreement = compare_maps(Volume(maps.average.numpy(), config.spacing_angstrom), truth)
                line = {
                    "protein": name,
                    "searched": found.symmetry,
                    "imposed": imposed,
                    "fsc_to_truth_0.5_fraction_of_nyquist": round(agreement.fraction_of_nyquist, 3),
                    "cpu_seconds": round(seconds),
                    "n": arguments.n,
                    "snr": arguments.snr,
                    "seed": seed,
                }
                print(json.dumps(line | {"hardware": hardware()}), flush=True)


if __name__ == "__main__":
    run(main)
