"""Training from a pack against training from memory: rate and resident memory, on noise.

python -m benchmarks.files.pack --n 20000 --box 32 --out bench-pack/

Writes the particles as packs, float32 and float16. Three processes then take turns, one at work at a time, with the
same batches: from memory, from the float32 and from the float16 pack. Prints JSON: rates, the median over rounds of
each pack's rate over the one from memory, and the most memory each process held beyond what it held after training
on 64 particles. "batches alone" reads batches without training on them, also with the packs evicted from the page
cache before every round, as where they are larger than memory.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import hardware, positive, run
from cryodc.dataset import PackDtype, PackedArray, PackRecipe, SubtomogramDataset, find_problem, is_finished, write_pack
from cryodc.device import Team
from cryodc.fourier import standardise, view_mask, wedge_from_tilt_range
from cryodc.io import ImageReference
from cryodc.models import preset_config
from cryodc.particles import ParticleSet
from cryodc.training import start_state, train_epoch

PACKS: tuple[PackDtype, PackDtype] = ("float32", "float16")
SOURCES = ("memory", *PACKS)
BATCH_SIZE = 64

Round = Callable[[SubtomogramDataset, list[torch.Tensor]], None]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=positive, default=20_000)
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--batches", type=positive, default=4, help="Training batches in a round.")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    began = time.monotonic()
    for dtype in PACKS:
        write_noise(arguments.out / dtype, recipe_of(arguments.n, arguments.box, dtype))
    seconds = {"pack": round(time.monotonic() - began, 1)}
    began = time.monotonic()
    if find_problem(arguments.out / "float32", recipe_of(arguments.n, arguments.box, "float32")) is not None:
        raise RuntimeError("the pack that was just written is damaged")
    seconds["verify float32"] = round(time.monotonic() - began, 1)
    result = {
        "benchmark": "pack",
        "particles": arguments.n,
        "box": arguments.box,
        "training": measure(arguments, "training"),
        "batches alone": measure(arguments, "batches"),
        "batches alone, packs not in the page cache": measure(arguments, "cold"),
        "seconds": seconds,
        "hardware": hardware(),
    }
    print(json.dumps(result, indent=2))


def measure(arguments: argparse.Namespace, what: str) -> dict[str, dict[str, float]]:
    """Rates of every source in turn, and the memory of its process."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for source in SOURCES:
        pipes[source], theirs = context.Pipe()
        context.Process(target=work, args=(theirs, arguments, what, source), daemon=True).start()
        pipes[source].recv()
    rates: dict[str, list[float]] = {source: [] for source in SOURCES}
    for number in range(arguments.rounds):
        # Each source comes first as often as the others.
        for shift in range(len(SOURCES)):
            source = SOURCES[(number + shift) % len(SOURCES)]
            pipes[source].send("go")
            rates[source].append(pipes[source].recv())
    found: dict[str, dict[str, float]] = {}
    for source, pipe in pipes.items():
        pipe.send("stop")
        ratios = [a / b for a, b in zip(rates[source], rates["memory"], strict=True)]
        found[source] = {
            "particles_per_second": round(statistics.median(rates[source]), 1),
            "in_the_best_round": round(max(rates[source]), 1),
            "ratio_to_memory": round(statistics.median(ratios), 3),
            "mib_beyond_model": round(pipe.recv() / 2**20),
        }
    return found


def work(pipe: Connection, arguments: argparse.Namespace, what: str, source: str) -> None:
    """One source's process: a round of batches whenever it is told to go."""
    n, box = arguments.n, arguments.box
    few = in_memory(arguments.out / "float32", recipe_of(n, box, "float32"), 64)
    run_round = training_round(box) if what == "training" else read_round
    run_round(few, list(torch.arange(len(few)).split(BATCH_SIZE)))
    model_bytes = peak_bytes()
    if source == "memory":
        dataset = in_memory(arguments.out / "float32", recipe_of(n, box, "float32"), n)
    else:
        dataset = packed(arguments.out / source, recipe_of(n, box, "float16" if source == "float16" else "float32"))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).repeat(2)
    n_rows = BATCH_SIZE * arguments.batches * (1 if what == "training" else 50)
    place = 0
    pipe.send("ready")
    while pipe.recv() == "go":
        # Every round reads other particles.
        rows = order[place % n : place % n + n_rows]
        place += n_rows
        if what == "cold" and source != "memory":
            evict(arguments.out / source / "volumes.npy")
        began = time.monotonic()
        run_round(dataset, list(rows.split(BATCH_SIZE)))
        pipe.send(len(rows) / (time.monotonic() - began))
    pipe.send(peak_bytes() - model_bytes)


