"""What `relion_reconstruct` makes of particles in given poses, and what `cryodc average` makes of them.

python -m benchmarks.maps.relion_reconstruct --data PATH
python -m benchmarks.maps.relion_reconstruct --beads

PATH holds particles.star, subtomograms/ and published_average.mrc of 40 real ribosomes: both averages are compared with
the published map. RELION 3.1 reads no half precision, so it is given copies in single precision. Its map has no Wiener
filter; ours has one, so both are compared shell by shell only.

Beads are Gaussians, so particles without noise and the map they came from are a formula and nothing is interpolated:
each average is compared with that map, in the shells before Nyquist.
"""

import argparse
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.command import run
from benchmarks.maps.real_ribosome import band_correlations
from cryodc.alignment import balanced_halves
from cryodc.dataset import load_dataset
from cryodc.errors import InputError
from cryodc.fourier import FourierBall, fourier_shell_correlation, frequency_grid, soft_sphere
from cryodc.io import read_array, read_volume, write_array
from cryodc.maps import HalfMaps, average_particles, average_sums
from cryodc.particles import ParticleSet, read_particles
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation

CHOICES: dict[str, tuple[str, ...]] = {
    "as it comes": (),
    "--pad 4": ("--pad", "4"),
    "--skip_gridding": ("--skip_gridding",),
    "--pad 4 --skip_gridding": ("--pad", "4", "--skip_gridding"),
}
"""How RELION is asked to reconstruct."""


def main() -> None:
    """Print how both averages compare, with the truth and with each other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path)
    what.add_argument("--beads", action="store_true")
    options = parser.parse_args()
    if shutil.which("relion_reconstruct") is None:
        raise InputError("RELION is not installed", remedy="install it: apt-get install relion")
    with tempfile.TemporaryDirectory() as folder:
        if options.beads:
            compare_beads(Path(folder))
        else:
            compare_ribosomes(options.data, Path(folder))


def compare_ribosomes(data: Path, folder: Path) -> None:
    """Bands of both averages, and their FSC."""
    particles = read_particles(data / "particles.star", data)
    ours = average(particles).average
    theirs = relion_average(data, folder, particles.spacing_angstrom)
    # The published map is the mirror image of ours.
    published = read_volume(data / "published_average.mrc").voxels
    target = torch.from_numpy(np.ascontiguousarray(np.roll(published[::-1], 1, axis=0)))
    mask = soft_sphere(len(target), len(target) / 2 - 4, 3.0)
    for name, made in (("cryodc", ours), ("relion_reconstruct", theirs)):
        print(f"{name:20s}" + "  ".join(f"{value:.3f}" for value in band_correlations(made * mask, target * mask)))
    agreement = fourier_shell_correlation(ours * mask, theirs * mask)
    print("FSC of the two, shells 1 on: " + " ".join(f"{value:.3f}" for value in agreement[1:]))


def compare_beads(folder: Path) -> None:
    """FSC of each average with the map of the beads, as a table."""
    truth = Beads().write(folder, 150)
    particles = read_particles(folder / "particles.star", folder)
    ours = average(particles).average.numpy()
    cropped = on_finer_grid(particles)
    rows = {"`cryodc average`": ours, "the same sums, cut as RELION cuts": cropped}
    for name, chosen in CHOICES.items():
        reconstruct(folder, folder / "relion.mrc", *chosen)
        rows[f"`relion_reconstruct`, {name}"] = read_volume(folder / "relion.mrc").voxels
    shells = [*range(1, 5), *range(11, len(truth) // 2 + 1)]
    print(f"| FSC with the map, shell | {' | '.join(str(shell) for shell in shells)} |")
    print("|---" * (len(shells) + 1) + "|")
    for name, made in rows.items():
        print(f"| {name} | " + " | ".join(f"{shell_fsc(made, truth)[shell]:.4f}" for shell in shells) + " |")


@dataclass(frozen=True)
class Beads:
    """Sixty Gaussian beads about the centre of a box, whose spectrum is known everywhere.

    Parameters
    ----------
    box_size
        Edge of the box, voxels.
    spread_voxels
        Standard deviation of their places.
    width_voxels
        Standard deviation of each.
    seed
        Draws their places and heights.
    """

    box_size: int = 32
    spread_voxels: float = 3.2
    width_voxels: float = 0.8
    seed: int = 0

    def spectrum(self, frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
        """At ``(…, 3)`` zyx frequencies in cycles per box, the box centre at the phase origin."""
        generator = np.random.default_rng(self.seed)
        places = generator.normal(size=(60, 3)) * self.spread_voxels
        heights = generator.uniform(0.5, 1.5, 60)
        found = np.zeros(frequencies.shape[:-1], complex)
        for place, height in zip(places, heights, strict=True):
            found += height * np.exp(-2j * np.pi / self.box_size * (frequencies @ place))
        square = (frequencies**2).sum(axis=-1)
        return found * np.exp(-2 * (np.pi * self.width_voxels / self.box_size) ** 2 * square)

    def write(self, folder: Path, n_particles: int) -> NDArray[np.float64]:
        """Particles without noise under a wedge of ±60°, in a STAR with their poses; gives the map."""
        config = SimulationConfig(n_per_map=n_particles, snr=np.inf, box_size=self.box_size)
        write_simulation(choose_proteins(["bilobe"], []), config, folder, with_poses=True)
        particles = read_particles(folder / "particles.star", folder)
        assert particles.poses is not None
        k = frequency_grid(self.box_size).double().numpy()
        weight = read_array(next((folder / "weights").glob("*.mrc")))
        origins = particles.poses.origins_angstrom / config.spacing_angstrom
        for name, rotation, origin in zip(particles.names, particles.poses.rotations, origins, strict=True):
            spectrum = self.spectrum(k @ rotation) * np.exp(2j * np.pi / self.box_size * (k @ origin)) * weight
            write_array(folder / name, volume(spectrum).astype(np.float32), config.spacing_angstrom)
        return volume(self.spectrum(k))


def volume(spectrum: NDArray[np.complex128]) -> NDArray[np.float64]:
    """The volume with this half spectrum; its Nyquist planes, where ±k are one voxel, are empty."""
    box_size = len(spectrum)
    spectrum = spectrum.copy()
    spectrum[box_size // 2] = spectrum[:, box_size // 2] = spectrum[..., box_size // 2] = 0
    return np.fft.fftshift(np.fft.irfftn(spectrum, s=(box_size,) * 3, axes=(0, 1, 2)))


def average(particles: ParticleSet) -> HalfMaps:
    """What `cryodc average` makes of particles in their poses."""
    dataset = load_dataset(particles)
    rotations, origins = poses(particles)
    halves = balanced_halves(len(dataset), 0)
    return average_particles(dataset.gather(torch.arange(len(dataset))), rotations, origins, halves)


def on_finer_grid(particles: ParticleSet, finer: int = 2) -> NDArray[np.float32]:
    """The average before its Wiener filter, made as RELION makes it of a spectrum that it has on a finer grid.

    What lies beyond Nyquist is 0, and the box is cut out of the larger one that a finer grid means.
    """
    dataset = load_dataset(particles)
    box_size = particles.box_size
    edge = finer * box_size
    frequencies = (frequency_grid(edge) / finer).reshape(-1, 3)
    index = torch.nonzero(frequencies.norm(dim=1) <= box_size / 2)[:, 0]
    kept = frequencies[index]
    ball = FourierBall(box_size, kept, index, kept.norm(dim=1).round().long())
    top, bottom = average_sums(dataset.gather(torch.arange(len(dataset))), *poses(particles), ball)
    half = torch.zeros(edge * edge * (edge // 2 + 1), dtype=top.dtype)
    half[index] = top / (bottom + 1e-3)
    large = torch.fft.fftshift(torch.fft.irfftn(half.reshape(edge, edge, -1), s=(edge,) * 3, dim=(0, 1, 2)))
    box = slice((edge - box_size) // 2, (edge + box_size) // 2)
    cut: NDArray[np.float32] = large[box, box, box].numpy()
    return cut


def poses(particles: ParticleSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations and origins in voxels."""
    assert particles.poses is not None
    origins = particles.poses.origins_angstrom / particles.spacing_angstrom
    return torch.from_numpy(particles.poses.rotations).float(), torch.from_numpy(origins).float()


