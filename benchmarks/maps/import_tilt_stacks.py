"""Import 40 real ribosomes from 2D tilt stacks, average them in the STAR's poses, compare with the published map.

python -m benchmarks.maps.import_tilt_stacks --data PATH

PATH holds tilt_stacks/ (WarpTools --2d) and published_average.mrc. Prints one JSON line: the Fourier correlation in
shells 1–2.5, 2.5–5 and 5–8. The published map is the mirror image of ours: the average is flipped in z.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.command import run
from benchmarks.maps.real_ribosome import band_correlations
from cryodc.alignment import balanced_halves
from cryodc.dataset import load_dataset
from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, soft_sphere
from cryodc.io import read_volume
from cryodc.maps import average_particles
from cryodc.particles import read_particles
from cryodc.tilts import import_tilt_stacks


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hand", default="auto", choices=["auto", "1", "-1"])
    arguments = parser.parse_args()
    found = sorted((arguments.data / "tilt_stacks").glob("*_optimisation_set.star"))
    if len(found) != 1:
        raise InputError(
            "expected one optimisation set",
            file=arguments.data / "tilt_stacks",
            found=str(len(found)),
            remedy="--data holds tilt_stacks/*_optimisation_set.star",
        )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summary = import_tilt_stacks(found[0], Path(folder) / "subtomos", hand=arguments.hand)
        seconds = time.perf_counter() - start
        dataset = load_dataset(read_particles(summary.star))
    poses = dataset.particles.poses
    assert poses is not None
    average = average_particles(
        ParticleStack(dataset.volumes, dataset.weights, dataset.weight_index),
        torch.from_numpy(poses.rotations).float(),
        torch.from_numpy(poses.origins_angstrom / summary.spacing_angstrom).float(),
        balanced_halves(len(dataset), 0),
    ).average
    published = torch.from_numpy(read_volume(arguments.data / "published_average.mrc").voxels)
    flipped = torch.roll(average.flip(0), 1, 0)
    box = summary.box_size
    mask = soft_sphere(box, box / 2 - 4, 3.0)
    correlations = band_correlations(flipped * mask, published * mask)
    print(
        json.dumps(
            {
                "correlations": [round(value, 3) for value in correlations],
                "particles": summary.n_particles,
                "defocus_hands": [hand.value for hand in summary.hands.values()],
                "standard_errors": [round(hand.score, 1) for hand in summary.hands.values()],
                "import_seconds": round(seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    run(main)