def training_round(box: int) -> Round:
    """Train the default model on some batches."""
    config = preset_config("default", box, {"optimisation": {"batch_size": BATCH_SIZE}})
    state, mask = start_state(config, 10_000, 0, torch.device("cpu")), view_mask(box)

    def run_round(dataset: SubtomogramDataset, batches: list[torch.Tensor]) -> None:
        part = Part(**vars(dataset), rows=torch.cat(batches))
        train_epoch(state, part, config, mask, 0, Team(0, 1), lambda n_particles: None)

    return run_round


def read_round(dataset: SubtomogramDataset, batches: list[torch.Tensor]) -> None:
    """Read some batches and do nothing with them."""
    for _ in dataset.batches(batches):
        pass


@dataclass(frozen=True)
class Part(SubtomogramDataset):
    """Some rows of a dataset, wherever they are."""

    rows: torch.Tensor = field(kw_only=True)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Volumes and weights of these of the rows."""
        return super().batch(self.rows[indices])


def recipe_of(n: int, box: int, dtype: PackDtype) -> PackRecipe:
    """The recipe of the noise."""
    return PackRecipe("noise", n, 1, box, 10.0, dtype, [-60.0, 60.0], None, "y", False)


def write_noise(folder: Path, recipe: PackRecipe) -> None:
    """White noise, standardised, under one wedge; a pack that is there already is used."""
    if is_finished(folder):
        return
    n, box = recipe.n_particles, recipe.box_size

    def produce(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        noise = torch.randn(stop - start, box, box, box, generator=torch.Generator().manual_seed(start))
        weights = wedge_from_tilt_range(box, -60, 60)[None][: 1 if start == 0 else 0]
        return standardise(noise).numpy(), weights.numpy()

    write_pack(folder, recipe, [f"p{i}" for i in range(n)], np.zeros(n, dtype=np.int64), produce)


def particles_of(recipe: PackRecipe, n: int) -> ParticleSet:
    """The table of the noise."""
    return ParticleSet(
        source=Path("noise.star"),
        names=tuple(f"p{i}" for i in range(n)),
        rows=np.arange(n),
        images=tuple(ImageReference(Path(f"p{i}.mrc")) for i in range(n)),
        weight_images=None,
        tomograms=("t",) * n,
        box_size=recipe.box_size,
        spacing_angstrom=recipe.spacing_angstrom,
    )


def packed(folder: Path, recipe: PackRecipe) -> SubtomogramDataset:
    """The whole pack, read as it is needed."""
    n = recipe.n_particles
    wedge = PackedArray(folder, "weights.npy", recipe)[torch.arange(1)]
    volumes = PackedArray(folder, "volumes.npy", recipe)
    return SubtomogramDataset(particles_of(recipe, n), volumes, wedge, torch.zeros(n, dtype=torch.long))


def in_memory(folder: Path, recipe: PackRecipe, n: int) -> SubtomogramDataset:
    """The first particles of a pack as one tensor."""
    whole = packed(folder, recipe)
    volumes = torch.empty(n, *whole.volumes.shape[1:])
    for rows in torch.arange(n).split(BATCH_SIZE):
        volumes[rows] = whole.volumes[rows]
    return SubtomogramDataset(particles_of(recipe, n), volumes, whole.weights, torch.zeros(n, dtype=torch.long))


def evict(path: Path) -> None:
    """Let the system forget what it holds of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_bytes() -> int:
    """Most memory this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    run(main)
