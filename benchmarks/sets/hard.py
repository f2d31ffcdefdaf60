"""Classification of six complexes much alike: 20S, p97, β-galactosidase, RuBisCO, ClpB and 50S at SNR 0.05, ±60°.

python -m benchmarks.sets.hard --maps PATH --seed 3 --start corrupted --out hard3/

PATH holds 3j9i, 3cf3, 1f4a, 1bxn, 1qvr and 4v4r_50S as .mrc.gz at 10 Å. Clusters come from ``--start``:

* ``corrupted``: the truth with members traded at random, most between p97, RuBisCO and ClpB; ARI about 0.5.
* ``lumped``: p97 and RuBisCO in one cluster, 20S in two halves, and one particle in ten anywhere.
* ``run``: ``cryodc train`` and ``cryodc cluster -k 6``.

Then ``cryodc average --classify``. Prints a table and one JSON line. For each class: what ``cryodc evaluate`` says; the
FSC to the true map of the average made of all particles of the protein in their true poses; the ratio of the two
(asked: within 10 %); and pose errors modulo the symmetry whose axes are found in the true map. ``--score-only``
measures a run that is in ``--out`` already.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.command import positive
from benchmarks.command import run as run_benchmark
from benchmarks.sets.recipes import SETS
from cryodc.alignment import balanced_halves
from cryodc.averaging import AverageRequest, average_run
from cryodc.clustering import cluster_run
from cryodc.evaluation import compare_maps, evaluate_run, match_names, pose_errors
from cryodc.geometry import find_axes
from cryodc.maps import average_particles
from cryodc.models import preset_config
from cryodc.particles import Poses, read_particles
from cryodc.runs import Clusters, RunFolder, load_run_dataset, load_run_particles, save_config, write_clusters
from cryodc.simulation import SimulationConfig, Truth, choose_proteins, read_map, read_truth, write_simulation
from cryodc.star import particle_block, read_star
from cryodc.training import TrainRequest, describe_run, train_run
from cryodc.volumes import Volume

COMPLEXES = tuple(source.name for source in SETS["hard"].sources)
SYMMETRIES = {"3j9i": "D7", "1f4a": "D2", "1bxn": "C4"}
"""Of the maps as deposited: 1bxn is half of a D4 assembly. Their axes lie anywhere."""
CONFUSED = ("3cf3", "1bxn", "1qvr")
FSC = "fsc_to_truth_0.5_fraction_of_nyquist"
COLUMNS = ("class", "protein", "n_particles", "purity", "aligned", FSC)


def corrupted(truth: Truth, seed: int) -> NDArray[np.int64]:
    """Labels traded at random: 60 % of the confused keep theirs, 90 % of the others."""
    confused = [truth.proteins.index(name) for name in CONFUSED]
    chance = np.full((len(truth.proteins),) * 2, 0.02)
    np.fill_diagonal(chance, 0.9)
    for i in confused:
        chance[i, confused] = 0.17
        chance[i, i] = 0.6
    chance /= chance.sum(axis=1, keepdims=True)
    generator = np.random.default_rng(seed)
    return np.array([generator.choice(len(chance), p=chance[label]) for label in truth.labels])


def lumped(truth: Truth, seed: int) -> NDArray[np.int64]:
    """Two proteins in one cluster, one protein in two."""
    generator = np.random.default_rng(seed)
    halved, first, second = (truth.proteins.index(name) for name in ("3j9i", "3cf3", "1bxn"))
    labels = np.where(truth.labels == second, first, truth.labels)
    labels[(labels == halved) & (generator.random(len(labels)) < 0.5)] = second
    anywhere = generator.random(len(labels)) < 0.1
    labels[anywhere] = generator.integers(0, len(truth.proteins), int(anywhere.sum()))
    return labels


def clustered_run(star: Path, out: Path, labels: NDArray[np.int64]) -> RunFolder:
    """A run that was never trained, with these clusters."""
    run = RunFolder(out)
    run.path.mkdir(parents=True)
    particles = read_particles(star)
    save_config(run, describe_run(TrainRequest(star=star, out=out), particles, preset_config("default", 32)))
    run.particles.write_bytes(star.read_bytes())
    n_clusters = int(labels.max()) + 1
    clusters = Clusters(particles.names, labels, np.ones(len(labels)), 1.0, (), "made by the benchmark")
    write_clusters(run.clusters, clusters, "no codes", requested=n_clusters, seed=0)
    return run


def oracle_fraction(run: RunFolder, truth: Truth, protein: str, true_map: Path, seed: int) -> float:
    """FSC 0.5 to the true map, of Nyquist, of the average of a protein's particles in their true poses."""
    particles = load_run_particles(run)
    dataset = load_run_dataset(run, particles)
    spacing = dataset.particles.spacing_angstrom
    order = match_names(particles.names, truth, true_map)
    rows = np.flatnonzero(truth.labels[order] == truth.proteins.index(protein))
    poses = truth.poses[order[rows]]
    rotations = torch.from_numpy(poses.rotations).float()
    origins = torch.from_numpy(poses.origins_angstrom / spacing).float()
    stack = dataset.gather(torch.from_numpy(rows))
    maps = average_particles(stack, rotations, origins, balanced_halves(len(rows), seed))
    return compare_maps(Volume(maps.average.numpy(), spacing), read_map(true_map)).fraction_of_nyquist


