"""A set of particles as it was recorded: its wedge, its noise, and how strong the protein is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.check import describe_wedge, measure_wedge
from cryodc.dataset import InputOptions, ParticleReader
from cryodc.errors import InputError
from cryodc.fourier import shell_index
from cryodc.io import Atoms
from cryodc.particles import ParticleSet, read_particles
from cryodc.planning.amplitude import (
    CleanPower,
    clean_power,
    masked_noise,
    middle_excess,
    noise_scale,
    shell_means,
    shell_powers,
    squared_amplitudes,
)
from cryodc.planning.averages import ClassCurve, class_curves, strength_of_averages
from cryodc.planning.noise import NoisePower, PowerSums, enough
from cryodc.runs import RunFolder
from cryodc.simulation import Phantom, Specimen, prepare_specimens
from cryodc.volumes import Volume

FEWEST_OF_TOMOGRAM = 5
"""Particles of a tomogram whose noise is measured by itself."""
FEWEST = 5
_ROUNDS, _N_WEIGHTS = 8, 24
_MOSTLY, _LEAST_NOISE = 0.7, 1e-3
_FALL, _RISE = 0.7, 3.0
_EMPTY = 0.02


@dataclass(frozen=True)
class MeasureRequest:
    """Which particles are measured, and how they are read.

    Parameters
    ----------
    star
        The particles.
    data_dir
        As for :func:`cryodc.particles.read_particles`.
    options
        The wedge where the STAR names no weights, and the contrast. Where neither is given the wedge is measured.
    n_sample, seed
        At most this many particles are measured, drawn at random.
    largest_box
        Particles of a larger box are measured at a coarser spacing; None takes any box as it is.
    run
        A run of these particles: the agreement of its half maps says how strong the protein is. None measures it on the
        particles.
    snr
        Of the protein, as :class:`Recorded` has it; None measures it.
    resolution_angstrom
        Of atomic models; None is twice the spacing.

    Raises
    ------
    InputError
        If the SNR is not above 0.
    """

    star: Path
    data_dir: Path | None = None
    options: InputOptions = field(default_factory=InputOptions)
    n_sample: int = 300
    seed: int = 0
    largest_box: int | None = None
    run: RunFolder | None = None
    snr: float | None = None
    resolution_angstrom: float | None = None

    def __post_init__(self) -> None:
        if self.snr is not None and not 0 < self.snr < np.inf:
            raise InputError("this SNR is none", expected="a number above 0", found=f"{self.snr:g}")


@dataclass(frozen=True)
class Recorded:
    """What was measured of particles, each read with mean 0 and variance 1.

    Parameters
    ----------
    particles, options
        All particles of the STAR, and how their wedge is known.
    specimens
        The proteins that are looked for, prepared at this box and spacing.
    box_size, spacing_angstrom
        What was measured at.
    n_sampled
        Particles that were measured.
    wedge
        In words, where it was measured because neither the STAR nor the options say; else None.
    noise
        Its power.
    squared_amplitudes
        ``(g,)`` variance of the protein before its weight, in each group of the noise.
    snr, snr_interval
        Variance of the protein in a recorded particle over that of the noise, and 95 % of what it may be. With a binary
        wedge and white noise this is, within a tenth, the SNR of ``cryodc simulate``, which is that before the wedge.
    """

    particles: ParticleSet
    options: InputOptions
    specimens: Mapping[str, Specimen]
    box_size: int
    spacing_angstrom: float
    n_sampled: int
    wedge: str | None
    noise: NoisePower
    squared_amplitudes: Float[NDArray[np.float64], " g"]
    snr: float
    snr_interval: tuple[float, float]

    def at_snr(self, snr: float) -> "Recorded":
        """The same noise, with proteins of another strength about which nothing is uncertain."""
        if self.snr <= 0:
            raise ValueError("an SNR that is 0 cannot be scaled")
        amplitudes = self.squared_amplitudes * (snr / self.snr)
        return replace(self, squared_amplitudes=amplitudes, snr=snr, snr_interval=(snr, snr))


def measure_particles(request: MeasureRequest, proteins: Mapping[str, Volume | Phantom | Atoms]) -> Recorded:
    """Measure wedge, noise and SNR of particles.

    Parameters
    ----------
    request
        Which, and how.
    proteins
        By name: what they look like says where signal is to be expected.

    Raises
    ------
    InputError
        If particles cannot be read, there are too few, their wedge is not known and cannot be seen, or a protein does
        not fit the box.
    """
    everything = read_particles(request.star, request.data_dir)
    if len(everything) < FEWEST:
        raise InputError(
            "there are too few particles to measure noise",
            file=request.star,
            expected=f"at least {FEWEST}",
            found=str(len(everything)),
        )
    options, wedge = _known_wedge(everything, request)
    chosen = np.sort(np.random.default_rng(request.seed).permutation(len(everything))[: request.n_sample])
    box_size = everything.box_size if request.largest_box is None else min(everything.box_size, request.largest_box)
    reader = ParticleReader(everything.select(chosen), options, box_size)
    sample = reader.particles
    box, spacing = sample.box_size, sample.spacing_angstrom
    specimens = prepare_specimens(proteins, box, spacing, request.resolution_angstrom)
    _, weights = reader.read(0, min(len(sample), _N_WEIGHTS))
    clean = clean_power(specimens, box, spacing, weights, request.seed)
    sums = PowerSums(box, enough(sample.tomograms, FEWEST_OF_TOMOGRAM), clean.power)
    masked = torch.zeros(len(sample), 2, clean.masked.shape[1], dtype=torch.float64)
    for i, (volume, weight) in enumerate(read_each(reader)):
        sums.add(torch.fft.rfftn(volume).abs().square() / volume.numel(), weight, sample.tomograms[i])
        masked[i] = torch.stack([shell_powers((volume * mask)[None])[0] for mask in clean.masks])
    _require_surroundings(masked, clean, request.star)
    curves = None if request.run is None else class_curves(request.run, box)
    noise, estimates = _solve(sums, clean, masked, sample.tomograms, curves)
    amplitudes = estimates[0]
    snr, *interval = (_snr(sums, noise, values.clip(0)) for values in estimates)
    if request.snr is not None:
        amplitudes = np.ones_like(amplitudes) if snr <= 0 else amplitudes
        amplitudes = amplitudes * (request.snr / _snr(sums, noise, amplitudes))
        snr, interval = request.snr, [request.snr] * 2
    power = NoisePower(sums.groups, noise)
    known = (everything, options, specimens, box, spacing, len(sample), wedge)
    return Recorded(*known, power, amplitudes, snr, (interval[0], interval[1]))


def read_each(reader: ParticleReader) -> Iterator[tuple[Float[Tensor, "d h w"], Float[Tensor, "d h hw"]]]:
    """Every particle with its weight, one after the other; weights are kept as long as they are needed."""
    last_use = {place: i for i, place in enumerate(reader.weight_index.tolist())}
    kept: dict[int, Tensor] = {}
    for i, place in enumerate(reader.weight_index.tolist()):
        volumes, new = reader.read(i, i + 1)
        if len(new):
            kept[place] = new[0]
        yield volumes[0], kept[place]
        if last_use[place] == i:
            del kept[place]


def _solve(
    sums: PowerSums, clean: CleanPower, masked: Tensor, tomograms: tuple[str, ...], curves: list[ClassCurve] | None
) -> tuple[Tensor, list[NDArray[np.float64]]]:
    """Noise, variance of the protein in each group, and its limits: each needs the other, so in turns."""
    total = sums.power()
    shape = sums.protein()
    group = np.array([sums.groups.get(name, len(sums.groups)) for name in tomograms])
    box = sums.occupancy.shape[1]
    noise, level, strength = total, torch.ones(total.shape[1], dtype=torch.float64), 0.0
    for _ in range(_ROUNDS):
        by_bin = sums.mean_over(noise).T[:, shell_index(box)]
        mean = (by_bin * sums.occupancy).sum(dim=0) / sums.occupancy.sum(dim=0)
        through = masked_noise(mean, clean.masks)
        through[0] *= middle_excess(masked.mean(dim=0), clean, through, max(strength, 0.0))
        each = squared_amplitudes(masked, clean, through)
        relative = _by_group(each, group, len(total))
        strength, error = float(each.mean()), 1.96 * float(each.std(ddof=1)) / np.sqrt(len(each))
        if curves is not None:
            strength, error = strength_of_averages(curves, sums, noise, shell_means(clean.power))
        amplitudes = strength * relative
        protein = torch.from_numpy(amplitudes.clip(0))[:, None, None] * shape
        left = torch.maximum(total - protein, _LEAST_NOISE * total)
        # Where nearly all is protein, what is left says little: there the surroundings say how strong noise is, and the
        # first shell that tells says how it varies with the weight.
        mostly_protein = sums.by_shell(protein) > _MOSTLY * sums.by_shell(total)
        mostly_protein[0] = True
        first = int(mostly_protein.long().cumprod(dim=0).sum())
        level[:first] *= noise_scale(masked.mean(dim=0), clean, through)[:first]
        level[first:] = 1.0
        for shell in range(first - 1, 0, -1):
            level[shell] = level[shell].clamp(_FALL * level[shell + 1], _RISE * level[shell + 1])
        noise = left.clone()
        noise[:, 1:first] = left[:, first : first + 1] * level[1:first, None]
    return noise, [value * relative for value in (strength, strength - error, strength + error)]


def _by_group(each: NDArray[np.float64], group: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    """How each group's mean compares with that of all; differences are taken as far as they exceed chance."""
    relative = np.ones(n_groups)
    mean = each.mean()
    numbers = [g for g in range(n_groups) if (group == g).sum() >= FEWEST_OF_TOMOGRAM]
    if len(numbers) < 2 or mean <= 0:
        return relative
    found = np.array([each[group == g].mean() for g in numbers]) / mean
    chance = np.array([each[group == g].var(ddof=1) / (group == g).sum() for g in numbers]) / mean**2
    spread = max(0.0, float(found.var(ddof=1) - chance.mean()))
    relative[numbers] = np.maximum(1 + (found - 1) * spread / (spread + chance).clip(1e-12), 0.1)
    return relative


