"""Final classes beside clusters, on a set without junk: what ``cryodc average --classify`` gains or loses.

python -m benchmarks.sets.final_classes --set hard --data PATH --seed 3 --out hard3/

Simulates, then runs the commands a user would type: ``train``, ``cluster``, ``average --classify``. For clusters and
for final classes it tells how many there are, the adjusted Rand index with the proteins, and how many particles are in
none; and the CPU seconds of each command. Goes on where it stopped.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from benchmarks.command import positive, run, run_steps
from benchmarks.measurements import find_result, save_result
from benchmarks.sets.composition import simulate_once
from benchmarks.sets.recipes import SETS, Recipe, common_parser, set_name
from cryodc.evaluation import match_names
from cryodc.simulation import read_truth
from cryodc.star import particle_block, read_star


def main() -> None:
    """Measure one set for one seed."""
    parser = common_parser(__doc__)
    parser.add_argument("--epochs", type=positive, default=1, help="of the network, which final classes do not use")
    parser.add_argument("--out", type=Path, required=True, help="simulation and run are made below it")
    measure(parser.parse_args())


def measure(arguments: argparse.Namespace) -> None:
    """Simulate, train, cluster and classify, unless the result is there."""
    name, method = f"final-{set_name(arguments)}", f"classified-e{arguments.epochs}"
    if find_result(arguments.results, name, method, arguments.seed):
        print("measured already")
        return
    recipe = SETS[arguments.set]
    folder = arguments.out / f"{set_name(arguments)}.{arguments.seed}"
    truth, out = simulate_once(folder, recipe, arguments), folder / method
    star, run_folder = str(truth.parent / "particles.star"), str(out)
    seconds = run_steps(
        {
            "train": (
                ["train", star, "--out", run_folder, "--epochs", str(arguments.epochs), "--seed", str(arguments.seed)],
                out / "codes.npz",
            ),
            "cluster": (["cluster", run_folder], out / "clusters" / "clusters.star"),
            "average": (["average", run_folder, "--classify"], out / "averages" / "particles.star"),
        }
    )
    clusters = score(recipe, truth, out / "clusters" / "clusters.star")
    classes = score(recipe, truth, out / "averages" / "particles.star")
    result = {"set": name, "method": method, "seed": arguments.seed, "ari": classes["ari"], "cpu_seconds": seconds}
    save_result(arguments.results, result | {"clusters": clusters, "classes": classes})


def score(recipe: Recipe, truth_file: Path, star: Path) -> dict[str, float]:
    """Classes of a STAR against the proteins; particles of no class count as one class more."""
    truth, block = read_truth(truth_file), particle_block(read_star(star))
    order = match_names(block.column("rlnImageName"), truth, star)
    sources = np.array([[source.name for source in recipe.sources].index(name) for name in truth.proteins])
    families = recipe.family_of_source()[sources[truth.labels]][order]
    numbers = np.array([int(text) for text in block.column("rlnClassNumber")])
    return {
        "n_classes": len(set(numbers.tolist()) - {0}),
        "ari": round(float(adjusted_rand_score(families, numbers)), 4),
        "unassigned": int((numbers == 0).sum()),
    }


if __name__ == "__main__":
    run(main)
