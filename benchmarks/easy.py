"""Composition of four complexes without poses: 20S, 26S, 70S and RuBisCO, 400 particles each, SNR 0.1, ±60°.

python benchmarks/easy.py --maps PATH --seed 3 --out easy3/

PATH holds 3j9i, 4cr2, 4v4r and 1bxn as .mrc.gz at 10 Å. Runs simulate, train, cluster -k 4 and cluster -k auto as a
user would, and prints one JSON line with the composition scores and the wall time of each step.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

from cryodc.cluster import cluster_run
from cryodc.data.simulate import SimulationConfig
from cryodc.data.simulation_folder import choose_proteins, write_simulation
from cryodc.evaluate import evaluate_run
from cryodc.workflow import TrainRequest, train_run

COMPLEXES = ("3j9i", "4cr2", "4v4r", "1bxn")


def main() -> None:
    """Run the benchmark for one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    seconds: dict[str, float] = {}
    began = time.monotonic()
    proteins = choose_proteins(None, [arguments.maps / f"{name}.mrc.gz" for name in COMPLEXES])
    config = SimulationConfig(n_per_map=arguments.n, snr=arguments.snr, seed=arguments.seed)
    write_simulation(proteins, config, arguments.out / "sim")
    seconds["simulate"], began = time.monotonic() - began, time.monotonic()
    star = arguments.out / "sim" / "particles.star"
    run, _ = train_run(TrainRequest(star, arguments.out / "run", seed=arguments.seed, device=arguments.device))
    seconds["train"], began = time.monotonic() - began, time.monotonic()
    clusters = cluster_run(run, len(COMPLEXES), seed=arguments.seed)
    seconds["cluster"] = time.monotonic() - began
    scores = evaluate_run(run, arguments.out / "sim" / "truth.csv").to_json()
    auto = cluster_run(run, None, seed=arguments.seed)
    result = {
        "benchmark": "easy",
        "seed": arguments.seed,
        "composition": scores["clusters"],
        "sizes": clusters.sizes,
        "stability": round(clusters.stability, 3),
        "auto_k": auto.n_clusters,
        "verdict": auto.verdict,
        "seconds": {name: round(value) for name, value in seconds.items()},
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "torch_threads": torch.get_num_threads()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
