"""Classification of six complexes much alike: 20S, p97, β-galactosidase, RuBisCO, ClpB and 50S at SNR 0.05, ±60°.

python benchmarks/hard.py --maps PATH --seed 3 --start corrupted --out hard3/

PATH holds 3j9i, 3cf3, 1f4a, 1bxn, 1qvr and 4v4r_50S as .mrc.gz at 10 Å. Clusters come from ``--start``:

* ``corrupted``: the truth with members traded at random, most between p97, RuBisCO and ClpB; ARI about 0.5.
* ``lumped``: p97 and RuBisCO in one cluster, 20S in two halves, and one particle in ten anywhere.
* ``run``: ``cryodc train`` and ``cryodc cluster -k 6``.

Then ``cryodc average --classify``. Prints a table and one JSON line.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryodc.average import average_run
from cryodc.cluster import cluster_run
from cryodc.config import preset_config
from cryodc.data.simulate import SimulationConfig
from cryodc.data.simulation_folder import choose_proteins, write_simulation
from cryodc.evaluate import evaluate_run
from cryodc.io.run import RunFolder, save_config, write_json
from cryodc.io.simulation import Truth, read_truth
from cryodc.io.star import read_particles
from cryodc.workflow import TrainRequest, describe_run, train_run

COMPLEXES = ("3j9i", "3cf3", "1f4a", "1bxn", "1qvr", "4v4r_50S")
SYMMETRIC = ("3j9i", "1f4a", "1bxn")
"""Their axes lie as deposited, so a pose error modulo symmetry has no meaning."""
CONFUSED = ("3cf3", "1bxn", "1qvr")


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
    content: dict[str, Any] = {"n_clusters": n_clusters, "requested": n_clusters, "stability": 1.0, "trials": []}
    content |= {"verdict": "made by the benchmark", "sizes": np.bincount(labels).tolist()}
    content |= {"names": list(particles.names), "labels": labels.tolist(), "confidence": [1.0] * len(labels)}
    write_json(run.clusters / "summary.json", content)
    return run


def main() -> None:
    """Run the benchmark for one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--start", choices=["corrupted", "lumped", "run"], default="corrupted")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    proteins = choose_proteins(None, [arguments.maps / f"{name}.mrc.gz" for name in COMPLEXES])
    config = SimulationConfig(n_per_map=arguments.n, snr=arguments.snr, seed=arguments.seed)
    write_simulation(proteins, config, arguments.out / "sim")
    star, answer = arguments.out / "sim" / "particles.star", arguments.out / "sim" / "truth.csv"
    began = time.monotonic()
    if arguments.start == "run":
        run, _ = train_run(TrainRequest(star, arguments.out / "run", seed=arguments.seed))
        cluster_run(run, len(COMPLEXES), seed=arguments.seed)
    else:
        make = corrupted if arguments.start == "corrupted" else lumped
        run = clustered_run(star, arguments.out / "run", make(read_truth(answer), arguments.seed))
    before, began, cpu = time.monotonic() - began, time.monotonic(), time.process_time()
    tell = None if arguments.quiet else lambda line: print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)
    average_run(run, seed=arguments.seed, classify=True, progress=tell)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    found = evaluate_run(run, answer).to_json()
    columns = ("class", "protein", "n_particles", "purity", "aligned", "fsc_to_truth_0.5_fraction_of_nyquist")
    columns += ("pose_error_median_degrees",)
    for row in found["classes"]:
        if row["protein"] in SYMMETRIC:
            row["pose_error_median_degrees"] = None
        print("  ".join(str(row[name]) for name in columns))
    result = {
        "benchmark": "hard",
        "start": arguments.start,
        "seed": arguments.seed,
        "n": arguments.n,
        "clusters": found["clusters"],
        "final_classes": found["final_classes"],
        "classes": [{name: row[name] for name in columns} for row in found["classes"]],
        "classification": json.loads((run.averages / "summary.json").read_text())["classification"],
        "seconds": {"clusters": round(before), "average": round(seconds), "average_cpu": round(cpu)},
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
