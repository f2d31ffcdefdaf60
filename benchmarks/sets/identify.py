"""Name averages of simulated particles, and of 40 real ribosomes, after a library of maps and structures.

python -m benchmarks.sets.identify --data PATH

The library is all of PATH/maps and PATH/structures. Averages are of 100 particles at SNR 0.05, in true poses or, with
``--found``, in poses found from nothing as ``cryodc average`` finds them.
Each protein is looked for twice: in the whole library, and in what is left without it and its relatives, with the
decoys that were made of what is left. Prints one JSON line for each. Thresholds were chosen on ``--proteins`` CHOSEN.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import positive, run
from cryodc.alignment import align_class, balanced_halves
from cryodc.averaging import AverageRequest
from cryodc.dataset import load_dataset
from cryodc.fourier import ParticleStack, agreeing_shells, standardise
from cryodc.identify import Known, Match, class_map, comparison_box, make_decoys, match, rank, read_library
from cryodc.maps import HalfMaps, average_particles
from cryodc.particles import read_particles
from cryodc.simulation import SimulatedParticles, SimulationConfig, choose_proteins, simulate_particles

CHOSEN = ("3j9i", "4v4r", "1qvr")
REPORTED = ("4cr2", "1bxn", "3cf3", "1f4a", "2uv8", "6xcm", "1kx5", "ribosomes")
RELATIVES = (
    ("3j9i", "3ipm", "4cr2"),
    ("4v4r", "4v4r_50S", "ribosomes"),
    ("1bxn",),
    ("6vxx", "6vyb", "6vsb", "6xcm"),
    ("1kx5", "3lz0", "1KX5_cryst"),
)
"""Proteins that are a part of each other, or states of one, by how their files begin."""
BOX, SPACING = 32, 10.0


def relatives(name: str) -> tuple[str, ...]:
    """A protein and what it is related to."""
    return next((group for group in RELATIVES if name in group), (name,))


def main() -> None:
    """Print what each average is called."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--proteins", nargs="+", default=REPORTED, choices=(*CHOSEN, *REPORTED))
    parser.add_argument("--particles", type=positive, default=100)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--found", action="store_true", help="find the poses of simulated particles from nothing")
    options = parser.parse_args()
    for name in options.proteins:
        began = time.process_time()
        if name == "ribosomes":
            maps, spacing = real_average(options.data / "real/ribosome70s"), 12.0
        else:
            particles = simulated(options.data, name, options.particles, options.seed)
            maps, spacing = simulated_average(particles, options.seed, options.found), SPACING
        box = comparison_box(maps.average.shape[-1], agreeing_shells(maps.fsc))
        shown = class_map(maps.average, maps.mask, maps.coverage.volume, maps.fsc, spacing, box)
        with tempfile.TemporaryDirectory() as folder:
            library = read_library(linked(options.data, Path(folder)), box, shown.spacing_angstrom)
        matches = {each.name: match(shown, each.specimen) for each in library.known}
        decoys = [(each, match(shown, each.specimen)) for each in make_decoys(library.known, 24, options.seed)]
        for without in ((), relatives(name)):
            known = [each for each in library.known if not is_of(each, without)]
            null = [found for each, found in decoys if not is_of(each, without)]
            print(json.dumps(describe(name, known, matches, null, shown.last)), flush=True)
        print(f"# {time.process_time() - began:.0f} s of CPU", flush=True)


def describe(
    name: str, known: Sequence[Known], matches: Mapping[str, Match], decoys: Sequence[Match], last: int
) -> dict[str, object]:
    """One line of the result."""
    verdict = rank({each.name: matches[each.name] for each in known}, decoys)
    first = matches[verdict.order[0]]
    return {
        "class": name,
        "library": len(known),
        "answer": verdict.name or "none",
        "best": [
            (each, round(matches[each].agreement, 3), round(z, 1))
            for each, z in list(zip(verdict.order, verdict.z, strict=True))[:3]
        ],
        "hand": first.hand,
        "hand_margin": round(first.hand_margin, 3),
        "fsc_0.5": round(first.resolutions[0], 1),
        "best_decoy": round(max(decoy.agreement for decoy in decoys), 3),
        "shells": last,
    }


def is_of(each: Known, names: Sequence[str]) -> bool:
    """Whether a structure of the library is one of these."""
    return each.file.name.startswith(tuple(names))


def linked(data: Path, folder: Path) -> Path:
    """Maps and structures in one folder."""
    for file in (*data.glob("maps/*.gz"), *data.glob("structures/**/*.gz")):
        (folder / file.name).symlink_to(file.resolve())
    return folder


def simulated(data: Path, name: str, n_particles: int, seed: int) -> SimulatedParticles:
    """Particles of one protein."""
    maps = [path for path in (data / "maps").iterdir() if path.name == f"{name}.mrc.gz"]
    structures = [] if maps else [next((data / "structures").rglob(f"{name}.pdb.gz"))]
    config = SimulationConfig(n_per_map=n_particles, snr=0.05, box_size=BOX, spacing_angstrom=SPACING, seed=seed)
    return simulate_particles(choose_proteins([], maps, structures), config)


def simulated_average(particles: SimulatedParticles, seed: int, found: bool) -> HalfMaps:
    """Of particles in their true poses, or in those found from nothing."""
    stack = ParticleStack(standardise(particles.volumes), particles.weights, particles.weight_index)
    if found:
        aligned = align_class(stack, seed=seed, n_starts=AverageRequest().n_starts)
        if not aligned.aligned:
            print(f"# not aligned: evidence {aligned.evidence:.2f}", flush=True)
        poses = aligned.rotations, aligned.origins_voxels
        return average_particles(stack, *poses, aligned.half_sets, aligned.independent)
    true = particles.truth.poses
    return averaged(stack, true.rotations, true.origins_angstrom / SPACING)


def real_average(folder: Path) -> HalfMaps:
    """Of the ribosomes in the poses of their STAR."""
    dataset = load_dataset(read_particles(folder / "particles.star", folder))
    poses = dataset.particles.poses
    assert poses is not None
    stack = dataset.gather(torch.arange(len(dataset)))
    return averaged(stack, poses.rotations, poses.origins_angstrom / dataset.particles.spacing_angstrom)


def averaged(stack: ParticleStack, rotations: np.ndarray, origins_voxels: np.ndarray) -> HalfMaps:
    """Average and half maps in these poses."""
    halves = balanced_halves(len(stack), 0)
    return average_particles(
        stack, torch.from_numpy(rotations).float(), torch.from_numpy(origins_voxels).float(), halves
    )


if __name__ == "__main__":
    run(main)
