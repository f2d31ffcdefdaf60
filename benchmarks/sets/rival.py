"""RELION 3.1 on the particles of a set, blind: classes from nothing by ``relion_refine``, beside those of cryodc.

python -m benchmarks.sets.rival --set easy --n 100 --data PATH --seed 3 --out rival3/
python -m benchmarks.sets.rival --picks picks3/particles --set picks-clear --n-classes 8 --seed 3 --out rival3/

RELION (Debian: ``apt-get install relion``) gets the same STAR, the same weights and the number of proteins; with junk,
as many classes as ``--n-classes`` says. References start from random orientations (``--denovo_3dref``). Then 25
iterations of expectation-maximisation follow, angles 15° and shifts 1 voxel apart. Told are the
adjusted Rand index and CPU seconds. ``benchmarks.sets.final_classes`` and ``benchmarks.sets.picks`` tell the same of
cryodc. Goes on where it stopped.
"""

import argparse
import resource
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import starfile
from sklearn.metrics import adjusted_rand_score

from benchmarks.command import positive, run
from benchmarks.measurements import find_result, save_result
from benchmarks.sets.composition import simulate_once
from benchmarks.sets.recipes import SETS, common_parser, set_name
from cryodc.fourier import wedge_from_tilt_range

SETTINGS = {
    "iter": 25,
    "tau2_fudge": 4,
    "particle_diameter": 280,
    "ini_high": 60,
    "healpix_order": 1,
    "oversampling": 1,
    "offset_range": 4,
    "offset_step": 2,
    "maxsig": 200,
    "pad": 2,
    "sym": "C1",
    "j": 1,
}
"""Angles 15° and shifts 1 voxel apart after oversampling, for the 200 best poses of the coarse grid: without that limit
the first rounds leave out hardly any, and one took 22 CPU minutes for 400 particles and four classes."""
FLAGS = ("denovo_3dref", "ctf", "norm", "scale", "flatten_solvent", "zero_mask", "dont_check_norm")


def main() -> None:
    """Measure one set for one seed."""
    parser = common_parser(__doc__, [*SETS, "picks-clear", "picks-faint"], data_required=False)
    parser.add_argument("--picks", type=Path, help="folder of simulate_picks.py, in place of --data")
    parser.add_argument("--n-classes", type=positive, help="by default the number of proteins")
    parser.add_argument("--out", type=Path, required=True)
    measure(parser.parse_args())


def measure(arguments: argparse.Namespace) -> None:
    """Run RELION and compare its classes with the truth, unless the result is there."""
    name, method = arguments.set if arguments.picks else f"final-{set_name(arguments)}", "relion-3.1"
    if find_result(arguments.results, name, method, arguments.seed):
        print("measured already")
        return
    folder = arguments.out / f"{name}.{arguments.seed}"
    star, proteins = _picks(arguments.picks) if arguments.picks else _simulated(arguments, folder)
    n_classes = arguments.n_classes or len(set(proteins.values()))
    out = folder / f"relion-k{n_classes}"
    final = out / f"run_it{SETTINGS['iter']:03d}_data.star"
    seconds = None
    if not final.exists():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        seconds = _refine(star, out, n_classes, arguments.seed)
    table = starfile.read(final)["particles"]
    true = np.array([proteins[Path(image).name] for image in table["rlnImageName"]])
    real = ~np.char.startswith(true.astype(str), "junk")
    ari = round(float(adjusted_rand_score(true[real], table["rlnClassNumber"].to_numpy()[real])), 4)
    result = {"set": name, "method": method, "seed": arguments.seed, "ari": ari, "cpu_seconds": {"relion": seconds}}
    classes = {"n_classes": n_classes, "ari": ari, "junk_outside": _junk_outside(true, table), "kept": 1.0}
    save_result(arguments.results, result | {"classes": classes})


def _refine(star: Path, out: Path, n_classes: int, seed: int) -> int:
    """Run ``relion_refine`` beside the particles; its CPU seconds."""
    options = {"i": star.name, "o": out.resolve() / "run", "K": n_classes, "random_seed": seed} | SETTINGS
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (out / "run.out").open("w") as told:
        command = ["relion_refine", *words, *(f"--{flag}" for flag in FLAGS)]
        subprocess.run(command, cwd=star.parent, check=True, stdout=told, stderr=subprocess.STDOUT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _simulated(arguments: argparse.Namespace, folder: Path) -> tuple[Path, dict[str, str]]:
    """A STAR, and the protein of each of its images."""
    recipe = SETS[arguments.set]
    truth = simulate_once(folder, recipe, arguments)
    family_of = {source.name: family for family, sources in recipe.families.items() for source in sources}
    table = pd.read_csv(truth)
    return truth.parent / "particles.star", {
        Path(name).name: family_of[protein] for name, protein in zip(table.name, table.protein, strict=True)
    }


def _picks(folder: Path) -> tuple[Path, dict[str, str]]:
    """The STAR of picks with a weight volume for every particle, and what each image shows."""
    blocks = starfile.read(folder / "particles.star", always_dict=True)
    box = int(blocks["optics"]["rlnImageSize"].iloc[0])
    with mrcfile.new(folder / "wedge.mrc", overwrite=True) as file:
        file.set_data(wedge_from_tilt_range(box, -60, 60).numpy().astype(np.float32))
    blocks["particles"]["rlnCtfImage"] = "wedge.mrc"
    starfile.write(blocks, folder / "for_relion.star", overwrite=True)
    truth = pd.read_csv(folder / "truth.csv")
    return folder / "for_relion.star", {
        Path(name).name: protein for name, protein in zip(truth.name, truth.protein, strict=True)
    }


def _junk_outside(true: np.ndarray, table: pd.DataFrame) -> float | None:
    """The share of junk in classes of which proteins are less than half; None where there is none."""
    junk = pd.Series(np.char.startswith(true.astype(str), "junk"))
    if not junk.any():
        return None
    classes = table["rlnClassNumber"].reset_index(drop=True)
    of_proteins = (~junk).groupby(classes).mean() >= 0.5
    return round(float((~of_proteins.loc[classes[junk]].to_numpy()).mean()), 4)


if __name__ == "__main__":
    run(main)
