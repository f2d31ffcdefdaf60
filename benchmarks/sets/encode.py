"""Particles left out of training, encoded by the run of the others: their clusters beside those of a run with all.

python -m benchmarks.sets.encode --set easy --n 100 --data PATH --seed 3 --out encode3/

Simulates; trains and clusters one run with all particles and one without every fifth; encodes those by the latter. Told
are the adjusted Rand indices of their clusters with those of the run with all and with the truth, of the training
particles encoded again with their own clusters, and particles per CPU second and per second of either: what is made
once, whatever the number of particles, counts less among more of them. Prints one JSON line. Goes on where it stopped.
"""

import json
import shutil
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from benchmarks.command import hardware, positive, run
from benchmarks.sets.composition import simulate_once
from benchmarks.sets.recipes import SETS, common_parser, set_name
from cryodc.clustering import cluster_run
from cryodc.runs import Clusters, RunFolder, load_clusters
from cryodc.simulation import read_truth
from cryodc.star import find_particle_block, read_star, write_star
from cryodc.training import Encoded, EncodeRequest, TrainRequest, encode_new, train_run

EVERY = 5


def main() -> None:
    """Measure one set for one seed."""
    parser = common_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="simulation and runs are made below it")
    parser.add_argument("--epochs", type=positive, help="of the network; clusters are made of templates")
    arguments = parser.parse_args()
    folder = arguments.out / f"{set_name(arguments)}.{arguments.seed}"
    truth = read_truth(simulate_once(folder, SETS[arguments.set], arguments))
    document = read_star(folder / "sim" / "particles.star")
    block = find_particle_block(document)
    left_out = np.arange(block.n_rows) % EVERY == 0
    stars = {"all": folder / "sim" / "particles.star"}
    for name, rows in (("most", ~left_out), ("rest", left_out)):
        stars[name] = folder / "sim" / f"{name}.star"
        if not stars[name].exists():
            write_star(document.with_rows(block.name, np.flatnonzero(rows)), stars[name])
    overrides = {"optimisation": {"epochs": arguments.epochs}} if arguments.epochs else {}
    runs = {name: _trained(folder / name, stars[name], arguments.seed, overrides) for name in ("all", "most")}
    known = {name: load_clusters(found) for name, found in runs.items()}
    label = dict(zip(known["all"].names, known["all"].labels.tolist(), strict=True))
    protein = dict(zip(truth.names, truth.labels.tolist(), strict=True))
    found, seconds = _encoded(runs["most"], stars["rest"], folder / "rest")
    again, seconds_of_more = _encoded(runs["most"], stars["most"], folder / "again")
    record = {
        "set": set_name(arguments),
        "seed": arguments.seed,
        "n_clusters": {name: clusters.n_clusters for name, clusters in known.items()},
        "n_left_out": len(found.codes),
        "ari_with_run_of_all": _ari(found, label),
        "ari_with_truth": _ari(found, protein),
        "ari_of_run_of_all_with_truth": _agreement(known["all"], protein),
        "ari_of_training_particles_again": _ari(
            again, dict(zip(known["most"].names, known["most"].labels, strict=True))
        ),
        **seconds,
        "n_training_particles": len(again.codes),
        **{f"{name}_of_training_particles": rate for name, rate in seconds_of_more.items()},
        "hardware": hardware(),
    }
    print(json.dumps(record))


def _trained(path: Path, star: Path, seed: int, overrides: dict[str, dict[str, int]]) -> RunFolder:
    found = RunFolder(path)
    if not (found.clusters / "summary.json").exists():
        found, _ = train_run(TrainRequest(star, path, overrides=overrides, seed=seed, resume=found.config.exists()))
        cluster_run(found, seed=seed)
    return found


def _encoded(run_of: RunFolder, star: Path, out: Path) -> tuple[Encoded, dict[str, float]]:
    """The particles of a STAR, encoded anew, and how many in a CPU second and in a second."""
    shutil.rmtree(out, ignore_errors=True)
    began, cpu = time.monotonic(), time.process_time()
    found = encode_new(EncodeRequest(star, out, run_of))
    n = len(found.codes)
    per_cpu, per_second = n / (time.process_time() - cpu), n / (time.monotonic() - began)
    return found, {"per_cpu_second": round(per_cpu, 1), "per_second": round(per_second, 1)}


def _ari(found: Encoded, known: dict[str, int]) -> float:
    assert found.labels is not None
    return round(float(adjusted_rand_score([known[name] for name in found.codes.names], found.labels)), 4)


def _agreement(clusters: Clusters, known: dict[str, int]) -> float:
    return round(float(adjusted_rand_score([known[name] for name in clusters.names], clusters.labels)), 4)


if __name__ == "__main__":
    run(main)