def shell_fsc(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """FSC in shells 0 to Nyquist of what lies within Nyquist: of the last shell, its inner half."""
    box_size = len(first)
    k = np.fft.fftfreq(box_size, 1 / box_size)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    # Our averages have no Nyquist planes.
    below = abs(k) < box_size / 2
    inside = (radius <= box_size / 2) & below[:, None, None] & below[:, None] & below
    shell = np.floor(radius[inside] + 0.5).astype(int)
    a, b = (np.fft.fftn(each)[inside] for each in (first, second))
    sums = [np.bincount(shell, values) for values in ((a * b.conj()).real, abs(a) ** 2, abs(b) ** 2)]
    return sums[0] / np.sqrt(sums[1] * sums[2])


def relion_average(data: Path, folder: Path, spacing_angstrom: float) -> torch.Tensor:
    """What relion_reconstruct makes of the particles."""
    shutil.copy(data / "particles.star", folder)
    for file in (data / "subtomograms").glob("*.mrc"):
        write_array(folder / "subtomograms" / file.name, read_array(file), spacing_angstrom)
    reconstruct(folder, folder / "average.mrc")
    return torch.from_numpy(read_volume(folder / "average.mrc").voxels)


def reconstruct(folder: Path, out: Path, *options: str) -> None:
    """Have RELION average the particles of a folder."""
    command = ["relion_reconstruct", "--i", "particles.star", "--o", str(out), "--3d_rot", "--ctf", *options]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    run(main)
