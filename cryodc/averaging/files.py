"""The files of one class: maps, curves, a picture of their quality, and its entry in summary.json."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import resolution_angstrom, shell_frequencies
from cryodc.io import atomic_path, write_volume
from cryodc.maps import ClassFractions, HalfMaps, Verdict, quality_png, sharpen, view_directions
from cryodc.runs import ClassSummary
from cryodc.volumes import Volume

CURVE_COLUMNS = (
    "class,shell,frequency_inverse_angstrom,fsc,fsc_unmasked,fsc_masked,fsc_randomised,measured,efficiency,evenness"
)
"""Of fsc.csv; ``fsc`` is the corrected curve."""


@dataclass(frozen=True)
class ClassAverage:
    """The entry of one class in ``summary.json``; see docs/averages.md."""

    class_number: int
    n_particles: int
    resolution_angstrom: float | None
    aligned: bool
    score: float
    note: str
    b_factor: float | None
    measured: float
    efficiency: float
    evenness: float
    verdict: Verdict


def write_class(
    folder: Path,
    number: int,
    maps: HalfMaps,
    rotations: Float[NDArray[np.float64], "n 3 3"],
    spacing_angstrom: float,
    aligned: bool,
    note: str,
    verdict: Verdict,
) -> ClassAverage:
    """Write the maps and the picture of one class, and return figures of their quality.

    A map for deposition, ``_postprocess``, is only written where there is a resolution.

    Parameters
    ----------
    folder
        Where they are written.
    number
        rlnClassNumber.
    maps
        Of the class.
    rotations
        ``(n, 3, 3)`` final poses.
    spacing_angstrom
        Of the maps.
    aligned, note
        Whether the poses are to be trusted, and why.
    verdict
        What the class is taken for.
    """
    found = resolution_angstrom(maps.fsc, spacing_angstrom)
    # Shells that two noise averages share by chance are no resolution.
    resolution = found if aligned and math.isfinite(found) else None
    stem, b_factor = f"class{number:03d}", None

    def write(suffix: str, voxels: Tensor) -> None:
        volume = Volume(voxels.cpu().numpy().astype(np.float32), spacing_angstrom)
        write_volume(folder / f"{stem}{suffix}.mrc", volume)

    write("", maps.average)
    write("_half1", maps.halves[0])
    write("_half2", maps.halves[1])
    write("_mask", maps.mask)
    write("_coverage", maps.coverage.volume)
    if resolution is not None:
        sharpened = sharpen(maps.halves, maps.fsc, spacing_angstrom, resolution)
        write("_postprocess", sharpened.voxels)
        b_factor = sharpened.b_factor
    with atomic_path(folder / f"{stem}_quality.png") as temporary:
        picture = quality_png(maps.curves, maps.coverage, view_directions(rotations), spacing_angstrom)
        temporary.write_bytes(picture)
    box_angstrom = maps.average.shape[-1] * spacing_angstrom
    last = maps.average.shape[-1] // 2 if resolution is None else round(box_angstrom / resolution)
    measured, efficiency, evenness = maps.coverage.to_shell(last)
    return ClassAverage(
        number,
        len(rotations),
        None if resolution is None else round(resolution, 2),
        aligned,
        round(maps.score, 4),
        note,
        None if b_factor is None else round(b_factor, 1),
        round(measured, 4),
        round(efficiency, 4),
        round(evenness, 4),
        verdict,
    )


def curve_rows(number: int, maps: HalfMaps, spacing_angstrom: float) -> list[str]:
    """Lines of fsc.csv, in the order of ``CURVE_COLUMNS``."""
    curves, coverage = maps.curves, maps.coverage
    agreement = (curves.corrected, curves.unmasked, curves.masked, curves.randomised)
    columns = (*agreement, coverage.measured, coverage.efficiency, coverage.evenness)
    frequencies = shell_frequencies(maps.average.shape[-1], spacing_angstrom)
    return [
        f"{number},{s},{frequency:.6f}," + ",".join(f"{values[s]:.6f}" for values in columns)
        for s, frequency in enumerate(frequencies)
    ]


def describe_class(result: ClassAverage, fractions: ClassFractions) -> ClassSummary:
    """A class's entry in summary.json."""
    k = result.class_number - 1
    return ClassSummary(
        class_number=result.class_number,
        n_particles=result.n_particles,
        fraction=round(float(fractions.fractions[k]), 4),
        fraction_interval=(round(float(fractions.low[k]), 4), round(float(fractions.high[k]), 4)),
        resolution_angstrom=result.resolution_angstrom,
        b_factor=result.b_factor,
        fourier_measured=result.measured,
        fourier_efficiency=result.efficiency,
        fourier_evenness=result.evenness,
        aligned=result.aligned,
        score=result.score,
        note=result.note,
        verdict=result.verdict.kind,
        reason=result.verdict.reason,
        shape={name: round(value, 3) for name, value in asdict(result.verdict.shape).items()},
        brightness=round(result.verdict.brightness, 2),
        roundness=None if result.verdict.roundness is None else round(result.verdict.roundness, 3),
    )
