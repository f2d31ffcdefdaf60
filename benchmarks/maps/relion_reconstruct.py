"""Average 40 real ribosomes in their given poses, and have RELION average them: both against the published map.

python -m benchmarks.maps.relion_reconstruct --data PATH

PATH holds particles.star, subtomograms/ and published_average.mrc. RELION 3.1 reads no half precision, so it is given
copies in single precision. Its map has no Wiener filter; ours has one, so both are compared shell by shell only.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import run
from benchmarks.maps.real_ribosome import band_correlations
from cryodc.alignment import balanced_halves
from cryodc.dataset import load_dataset
from cryodc.errors import InputError
from cryodc.fourier import fourier_shell_correlation, soft_sphere
from cryodc.io import read_array, read_volume, write_array
from cryodc.maps import average_particles
from cryodc.particles import read_particles


def main() -> None:
    """Print the bands of both averages, and how they agree with each other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    if shutil.which("relion_reconstruct") is None:
        raise InputError("RELION is not installed", remedy="install it: apt-get install relion")
    dataset = load_dataset(read_particles(data / "particles.star", data))
    poses, spacing = dataset.particles.poses, dataset.particles.spacing_angstrom
    assert poses is not None
    ours = average_particles(
        dataset.gather(torch.arange(len(dataset))),
        torch.from_numpy(poses.rotations).float(),
        torch.from_numpy(poses.origins_angstrom / spacing).float(),
        balanced_halves(len(dataset), 0),
    ).average
    with tempfile.TemporaryDirectory() as folder:
        theirs = relion_average(data, Path(folder), spacing)
    # The published map is the mirror image of ours.
    published = read_volume(data / "published_average.mrc").voxels
    target = torch.from_numpy(np.ascontiguousarray(np.roll(published[::-1], 1, axis=0)))
    mask = soft_sphere(len(target), len(target) / 2 - 4, 3.0)
    for name, average in (("cryodc", ours), ("relion_reconstruct", theirs)):
        print(f"{name:20s}" + "  ".join(f"{value:.3f}" for value in band_correlations(average * mask, target * mask)))
    agreement = fourier_shell_correlation(ours * mask, theirs * mask)
    print("FSC of the two, shells 1 on: " + " ".join(f"{value:.3f}" for value in agreement[1:]))


def relion_average(data: Path, folder: Path, spacing_angstrom: float) -> torch.Tensor:
    """What relion_reconstruct makes of the particles."""
    shutil.copy(data / "particles.star", folder)
    for file in (data / "subtomograms").glob("*.mrc"):
        write_array(folder / "subtomograms" / file.name, read_array(file), spacing_angstrom)
    command = ["relion_reconstruct", "--i", "particles.star", "--o", "average.mrc", "--3d_rot", "--ctf"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return torch.from_numpy(read_volume(folder / "average.mrc").voxels)


if __name__ == "__main__":
    run(main)
