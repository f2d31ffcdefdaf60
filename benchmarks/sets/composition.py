"""Composition and disentanglement of a set without poses, as a user would measure them.

python -m benchmarks.sets.composition --set easy --data PATH --seed 3 --out easy3/

Simulates, trains, clusters with the number of proteins and without, and compares with the truth. Composition is the
protein; the transformation labels are the conformation within each protein and four bins of pose within each source.
Goes on where it stopped: what is there is not simulated, trained or measured again.
"""

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from benchmarks.command import Overrides, positive, run
from benchmarks.measurements import find_result, save_result
from benchmarks.sets.recipes import (
    SETS,
    Recipe,
    common_parser,
    read_proteins,
    set_name,
    simulation_config,
)
from cryodc.clustering import cluster_codes, cluster_run
from cryodc.codes import Codes
from cryodc.evaluation import (
    RunSources,
    composition_scores,
    disentangle,
    disentangle_labels,
    match_names,
    measure_leakage,
    probe_json,
    true_factors,
)
from cryodc.runs import Clusters, RunFolder, load_codes
from cryodc.simulation import read_truth, write_simulation
from cryodc.training import TrainRequest, train_run

_LEAKS = ("orientation", "shift", "wedge_particle", "wedge_tomogram", "identity")


def main() -> None:
    """Measure one model on one set for one seed."""
    parser = common_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="simulation and run are made below it")
    parser.add_argument("--model", default="dualcontrast")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--epochs", type=positive)
    parser.add_argument("--network-box", type=positive, help="voxels; by default what follows from the views")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    parts = [arguments.model, arguments.preset if arguments.preset != "default" else ""]
    overrides: Overrides = {}
    if arguments.epochs:
        parts.append(f"e{arguments.epochs}")
        overrides["optimisation"] = {"epochs": arguments.epochs}
    if arguments.network_box:
        parts.append(f"box{arguments.network_box}")
        overrides["model"] = {"box_size": arguments.network_box}
    method = "-".join(part for part in parts if part)
    measure(arguments, method, overrides, arguments.preset)


def measure(
    arguments: argparse.Namespace, method: str, overrides: Overrides, preset: str = "default", of_network: bool = False
) -> None:
    """Simulate, train, cluster and evaluate, unless the result is there.

    Parameters
    ----------
    arguments
        Those of the set, and ``out``, ``model`` and ``device``.
    method
        Its name in the result.
    overrides, preset
        See :class:`cryodc.training.workflow.TrainRequest`.
    of_network
        Judge the codes of the network, though there are templates.
    """
    if find_result(arguments.results, set_name(arguments), method, arguments.seed):
        return
    settings = with_model(overrides, arguments.model)
    recipe = SETS[arguments.set]
    folder = arguments.out / f"{set_name(arguments)}.{arguments.seed}"
    truth_file = simulate_once(folder, recipe, arguments)
    path = folder / method
    began = time.monotonic()
    # Seconds are those of this call: of a run that was resumed, only the rest.
    resumed = RunFolder(path).config.exists()
    request = TrainRequest(
        folder / "sim" / "particles.star",
        path,
        preset=preset,  # type: ignore[arg-type]
        overrides=settings,
        seed=arguments.seed,
        device=arguments.device,
        resume=resumed,
    )
    folder_of_run, _ = train_run(request)
    seconds = round(time.monotonic() - began)
    result = {
        "set": set_name(arguments),
        "method": method,
        "seed": arguments.seed,
        "seconds": None if resumed else seconds,
        **compare(folder_of_run, truth_file, recipe, arguments.seed, of_network),
    }
    save_result(arguments.results, result)


def with_model(overrides: Overrides, model: str) -> Overrides:
    """Settings of a model of this name."""
    if model == "dualcontrast":
        return overrides
    return {**overrides, "model": {**overrides.get("model", {}), "name": model}}


def simulate_once(folder: Path, recipe: Recipe, arguments: argparse.Namespace) -> Path:
    """Simulate unless it was done; returns the truth. Half a simulation is made anew."""
    done, partial = folder / "sim", folder / "sim.part"
    if not done.exists():
        shutil.rmtree(partial, ignore_errors=True)
        write_simulation(read_proteins(recipe, arguments.data), simulation_config(recipe, arguments), partial)
        partial.rename(done)
    return done / "truth.csv"


def compare(run: RunFolder, truth_file: Path, recipe: Recipe, seed: int, of_network: bool = False) -> dict[str, Any]:
    """Composition at the true and at the chosen number of classes, what each code tells of each label, and leakage."""
    codes = load_codes(run)
    if of_network:
        codes = replace(codes, template_content=None, template_pose=None)
    chosen = cluster_codes(codes, None, seed=seed) if of_network else cluster_run(run, None, seed=seed)
    truth = read_truth(truth_file)
    names = [source.name for source in recipe.sources]
    order = match_names(codes.names, truth, truth_file)
    sources = np.array([names.index(protein) for protein in truth.proteins])[truth.labels][order]
    groups = dict(zip(truth.proteins, truth.symmetries, strict=True))
    factors = [f for f in true_factors(RunSources(run, codes.names), truth, order, groups) if f.name in _LEAKS]
    orientation = next(factor for factor in factors if factor.name == "orientation")
    poses = [row for row in disentangle(codes, truth, order, orientation) if row.factor == "pose"]
    told = composition(codes, sources, recipe.family_of_source(), seed)
    published = recipe.published_of_source()
    return {
        "n_particles": len(sources),
        **told,
        **blind_result(chosen, sources, recipe),
        "disentanglement": [*told["disentanglement"], *(row.to_json() for row in poses)],
        "leakage": [
            {"factor": row.name, "content": probe_json(row.content)} for row in measure_leakage(codes, factors).rows
        ],
        **({} if published is None else {"as_published": composition(codes, sources, published, seed)}),
    }


def composition(
    codes: Codes, sources: Int[NDArray[np.int64], " n"], family_of_source: Int[NDArray[np.int64], " k"], seed: int
) -> dict[str, Any]:
    """Clusters told how many proteins there are, and what each code tells of protein and conformation."""
    families = family_of_source[sources]
    clusters = cluster_codes(codes, len(np.unique(family_of_source)), seed=seed)
    scores = composition_scores(clusters.labels, families)
    each = codes.content_points, codes.transformation_told
    labels = [
        disentangle_labels("protein", *each, families, np.zeros_like(families)),
        disentangle_labels("conformation", *each, sources, families),
    ]
    return {
        "ari": round(scores.ari, 4),
        "accuracy": round(scores.accuracy, 4),
        "stability": round(clusters.stability, 3),
        "disentanglement": [row.to_json() for row in labels],
    }


def blind_result(chosen: Clusters, sources: Int[NDArray[np.int64], " n"], recipe: Recipe) -> dict[str, Any]:
    """What `-k auto` finds: how many clusters, their ARI with the proteins, and how many of each source they hold."""
    ari = composition_scores(chosen.labels, recipe.family_of_source()[sources]).ari
    counts = np.zeros((len(recipe.sources), chosen.n_clusters), dtype=np.int64)
    np.add.at(counts, (sources, chosen.labels), 1)
    of_source = dict(zip((source.name for source in recipe.sources), counts.tolist(), strict=True))
    return {"auto_k": chosen.n_clusters, "auto_ari": round(ari, 4), "verdict": chosen.verdict, "auto_counts": of_source}


if __name__ == "__main__":
    run(main)