def poses_on_axes(poses: Poses, true_map: Volume, symmetry: str) -> Poses:
    """True poses of the map turned so that its axes lie where its point group has them."""
    turn, move, agreement = find_axes(torch.from_numpy(true_map.voxels), symmetry, 0.6 * (true_map.box_size // 2))
    if agreement < 0.95:
        raise ValueError(f"the true map is not {symmetry}: its mates correlate at {agreement:.2f}")
    shift = move.double().numpy() * true_map.spacing_angstrom
    return Poses(poses.rotations @ turn.double().numpy(), poses.origins_angstrom - poses.rotations @ shift)


def pose_error(run: RunFolder, truth: Truth, number: int, protein: str, true_map: Path) -> tuple[float, float]:
    """Median pose error, degrees, and share below 10°, of a class's particles of its protein, modulo symmetry."""
    star = run.averages / "particles.star"
    found = read_particles(star, check_images=False)
    assert found.poses is not None
    classes = np.array([int(text) for text in particle_block(read_star(star)).column("rlnClassNumber")])
    order = match_names(found.names, truth, star)
    own = np.flatnonzero((classes == number) & (truth.labels[order] == truth.proteins.index(protein)))
    true, symmetry = truth.poses[order[own]], SYMMETRIES.get(protein, "C1")
    if symmetry != "C1":
        true = poses_on_axes(true, read_map(true_map), symmetry)
    errors = pose_errors(found.poses[own], true, symmetry)
    return errors.median_degrees, errors.share_close


def score_classes(run: RunFolder, answer: Path, classes: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Rows of ``cryodc evaluate``, with what true poses and labels would give, and errors modulo symmetry."""
    truth, scored = read_truth(answer), []
    for row in classes:
        true_map = answer.parent / "maps" / f"{row['protein']}.mrc"
        found, possible = row[FSC], oracle_fraction(run, truth, row["protein"], true_map, seed)
        error, close = pose_error(run, truth, row["class"], row["protein"], true_map)
        extra = {"true_poses_fraction": round(possible, 4), "ratio": round(found / possible, 3)}
        extra |= {"pose_error_median_degrees": round(error, 2), "pose_share_below_10_degrees": round(close, 3)}
        scored.append({name: row[name] for name in COLUMNS} | extra)
    return scored


def make_run(arguments: argparse.Namespace, star: Path, answer: Path) -> tuple[RunFolder, dict[str, int]]:
    """Particles, clusters and averages, and the seconds these took."""
    proteins = choose_proteins(None, [arguments.maps / f"{name}.mrc.gz" for name in COMPLEXES])
    config = SimulationConfig(n_per_map=arguments.n, snr=arguments.snr, seed=arguments.seed)
    write_simulation(proteins, config, star.parent)
    began = time.monotonic()
    if arguments.start == "run":
        overrides = {"optimisation": {"epochs": arguments.epochs}} if arguments.epochs else {}
        run, _ = train_run(TrainRequest(star, arguments.out / "run", overrides=overrides, seed=arguments.seed))
        cluster_run(run, len(COMPLEXES), seed=arguments.seed)
    else:
        make = corrupted if arguments.start == "corrupted" else lumped
        run = clustered_run(star, arguments.out / "run", make(read_truth(answer), arguments.seed))
    before, began, cpu = time.monotonic() - began, time.monotonic(), time.process_time()
    tell = None if arguments.quiet else lambda line: print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)
    symmetries = {int(number): group for number, _, group in (text.partition(":") for text in arguments.symmetry)}
    average_run(run, AverageRequest(seed=arguments.seed, classify=True, symmetries=symmetries), tell)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return run, {"clusters": round(before), "average": round(seconds), "average_cpu": round(cpu)}


def main() -> None:
    """Run the benchmark for one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, help="needed unless --score-only")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--start", choices=["corrupted", "lumped", "run"], default="corrupted")
    parser.add_argument("--epochs", type=positive, help="of --start run; by default those of the default preset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--score-only", action="store_true")
    parser.add_argument(
        "--symmetry", action="append", default=[], metavar="CLASS:GROUP", help="as cryodc average takes it"
    )
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    if arguments.maps is None and not arguments.score_only:
        parser.error("--maps PATH is needed to simulate particles")
    star, answer = arguments.out / "sim" / "particles.star", arguments.out / "sim" / "truth.csv"
    result: dict[str, Any] = {"benchmark": "hard", "cores": os.cpu_count()}
    if arguments.score_only:
        run = RunFolder(arguments.out / "run")
    else:
        run, seconds = make_run(arguments, star, answer)
        result |= {"start": arguments.start, "seed": arguments.seed, "n": arguments.n, "seconds": seconds}
    found = evaluate_run(run, answer).to_json()
    classes = score_classes(run, answer, found["classes"], arguments.seed)
    for row in classes:
        print("  ".join(str(value) for value in row.values()))
    summary = json.loads((run.averages / "summary.json").read_text())
    result |= {"clusters": found["clusters"], "final_classes": found["final_classes"], "classes": classes}
    print(json.dumps(result | {"classification": summary["classification"]}))


if __name__ == "__main__":
    run_benchmark(main)
