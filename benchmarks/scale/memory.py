"""Peak memory against the number of particles: alignment and average of a class, classification, states.

python -m benchmarks.scale.memory --n 2000 8000 20000 --box 32 --memory-mib 16 --out bench-memory/

Writes white noise as a float16 pack, which costs what particles cost: memory does not depend on what is in the boxes.
Each measurement is a process of its own. Of the rounds that the verbs make it takes one: the search of all particles,
the noise, references, refinement and what is written at the end; every later round holds the same. "held" is for
comparison: the particles and their spectra in memory. Prints JSON: peak resident memory beyond that of an idle process
with the same modules, and CPU seconds.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import torch

from benchmarks.command import hardware, positive, run
from benchmarks.files.pack import packed, peak_bytes, recipe_of, write_noise
from cryodc.alignment import (
    align_class,
    balanced_halves,
    empty_poses,
    estimate_noise,
    make_references,
    refine_classes,
    search_classes,
)
from cryodc.averaging.loop import class_spectra
from cryodc.fourier import Particles, chunks, soft_sphere
from cryodc.geometry import random_rotations
from cryodc.maps import average_particles
from cryodc.states.conformations import find_conformations
from cryodc.states.measurements import PosedBatch, measure
from cryodc.states.storage import Storage

STEPS = ("average", "classify", "states")
_N_CLASSES = 2
_SHELLS = 10


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=positive, nargs="+", default=[2000, 8000, 20_000])
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--memory-mib", type=positive, default=16, help="What --memory is for a verb.")
    parser.add_argument("--held", action="store_true", help="Hold everything in memory instead.")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write_noise(arguments.out / "pack", recipe_of(max(arguments.n), arguments.box, "float16"))
    rows = [measure_step(arguments, step, n) for step in arguments.steps for n in arguments.n]
    print(json.dumps({"benchmark": "memory", "box": arguments.box, "rows": rows, "hardware": hardware()}, indent=2))


def measure_step(arguments: argparse.Namespace, step: str, n: int) -> dict[str, float | str]:
    """One measurement in a process of its own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, arguments, step, n), daemon=True)
    process.start()
    idle, peak, seconds = ours.recv()
    process.join()
    found: dict[str, float | str] = {
        "step": step,
        "particles": n,
        "idle_mib": round(idle / 2**20),
        "peak_mib": round(peak / 2**20),
        "ms_per_particle": round(1000 * seconds / n, 1),
    }
    print(json.dumps(found), flush=True)
    return found


def work(pipe: Connection, arguments: argparse.Namespace, step: str, n: int) -> None:
    """The process of one measurement."""
    dataset = packed(arguments.out / "pack", recipe_of(max(arguments.n), arguments.box, "float16"))
    budget = float("inf") if arguments.held else 2**20 * arguments.memory_mib
    rows = torch.arange(n)
    # What a first batch needs once and for all: buffers of the libraries.
    STEP[step](dataset.stored(rows[:40], budget), arguments.out, budget)
    idle, began = peak_bytes(), time.process_time()
    particles = dataset.stored(rows, budget)
    STEP[step](particles.read() if arguments.held else particles, arguments.out, budget)
    pipe.send((idle, peak_bytes(), time.process_time() - began))


@torch.no_grad()
def average(particles: Particles, folder: Path, budget: float) -> None:
    """Align a class in one round and average it."""
    start = soft_sphere(particles.box_size, particles.box_size / 4, 3.0)
    with mock.patch("cryodc.alignment.align._MAX_ROUNDS", 1):
        found = align_class(particles, start=start)
    average_particles(particles, found.rotations, found.origins_voxels, found.half_sets, found.independent)


@torch.no_grad()
def classify(particles: Particles, folder: Path, budget: float) -> None:
    """One search and one refinement of all particles on two classes, and their references."""
    n, spectra, generator = len(particles), class_spectra(particles), torch.Generator().manual_seed(0)
    halves, poses = torch.from_numpy(balanced_halves(n, 0)), empty_poses(n, _N_CLASSES, particles.device)
    shares = torch.full((n, _N_CLASSES), 1 / _N_CLASSES)
    references = make_references(spectra, halves, poses, shares, spectra.finest)
    search_classes(spectra, halves, references, 7.0, poses, list(range(_N_CLASSES)), generator)
    estimate_noise(spectra, halves, references, poses)
    refine_classes(spectra, halves, references, 7.0, poses)


@torch.no_grad()
def states(particles: Particles, folder: Path, budget: float) -> None:
    """Measure particles against their average, and look for two states."""
    n, rotations = len(particles), random_rotations(len(particles), torch.Generator().manual_seed(0))

    def batches() -> Iterator[PosedBatch]:
        for rows in chunks(n, 64):
            part = particles.select(rows).read()
            yield part.volumes, part.own_weights, rotations[rows], torch.zeros(len(part), 3)

    mask = soft_sphere(particles.box_size, particles.box_size / 3, 3.0)
    measured, _ = measure(batches, mask, _SHELLS, Storage(n, budget, folder))
    find_conformations(measured, balanced_halves(n, 0), 2, n_starts=1)


STEP = {"average": average, "classify": classify, "states": states}


if __name__ == "__main__":
    run(main)
