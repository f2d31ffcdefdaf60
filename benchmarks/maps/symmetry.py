"""Point groups of real complexes, true and false, put to simulated half maps.

python -m benchmarks.maps.symmetry --data PATH --seed 3

PATH holds maps/ and structures/. Each map (box 32, 10 Å) is turned at random and given white noise of its own
standard deviation times ``--noise``, twice. One line of JSON for each group: the correlation of the mean with its
mates, the share of the halves' agreement that averaging over mates keeps, and whether the group is found.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.command import hardware, run
from cryodc.errors import InputError
from cryodc.fourier import density_mask, fourier_shell_correlation, low_pass
from cryodc.geometry import RESOLVED, find_confirmed_axes, random_rotations, resample
from cryodc.io import read_structure
from cryodc.simulation import prepare_specimens, read_map

GROUPS = {
    "maps/3j9i.mrc.gz": {"D7": True, "C7": True, "D6": False, "C6": False},
    "maps/1f4a.mrc.gz": {"D2": True, "C4": False},
    "maps/1bxn.mrc.gz": {"C4": True, "D4": False},
    "structures/spike/6vxx.pdb.gz": {"C3": True},
    "structures/spike/6vyb.pdb.gz": {"C3": False},
    "maps/4v4r.mrc.gz": {"C2": False},
}
"""Whether each map has the group; 1bxn is half of a D4 assembly, 6vyb a spike with one domain up."""

BOX, SPACING = 32, 10.0


def read_clean(path: Path) -> Float[Tensor, "d h w"]:
    """A complex in the benchmark's box.

    Raises
    ------
    InputError
        If the file is not there.
    """
    if not path.exists():
        raise InputError("no such file", file=path, remedy="--data holds maps/ and structures/")
    item = read_map(path) if ".mrc" in path.name else read_structure(path)
    return prepare_specimens({"complex": item}, BOX, SPACING)["complex"].mean_map(BOX, SPACING)


def half_maps(clean: Float[Tensor, "d h w"], noise: float, seed: int) -> Float[Tensor, "2 d h w"]:
    """Two maps of it in one arbitrary pose, each with noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    turn, move = random_rotations(1, generator), 0.7 * torch.randn(1, 3, generator=generator)
    turned = resample(clean[None], turn, move)
    return turned + noise * clean.std() * torch.randn((2, *clean.shape), generator=generator)


def main() -> None:
    """Print a line for every complex, noise and group."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="holds maps/ and structures/")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.3, 1.0, 2.5])
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    for file, groups in GROUPS.items():
        clean = read_clean(arguments.data / file)
        for noise in arguments.noise:
            halves = half_maps(clean, noise, arguments.seed)
            mask = density_mask(halves.mean(dim=0))
            below = np.flatnonzero(fourier_shell_correlation(halves[0] * mask, halves[1] * mask)[1:] < RESOLVED)
            radius = float(max(5, below[0] if len(below) else BOX // 2 - 1))
            average = low_pass(halves.mean(dim=0), radius, 1.0) * mask
            for group, there in groups.items():
                began = time.process_time()
                axes = find_confirmed_axes(average, halves, mask, group, radius)
                line = {
                    "map": Path(file).name.partition(".")[0],
                    "noise": noise,
                    "resolved_shells": int(radius),
                    "group": group,
                    "there": there,
                    "found": axes.found,
                    "correlation": round(axes.correlation, 2),
                    "kept": round(axes.kept, 2),
                    "seed": arguments.seed,
                    "cpu_seconds": round(time.process_time() - began, 1),
                }
                print(json.dumps(line | {"hardware": hardware()}), flush=True)


if __name__ == "__main__":
    run(main)
