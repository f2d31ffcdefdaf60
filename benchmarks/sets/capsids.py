"""Boxes of a real tomogram of immature HIV particles: on the capsid's shell, inside and outside of it, 350 each.

python -m benchmarks.sets.capsids --data PATH --out capsids/

PATH holds particles.star and truth.csv. The commands a user would type are run: ``train``, ``cluster -k 3`` and
``cluster``. Told are the adjusted Rand index with the three places, and, of the boxes on the shell, how much of the
capsid's normal a linear probe reads from the content codes, over what it reads of shuffled normals (R²). With
``--without-moments`` codes are scores of templates alone.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from benchmarks.command import positive, run, run_steps
from benchmarks.measurements import RESULTS, save_result
from cryodc.evaluation import LinearProbe
from cryodc.runs import RunFolder, load_clusters, load_codes


def main() -> None:
    """Train once, cluster twice, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=positive, default=1, help="of the network, which template codes do not use")
    parser.add_argument("--without-moments", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    method = "scores" if arguments.without_moments else "scores-and-moments"
    out = arguments.out / f"{method}.{arguments.seed}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = arguments.out / "without_moments.yaml"
    settings.write_text("templates:\n  moments: false\n", encoding="utf-8")
    words = ["train", str(arguments.data / "particles.star"), "--out", str(out), "--tilt-range", "-60", "60"]
    words += ["--epochs", str(arguments.epochs), "--seed", str(arguments.seed)]
    words += ["--config", str(settings)] if arguments.without_moments else []
    seconds = run_steps({"train": (words, out / "codes.npz")})
    truth = pd.read_csv(arguments.data / "truth.csv").set_index("name")
    folder = RunFolder(out)
    codes = load_codes(folder)
    truth = truth.loc[[Path(name).name for name in codes.names]]
    found = {}
    for name, asked in (("three", ["-k", "3"]), ("auto", [])):
        run_steps({"cluster": (["cluster", str(out), *asked], out / "always anew")})
        clusters = load_clusters(folder)
        found[name] = {"n": clusters.n_clusters, "ari": adjusted_rand_score(truth.protein, clusters.labels)}
    shell = (truth.protein == "shell").to_numpy()
    normals = truth.loc[shell, ["nz", "ny", "nx"]].to_numpy()
    probe = LinearProbe(codes.content_points[shell], np.zeros(int(shell.sum()), dtype=np.int64)).values(normals)
    save_result(
        arguments.results,
        {
            "set": "capsids",
            "method": method,
            "seed": arguments.seed,
            "ari": round(float(found["three"]["ari"]), 4),
            "auto_k": found["auto"]["n"],
            "auto_ari": round(float(found["auto"]["ari"]), 4),
            "normal": {"corrected": round(float(probe.corrected), 4)},
            "cpu_seconds": seconds,
        },
    )


if __name__ == "__main__":
    run(main)