def _snr(sums: PowerSums, noise: Tensor, amplitudes: NDArray[np.float64]) -> float:
    protein = torch.from_numpy(amplitudes)[:, None, None] * sums.protein()
    return float((protein * sums.voxels).sum() / (noise * sums.voxels).sum())


def _known_wedge(particles: ParticleSet, request: MeasureRequest) -> tuple[InputOptions, str | None]:
    options = request.options
    if particles.weight_images is not None or options.tilt_range is not None or options.tilt_ranges is not None:
        return options, None
    fit = measure_wedge(particles, request.n_sample, request.seed)
    if fit is None or fit.beam != "z" or fit.tilt_axis == "z":
        raise InputError(
            "the missing wedge is not known: the STAR names no weight volumes",
            file=request.star,
            expected="a wedge about x or y that can be seen in the particles",
            found="none" if fit is None else describe_wedge(fit),
            remedy="give --tilt-range MIN MAX",
        )
    low, high = fit.whole_degrees
    return replace(options, tilt_range=(float(low), float(high)), tilt_axis=fit.tilt_axis), describe_wedge(fit)


def _require_surroundings(masked: Tensor, clean: CleanPower, star: Path) -> None:
    """Check that something was recorded beyond the largest sphere in the box."""
    volume = clean.masks.square().mean(dim=(1, 2, 3)).double()
    middle, beyond = (masked.mean(dim=(0, 2)) / volume).tolist()
    if beyond < _EMPTY * middle:
        raise InputError(
            "there is nothing beyond the particle: noise cannot be measured",
            file=star,
            expected="the noise of the tomogram around the particle, in the sphere that fits the box",
            found=f"{beyond / middle:.1%} of the power of the middle",
            remedy="give particles that were not multiplied by a mask",
        )
