"""What ``cryodc check`` found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryodc.check.contrast import Contrast
from cryodc.check.poses import PoseCheck
from cryodc.check.wedge import WedgeCheck
from cryodc.io import Problem
from cryodc.star import OpticsGroup


@dataclass(frozen=True)
class CheckReport:
    """What was found. A field is None where a problem, or missing information, leaves it unknown.

    Parameters
    ----------
    source, layout
        The STAR, and which program generation wrote it.
    tomograms
        Particles of each.
    has_poses, has_weights
        Whether the STAR has angles, and whether it names weight volumes.
    weight_layout
        In words; None where the STAR names no weight volumes.
    measured_fraction
        Smallest, mean and largest share of Fourier space (within Nyquist) that a particle's weight measures.
    half_sets
        Particles in half 1 and half 2.
    contrast, wedge, poses
        Measured on the sample.
    n_sampled, seed
        Particles of the sample that could be read, and what it was drawn with; headers are read for all.
    found_in
        Images found in each folder.
    coordinates
        Unit and origin of the positions, in words; None where the STAR has none.
    notes
        What was noticed and is no fault.
    warnings, problems
        What may be wrong, and what is: only ``problems`` change the exit code.
    """

    source: Path
    layout: str | None = None
    n_particles: int | None = None
    tomograms: Mapping[str, int] | None = None
    optics_groups: tuple[OpticsGroup, ...] = ()
    box_size: int | None = None
    spacing_angstrom: float | None = None
    has_poses: bool | None = None
    has_weights: bool | None = None
    half_sets: tuple[int, int] | None = None
    weight_layout: str | None = None
    measured_fraction: tuple[float, float, float] | None = None
    contrast: Contrast | None = None
    wedge: WedgeCheck | None = None
    poses: PoseCheck | None = None
    n_sampled: int = 0
    seed: int = 0
    found_in: Mapping[str, int] | None = None
    coordinates: str | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        fraction = self.measured_fraction
        return {
            "source": str(self.source),
            "layout": self.layout,
            "n_particles": self.n_particles,
            "tomograms": None if self.tomograms is None else dict(self.tomograms),
            "optics_groups": [vars(group) for group in self.optics_groups],
            "box_size": self.box_size,
            "spacing_angstrom": self.spacing_angstrom,
            "has_poses": self.has_poses,
            "has_weights": self.has_weights,
            "half_sets": None if self.half_sets is None else list(self.half_sets),
            "weight_layout": self.weight_layout,
            "measured_fraction": None if fraction is None else dict(zip(("min", "mean", "max"), fraction, strict=True)),
            "contrast": None if self.contrast is None else vars(self.contrast),
            "wedge": None if self.wedge is None else self.wedge.as_dict(),
            "poses": None if self.poses is None else self.poses.as_dict(),
            "n_sampled": self.n_sampled,
            "seed": self.seed,
            "found_in": None if self.found_in is None else dict(self.found_in),
            "coordinates": self.coordinates,
            "notes": list(self.notes),
            "warnings": [_as_dict(problem) for problem in self.warnings],
            "problems": [_as_dict(problem) for problem in self.problems],
        }


def _as_dict(problem: Problem) -> dict[str, Any]:
    error = problem.error
    return {
        "row": problem.row,
        "problem": error.problem,
        "file": None if error.file is None else str(error.file),
        "expected": error.expected,
        "found": error.found,
        "remedy": error.remedy,
    }
