"""Average 40 real ribosomes and compare with the published map: given poses, shuffled poses, and from nothing.

python -m benchmarks.maps.real_ribosome --data PATH

PATH holds particles.star, subtomograms/ and published_average.mrc. Nothing here is tuned to the published map:
it is only compared with.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import positive, run
from cryodc.alignment import align_class, balanced_halves, register_map
from cryodc.dataset import load_dataset
from cryodc.fourier import resolution_angstrom, soft_sphere
from cryodc.io import read_volume
from cryodc.maps import average_particles
from cryodc.particles import read_particles
from cryodc.volumes import Volume

BANDS = ((1.0, 2.5), (2.5, 5.0), (5.0, 8.0))


def band_correlations(first: torch.Tensor, second: torch.Tensor) -> list[float]:
    """Fourier correlation of two maps in bands of shells."""
    a, b = torch.fft.fftn(first.double()), torch.fft.fftn(second.double())
    k = torch.fft.fftfreq(len(first), 1 / len(first))
    radius = (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).sqrt()
    values = []
    for low, high in BANDS:
        x, y = a[(radius >= low) & (radius < high)], b[(radius >= low) & (radius < high)]
        values.append(float((x * y.conj()).real.sum() / (x.norm() * y.norm())))
    return values


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--average", type=Path, help="compare this map alone: run/averages/class001.mrc")
    arguments = parser.parse_args()
    dataset = load_dataset(read_particles(arguments.data / "particles.star", arguments.data))
    published = read_volume(arguments.data / "published_average.mrc")
    # The published map is the mirror image of ours.
    target = Volume(np.ascontiguousarray(np.roll(published.voxels[::-1], 1, axis=0)), published.spacing_angstrom)
    mask = soft_sphere(target.box_size, target.box_size / 2 - 4, 3.0)
    n, spacing = len(dataset), dataset.particles.spacing_angstrom
    poses = dataset.particles.poses
    assert poses is not None
    rotations = torch.from_numpy(poses.rotations).float()
    origins = torch.from_numpy(poses.origins_angstrom / spacing).float()
    stack = dataset.gather(torch.arange(len(dataset)))

    def show(name: str, average: torch.Tensor, fsc: np.ndarray, extra: str = "") -> None:
        *_, moved = register_map(Volume(average.numpy(), target.spacing_angstrom), target)
        as_is = band_correlations(average * mask, torch.from_numpy(target.voxels) * mask)
        registered = band_correlations(torch.from_numpy(moved.voxels) * mask, torch.from_numpy(target.voxels) * mask)
        text = "  ".join(f"{a:.3f} ({b:.3f})" for a, b in zip(as_is, registered, strict=True))
        print(f"{name:24s} as it lies (registered): {text}  {resolution_angstrom(fsc, spacing):.1f} Å {extra}")

    if arguments.average is not None:
        average = torch.from_numpy(read_volume(arguments.average).voxels)
        values = band_correlations(average * mask, torch.from_numpy(target.voxels) * mask)
        print(f"{arguments.average}: " + "  ".join(f"{value:.3f}" for value in values))
        return
    for seed in range(arguments.seeds):
        halves = balanced_halves(n, seed)
        given = average_particles(stack, rotations, origins, halves)
        show(f"given poses, split {seed}", given.average, given.fsc)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        shuffled = average_particles(stack, rotations[order], origins, halves)
        show(f"shuffled poses, seed {seed}", shuffled.average, shuffled.fsc)
        start = time.perf_counter()
        found = align_class(stack, seed=seed, half_sets=halves)
        seconds = time.perf_counter() - start
        free = average_particles(stack, found.rotations, found.origins_voxels, halves, found.independent)
        extra = f"aligned: {found.aligned} ({found.evidence:.2f}), {seconds:.0f} s"
        show(f"from nothing, seed {seed}", free.average, free.fsc, extra)


if __name__ == "__main__":
    run(main)
