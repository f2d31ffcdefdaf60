"""Particles as pickers deliver them: junk, gold, neighbours, bad centring, coloured noise; from codes to final classes.

python -m benchmarks.sets.picks --tool PATH/simulate_picks.py --maps PATH/maps --mix clear --seed 3 --out picks3/

The script of the first path makes the particles, independently of cryodc. Then the commands a user would type follow:
``train``, ``cluster``, ``average --classify``. Told are, for clusters and for final classes: the share of protein
particles that is in any class, the adjusted Rand index among these, and the share of junk that is in no class of which
proteins are the greater part; and how many final classes are called a protein, and the CPU seconds of each command.
``--mix one`` is one protein alone and ``junk`` is junk alone. Goes on where it stopped.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
from sklearn.metrics import adjusted_rand_score

from benchmarks.command import positive, run, run_steps
from benchmarks.measurements import RESULTS, find_result, save_result
from cryodc.runs import AverageSummary, read_summary
from cryodc.star import particle_block, read_star

MIXES = {
    "clear": ("4v4r 4cr2 3j9i 1f4a", "360 200 100 60", "--junk 280 --snr 0.1"),
    "faint": ("3ipm 3cf3 2uv8 1bxn", "280 180 140 30", "--junk 210 --kinds 0 1 2 --colour 3 --snr 0.05"),
    "crowded": ("2uv8 4v4r_50S 1qvr 3j9i", "260 160 100 30", "--junk 150 --neighbours 0.9 --shift 4 --snr 0.1"),
    "off-centre": ("4v4r 4cr2 3j9i 1f4a", "150 150 150 150", "--neighbours 0 --shift 8 --snr 0.1"),
    "one": ("3cf3", "300", "--snr 0.1"),
    "junk": ("4v4r", "0", "--junk 280 --snr 0.1"),
}
"""Maps, particles of each, how they are recorded. Unless said: box 32, 10 Å, ±60°, shifts to 3 voxels, 60 % with
neighbours."""

FARTHEST = "140"
"""Å, beyond which ``recentre`` leaves a particle: 8 voxels along each of three axes."""


def picks_parser(told: str | None) -> argparse.ArgumentParser:
    """What is asked of every benchmark of picks."""
    parser = argparse.ArgumentParser(description=told)
    parser.add_argument("--tool", type=Path, required=True, help="simulate_picks.py")
    parser.add_argument("--maps", type=Path, required=True, help="folder of NAME.mrc.gz")
    parser.add_argument("--mix", choices=MIXES, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def make_picks(arguments: argparse.Namespace) -> Path:
    """The folder of a mix's particles, made unless it is there."""
    folder = Path(arguments.out) / "particles"
    maps, counts, recorded = MIXES[arguments.mix]
    if not (folder / "truth.csv").exists():
        files = [str(arguments.maps / f"{name}.mrc.gz") for name in maps.split()]
        made = ["--maps", *files, "--counts", *counts.split(), *recorded.split(), "--seed", str(arguments.seed)]
        subprocess.run([sys.executable, str(arguments.tool), str(folder), *made], check=True)
    return folder


def main() -> None:
    """Measure one mix for one seed."""
    parser = picks_parser(__doc__)
    parser.add_argument("--epochs", type=positive, default=1, help="of the network, which final classes do not use")
    parser.add_argument("--recentre", action="store_true", help="with cryodc recentre, before all else")
    arguments = parser.parse_args()
    method = f"{'recentred-' if arguments.recentre else ''}classified-e{arguments.epochs}"
    if find_result(arguments.results, f"picks-{arguments.mix}", method, arguments.seed):
        print("measured already")
        return
    folder, folder_of_run = make_picks(arguments), arguments.out / "run"
    wedge = ["--tilt-range", "-60", "60"]
    centred = folder.with_name("centred") if arguments.recentre else folder
    recentre = ["recentre", str(folder / "particles.star"), *wedge, "--farthest", FARTHEST, "--out", str(centred)]
    train = ["train", str(centred / "particles.star"), "--out", str(folder_of_run), *wedge]
    steps = {
        "recentre": (recentre, centred / "particles.star"),
        "train": ([*train, "--epochs", str(arguments.epochs)], folder_of_run / "codes.npz"),
        "cluster": (["cluster", str(folder_of_run)], folder_of_run / "clusters" / "clusters.star"),
        "average": (["average", str(folder_of_run), "--classify"], folder_of_run / "averages" / "particles.star"),
    }
    seconds = run_steps(steps)
    truth = pd.read_csv(folder / "truth.csv")
    classes = score(truth, folder_of_run / "averages" / "particles.star")
    summary = read_summary(folder_of_run / "averages", AverageSummary, "cryodc average")
    save_result(
        arguments.results,
        {
            "set": f"picks-{arguments.mix}",
            "method": method,
            "seed": arguments.seed,
            "ari": classes.get("ari"),
            "cpu_seconds": seconds,
            "n_called_protein": [described.verdict for described in summary.classes].count("protein"),
            "clusters": score(truth, folder_of_run / "clusters" / "clusters.star"),
            "classes": classes,
        },
    )


def score(truth: pd.DataFrame, star: Path) -> dict[str, object]:
    """What became of proteins and of junk, by the classes in a STAR."""
    block = particle_block(read_star(star))
    names = [Path(name).name for name in block.column("rlnImageName")]
    known = truth.set_index(truth.name.map(lambda name: Path(name).name)).protein.loc[names]
    table = pd.DataFrame({"protein": known.to_numpy(), "number": [int(n) for n in block.column("rlnClassNumber")]})
    table["junk"] = table.protein.str.startswith("junk")
    proteins = table[~table.junk]
    kept = proteins[proteins.number > 0]
    share = (~table[table.number > 0].junk).groupby(table.number).mean()
    of_proteins = set(share[share >= 0.5].index)
    found = {
        name: round(float(kept[kept.protein == name].number.value_counts().max() / len(rows)), 4)
        for name, rows in proteins.groupby("protein")
        if (kept.protein == name).any()
    }
    scores: dict[str, object] = {"n_classes": len(set(table.number) - {0})}
    if len(proteins):
        ari = round(float(adjusted_rand_score(kept.protein, kept.number)), 4)
        scores |= {"kept": round(len(kept) / len(proteins), 4), "ari": ari, "together": found}
    if table.junk.any():
        outside = ~table[table.junk].number.isin(of_proteins)
        scores["junk_outside"] = round(float(outside.mean()), 4)
    return scores


if __name__ == "__main__":
    run(main)
