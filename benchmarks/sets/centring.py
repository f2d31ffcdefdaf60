"""Picks off centre: how far particles lie from the middle of their boxes, as picked and after ``cryodc recentre``.

python -m benchmarks.sets.centring --tool PATH/simulate_picks.py --maps PATH/maps --mix crowded --seed 3 --out off3/

The particles are those of ``benchmarks.sets.picks``; junk is left out. Told are, before and after, the median and the
90th percentile of the distance, in voxels, and the share of particles that lie more than 3 voxels off.
"""

import numpy as np
import pandas as pd

from benchmarks.command import run, run_steps
from benchmarks.measurements import find_result, save_result
from benchmarks.sets.picks import make_picks, picks_parser

SPACING = 10.0
"""Å per voxel of these picks."""


def main() -> None:
    """Measure one mix for one seed."""
    parser = picks_parser(__doc__)
    parser.add_argument("--farthest", help="Å beyond which a particle is left; by default that of cryodc recentre")
    arguments = parser.parse_args()
    name, method = f"centring-{arguments.mix}", f"recentre-{arguments.farthest or 'default'}"
    if find_result(arguments.results, name, method, arguments.seed):
        print("measured already")
        return
    folder, centred = make_picks(arguments), arguments.out / "centred"
    words = ["recentre", str(folder / "particles.star"), "--tilt-range", "-60", "60"]
    words += [] if arguments.farthest is None else ["--farthest", arguments.farthest]
    seconds = run_steps({"recentre": ([*words, "--out", str(centred)], centred / "particles.star")})
    truth, shifts = pd.read_csv(folder / "truth.csv"), pd.read_csv(centred / "shifts.csv")
    both = truth[~truth.protein.str.startswith("junk")].merge(shifts, on="name", validate="one_to_one")
    true = both[["dx", "dy", "dz"]].to_numpy()
    after = true - both[["moved_x", "moved_y", "moved_z"]].to_numpy()
    result = {"set": name, "method": method, "seed": arguments.seed, "cpu_seconds": seconds}
    save_result(arguments.results, result | {"as_picked": describe(true), "recentred": describe(after)})


def describe(offsets_angstrom: np.ndarray) -> dict[str, float]:
    """Distances from the middle, in voxels."""
    distance = np.linalg.norm(offsets_angstrom, axis=1) / SPACING
    median, high = np.percentile(distance, [50, 90])
    far = float((distance > 3).mean())
    return {"median": round(float(median), 2), "high": round(float(high), 2), "far": round(far, 3)}


if __name__ == "__main__":
    run(main)
