"""Practice particles as the user's own were recorded: their wedge, CTF, noise, SNR, box, number and tomograms."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.dataset import ParticleReader
from cryodc.errors import InputError
from cryodc.io import ImageReference, require_empty, write_array, write_text, write_volume
from cryodc.planning.noise import bin_edges
from cryodc.planning.recorded import Recorded
from cryodc.simulation import (
    SimulationConfig,
    Truth,
    clean_maps,
    draw_coordinates,
    draw_truth,
    render,
    write_particles,
    write_truth,
)
from cryodc.star import particle_block, read_star
from cryodc.volumes import Volume

_MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")


@dataclass(frozen=True)
class LikeRequest:
    """How many practice particles are made, and how they lie.

    Parameters
    ----------
    n_particles
        Of all proteins together; None makes as many as there are in the set.
    max_shift_voxels
        Each component of the origin is uniform within ± this.
    seed
        Same seed, same particles.
    with_poses
        Write angles and origins into the STAR too.
    """

    n_particles: int | None = None
    max_shift_voxels: float = 1.5
    seed: int = 0
    with_poses: bool = False

    def __post_init__(self) -> None:
        if self.n_particles is not None and self.n_particles < 1:
            raise InputError("there is nothing to simulate", expected="1 particle or more", found=str(self.n_particles))


class Maker:
    """Makes particles as a set was recorded, one after the other.

    Parameters
    ----------
    recorded
        The set, with an SNR above 0.
    request
        How many, and how they lie.

    Attributes
    ----------
    truth
        The answer.
    rows
        ``(n,)``: the particle of the set whose tomogram and weight each has.

    Raises
    ------
    InputError
        If the SNR is 0, or a setting makes no sense.
    """

    def __init__(self, recorded: Recorded, request: LikeRequest) -> None:
        require_snr(recorded)
        specimens = recorded.specimens
        n = len(recorded.particles) if request.n_particles is None else request.n_particles
        self._config = SimulationConfig(
            n_per_map=-(-n // len(specimens)),
            box_size=recorded.box_size,
            spacing_angstrom=recorded.spacing_angstrom,
            snr=recorded.snr,
            max_shift_voxels=request.max_shift_voxels,
            seed=request.seed,
        )
        self._recorded = recorded
        self.rows = _rows_like(n, len(recorded.particles), request.seed)
        tomograms = tuple(recorded.particles.tomograms[row] for row in self.rows)
        self.truth = _first(draw_truth(specimens, self._config), n, tomograms)
        self.maps = clean_maps(specimens, self._config)
        self.coordinates = draw_coordinates(n, self._config)

    def make(self, i: int, weight: Float[Tensor, "d h hw"]) -> Complex[Tensor, "d h hw"]:
        """Spectrum ``a H V + noise`` of one particle, as it is after whitening; in units of the noise of the set.

        Parameters
        ----------
        i
            Which particle.
        weight
            ``H``.
        """
        tomogram = self.truth.tomograms[i]
        amplitude = float(self._recorded.squared_amplitudes[self._recorded.noise.group(tomogram)]) ** 0.5
        clean = render(self._recorded.specimens, self.truth, slice(i, i + 1), self._config)[0] * amplitude
        seed = (self._config.seed * 1_000_003 + i + 1) % 2**63
        white = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        noise = torch.fft.rfftn(white) * self._recorded.noise.at(weight, tomogram).sqrt().float()
        return torch.fft.rfftn(clean) * weight + noise


def require_snr(recorded: Recorded) -> None:
    """Check that the protein was seen.

    Raises
    ------
    InputError
        If 95 % of what the SNR may be includes 0.
    """
    if recorded.snr_interval[0] <= 0:
        raise InputError(
            "the SNR of these particles cannot be told from 0",
            file=recorded.particles.source,
            expected="more power in the middle of the boxes than beyond it",
            found=f"{recorded.snr:.3g}, at most {recorded.snr_interval[1]:.3g}, of {recorded.n_sampled} particles",
            remedy="give --snr, or --run of a run that averaged them, or more particles",
        )


def write_like(
    recorded: Recorded,
    out: Path,
    request: LikeRequest | None = None,
    on_particle: Callable[[int], None] = lambda n_particles: None,
) -> Truth:
    """Write practice particles into a new folder, as :func:`cryodc.simulation.write_simulation` does; and noise.csv.

    Weight volumes of the set are named where they are, not copied. Particles whose set is ``ΣCTF · image`` are too.

    Parameters
    ----------
    recorded
        What was measured.
    out
        A folder that does not exist yet, or is empty.
    request
        How many particles, and how they lie.
    on_particle
        Hears how many particles were just written.

    Raises
    ------
    InputError
        If ``out`` holds anything, the SNR is 0, or a weight cannot be read.
    """
    require_empty(out)
    request = request or LikeRequest()
    maker = Maker(recorded, request)
    truth, spacing = maker.truth, recorded.spacing_angstrom
    microscope = _microscope(recorded.particles.source)
    for name, voxels in zip(truth.proteins, maker.maps, strict=True):
        write_volume(out / "maps" / f"{name}.mrc", Volume(voxels.numpy(), spacing))
    files, premultiplied = _write_volumes(maker, recorded, out, on_particle)
    write_truth(out / "truth.csv", truth)
    write_text(out / "noise.csv", _noise_table(recorded))
    settings = {"proteins": list(truth.proteins), "n_particles": len(truth), "seed": request.seed}
    settings |= {"max_shift_voxels": request.max_shift_voxels, "like": describe(recorded)}
    write_text(out / "simulation.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    write_particles(
        out / "particles.star",
        truth,
        files,
        maker.coordinates,
        recorded.box_size,
        spacing,
        request.with_poses,
        microscope=microscope | ({"rlnCtfDataAreCtfPremultiplied": "1"} if premultiplied else {}),
    )
    return truth


def describe(recorded: Recorded) -> dict[str, Any]:
    """What was measured, as JSON types."""
    return {
        "particles": str(recorded.particles.source),
        "n_particles": len(recorded.particles),
        "n_sampled": recorded.n_sampled,
        "box_size": recorded.box_size,
        "spacing_angstrom": recorded.spacing_angstrom,
        "wedge_measured": recorded.wedge,
        "snr": round(recorded.snr, 5),
        "snr_interval": [round(limit, 5) for limit in recorded.snr_interval],
        "noise_groups": list(recorded.noise.groups),
    }


def _write_volumes(
    maker: Maker, recorded: Recorded, out: Path, on_particle: Callable[[int], None]
) -> tuple[list[str], bool]:
    """Write particles, and wedges that were no files; give each one's file, and whether they are ΣCTF · image."""
    particles, truth = recorded.particles, maker.truth
    reader = ParticleReader(particles, recorded.options)
    files, premultiplied = [""] * len(truth), False
    # Particles of one weight after each other: each weight is read once.
    for i in np.argsort(reader.weight_index[maker.rows], kind="stable").tolist():
        row = int(maker.rows[i])
        weight, whitened = reader.transfer(row)
        spectrum = maker.make(i, weight)
        premultiplied |= whitened
        voxels = torch.fft.irfftn(spectrum * weight if whitened else spectrum, s=(recorded.box_size,) * 3)
        write_volume(out / truth.names[i], Volume(voxels.numpy(), recorded.spacing_angstrom))
        if particles.weight_images is not None:
            image = particles.weight_images[row]
            files[i] = str(ImageReference(image.path.resolve(), image.section))
        else:
            files[i] = f"weights/wedge{reader.weight_index[row] + 1:03d}.mrc"
            if not (out / files[i]).exists():
                write_array(out / files[i], weight.numpy(), recorded.spacing_angstrom)
        on_particle(1)
    return files, premultiplied


