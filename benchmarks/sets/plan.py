"""What `cryodc plan` expects of two proteins, against what `cluster` and `average --classify` make of them.

python -m benchmarks.sets.plan --data PATH --maps 3cf3 1qvr --snr 0.02 --n 60 --seed 3 --out plan/

Makes ``n`` particles of each map (box 32, 10 Å, ±60°), plans with another seed from these particles, and classifies
them from nothing as a user would: ``train``, ``cluster -k 2``, ``average --classify``. Told are the expected and the
measured ARI, the expected and the measured resolution of the averages, and CPU seconds. Goes on where it stopped.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.metrics import adjusted_rand_score

from benchmarks.command import positive, run, run_steps
from benchmarks.measurements import RESULTS, find_result, save_result
from cryodc.star import particle_block, read_star


def main() -> None:
    """Measure one pair of maps at one SNR for one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="holds maps/")
    parser.add_argument("--maps", nargs=2, required=True, help="names below maps/")
    parser.add_argument("--snr", type=float, required=True)
    parser.add_argument("--n", type=positive, default=60, help="particles of each map")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    method = f"{'-'.join(arguments.maps)}-n{arguments.n}-snr{arguments.snr:g}"
    if find_result(arguments.results, "plan", method, arguments.seed):
        print("measured already")
        return
    sim, folder = arguments.out / method / f"sim{arguments.seed}", arguments.out / method / f"run{arguments.seed}"
    maps = [word for name in arguments.maps for word in ("--map", str(arguments.data / "maps" / f"{name}.mrc.gz"))]
    made = ["--n", str(arguments.n), "--snr", str(arguments.snr), "--seed", str(arguments.seed), "--out", str(sim)]
    steps = {
        "simulate": (["simulate", *maps, *made], sim / "particles.star"),
        "train": (["train", str(sim / "particles.star"), "--out", str(folder), "--epochs", "1"], folder / "codes.npz"),
        "cluster": (["cluster", str(folder), "-k", "2"], folder / "clusters" / "clusters.star"),
        "average": (["average", str(folder), "--classify"], folder / "averages" / "particles.star"),
    }
    seconds = run_steps(steps)
    expected = plan(sim / "particles.star", maps, arguments.n, arguments.seed + 1000)
    truth = pd.read_csv(sim / "truth.csv").set_index("name").protein
    measured = {
        "cluster": score(truth, folder / "clusters" / "clusters.star"),
        "classes": score(truth, folder / "averages" / "particles.star"),
    }
    (pair, known) = expected["separations"]
    result: dict[str, Any] = {
        "set": "plan",
        "method": method,
        "seed": arguments.seed,
        "ari": measured["classes"],
        "ari_clusters": measured["cluster"],
        "expected": {"ari": pair["ari"], "low": pair["ari_interval"][0], "high": pair["ari_interval"][1]},
        "expected_known_maps": known["ari"],
        "distance": pair["distance"],
        "snr_measured": expected["measured"]["snr"],
        "resolution_expected": {one["name"]: one["resolution_angstrom"] for one in expected["maps"]},
        "resolution_measured": resolutions(folder, truth),
        "cpu_seconds": seconds,
    }
    save_result(arguments.results, result)


def plan(star: Path, maps: list[str], n: int, seed: int) -> dict[str, Any]:
    """What `cryodc plan` says of so many particles."""
    words = ["plan", str(star), *maps, "--particles", str(n), "--seed", str(seed), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "cryodc_cli.main", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def score(truth: "pd.Series[str]", star: Path) -> float:
    """Adjusted Rand index of the classes in a STAR; particles in none are a class of their own."""
    return round(float(adjusted_rand_score(truth.loc[_names(star)], _classes(star))), 4)


def resolutions(folder: Path, truth: "pd.Series[str]") -> dict[str, float]:
    """Resolution of the class that most particles of each protein are in, where it has one."""
    star = folder / "averages" / "particles.star"
    table = pd.DataFrame({"protein": truth.loc[_names(star)].to_numpy(), "number": _classes(star)})
    summary = json.loads((folder / "averages" / "summary.json").read_text(encoding="utf-8"))
    found = {entry["class"]: entry["resolution_angstrom"] for entry in summary["classes"]}
    most = table[table.number > 0].groupby("protein").number.agg(lambda numbers: numbers.mode()[0])
    return {name: found[number] for name, number in most.items() if found.get(number) is not None}


def _names(star: Path) -> list[str]:
    return list(particle_block(read_star(star)).column("rlnImageName"))


def _classes(star: Path) -> list[int]:
    return [int(text) for text in particle_block(read_star(star)).column("rlnClassNumber")]


if __name__ == "__main__":
    run(main)