def _rows_like(n: int, n_given: int, seed: int) -> Int[NDArray[np.int64], " n"]:
    """Particles whose tomogram and weight are taken: each as often as the others, to within one."""
    rest = np.random.default_rng(seed).permutation(n_given)[: n % n_given]
    return np.concatenate([np.tile(np.arange(n_given), n // n_given), np.sort(rest)]).astype(np.int64)


def _first(truth: Truth, n: int, tomograms: tuple[str, ...]) -> Truth:
    """The first particles, which are in random order, in other tomograms."""
    return replace(
        truth,
        names=truth.names[:n],
        labels=truth.labels[:n],
        states=truth.states[:n],
        poses=truth.poses[np.arange(n)],
        tomograms=tomograms,
    )


def _noise_table(recorded: Recorded) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["tomogram", "shell", "weight_from", "weight_to", "power"])
    edges = bin_edges()
    for name, group in [*recorded.noise.groups.items(), ("others", len(recorded.noise.groups))]:
        for shell, powers in enumerate(recorded.noise.power[group].tolist()):
            for b, power in enumerate(powers):
                table.writerow([name, shell, f"{edges[b]:.5f}", f"{edges[b + 1]:.5f}", f"{power:.6g}"])
    return text.getvalue()


def _microscope(star: Path) -> dict[str, str]:
    """Voltage, aberration and amplitude contrast as the STAR has them, of its first particle or optics group."""
    document = read_star(star)
    blocks = [block for block in (document.find("optics"), particle_block(document)) if block is not None]
    return {
        label: next(block.column(label)[0] for block in blocks if label in block)
        for label in _MICROSCOPE
        if any(label in block for block in blocks)
    }
