"""Settings of a simulation: how many particles, in which box, and how realistic."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cryodc.errors import InputError
from cryodc.fourier import TiltAxis

Rules = Mapping[str, tuple[bool, str, object]]
_DENSEST = 0.25


@dataclass(frozen=True)
class SimulatedTiltSeries:
    """A tilt series to be simulated image by image.

    Parameters
    ----------
    step_degrees
        Between tilts.
    defocus_micrometres
        ``(min, max)``, underfocus positive: each tomogram's is uniform between them.
    voltage_kilovolts, spherical_aberration_millimetres, amplitude_contrast
        Of the microscope.
    dose_per_tilt
        Electrons per Å²; tilts are taken from the smallest angle outwards.
    """

    step_degrees: float = 3.0
    defocus_micrometres: tuple[float, float] = (2.0, 4.0)
    voltage_kilovolts: float = 300.0
    spherical_aberration_millimetres: float = 2.7
    amplitude_contrast: float = 0.1
    dose_per_tilt: float = 3.0

    def __post_init__(self) -> None:
        low, high = self.defocus_micrometres
        cs, dose = self.spherical_aberration_millimetres, self.dose_per_tilt
        rules = {
            "tilt step": (0.5 <= self.step_degrees <= 60, "0.5 to 60 degrees", self.step_degrees),
            "defocus": (0 <= low <= high <= 20, "0 ≤ min ≤ max ≤ 20 µm", self.defocus_micrometres),
            "voltage": (50 <= self.voltage_kilovolts <= 1500, "50 to 1500 kV", self.voltage_kilovolts),
            "spherical aberration": (0 <= cs <= 20, "0 to 20 mm", cs),
            "amplitude contrast": (0 <= self.amplitude_contrast <= 1, "0 to 1", self.amplitude_contrast),
            "dose per tilt": (0 <= dose <= 100, "0 to 100 electrons per Å²", dose),
        }
        require(rules)


@dataclass(frozen=True)
class Crowding:
    """How many neighbours there are, and how near they come.

    Parameters
    ----------
    per_cubic_micrometre
        Particles in a µm³, all proteins together; the cytosol of *E. coli* holds about 25,000 ribosomes in one.
    min_distance_angstrom
        Between the centres of any two particles.
    """

    per_cubic_micrometre: float
    min_distance_angstrom: float

    def __post_init__(self) -> None:
        density, distance = self.per_cubic_micrometre, self.min_distance_angstrom
        filled = math.pi / 6 * distance**3 * density * 1e-12
        rules = {
            "number density": (0 <= density < math.inf, "0 or more per µm³", density),
            "smallest distance": (0 < distance < math.inf, "above 0 Å", distance),
            "crowd": (
                filled <= _DENSEST,
                f"spheres of the smallest distance ({distance:g} Å) that fill at most {_DENSEST:.0%} of space",
                f"{density:g} per µm³, which fill {filled:.0%}",
            ),
        }
        require(rules)


@dataclass(frozen=True)
class SimulationConfig:
    """Settings of a simulation.

    Parameters
    ----------
    n_per_map
        Particles of each protein.
    box_size, spacing_angstrom
        Of the particles.
    snr
        Variance of the clean box over that of the added white noise; infinity adds none.
    tilt_ranges
        ``(min, max)`` degrees; tomograms take them in turn.
    tilt_axis
        The axis the specimen was tilted about.
    max_shift_voxels
        Each component of the origin is uniform within ± this.
    n_tomograms
        Particles are assigned to them at random.
    seed
        Same seed, same particles.
    resolution_angstrom
        Of atomic models; None is twice the spacing.
    tilt_series
        Simulate every tilt image; None applies a binary wedge.
    crowding
        Neighbours in the box; None has none.
    """

    n_per_map: int = 300
    box_size: int = 32
    spacing_angstrom: float = 10.0
    snr: float = 0.05
    tilt_ranges: tuple[tuple[float, float], ...] = ((-60.0, 60.0),)
    tilt_axis: TiltAxis = "y"
    max_shift_voxels: float = 1.5
    n_tomograms: int = 4
    seed: int = 0
    resolution_angstrom: float | None = None
    tilt_series: SimulatedTiltSeries | None = None
    crowding: Crowding | None = None

    def __post_init__(self) -> None:
        low_enough = all(-90 <= low < high <= 90 for low, high in self.tilt_ranges)
        rules = {
            "particles per protein": (self.n_per_map >= 1, "at least 1", self.n_per_map),
            "box size": (16 <= self.box_size <= 256 and self.box_size % 2 == 0, "even, 16 to 256", self.box_size),
            "voxel spacing": (0 < self.spacing_angstrom < float("inf"), "above 0 Å", self.spacing_angstrom),
            "SNR": (self.snr > 0, "above 0", self.snr),
            "tilt range": (low_enough and len(self.tilt_ranges) > 0, "-90 ≤ min < max ≤ 90", self.tilt_ranges),
            "largest shift": (
                0 <= self.max_shift_voxels <= self.box_size / 4,
                f"0 to {self.box_size / 4:g} voxels",
                self.max_shift_voxels,
            ),
            "number of tomograms": (self.n_tomograms >= 1, "at least 1", self.n_tomograms),
        }
        require(rules)
        if self.tilt_series is not None:
            for low, high in self.tilt_ranges:
                if high - low < self.tilt_series.step_degrees:
                    raise InputError(
                        "cannot simulate a tilt series of one image",
                        expected=f"a tilt range of at least {self.tilt_series.step_degrees:g} degrees, the tilt step",
                        found=f"{low:g} to {high:g}",
                        remedy="use a wider --tilt-range or a smaller --tilt-step",
                    )

    def settings(self) -> dict[str, Any]:
        """Give every setting that is used, for simulation.yaml."""
        return {key: _plain(value) for key, value in asdict(self).items() if value is not None}


def require(rules: Rules) -> None:
    """Check settings: for each its name, whether it holds, what is expected and what was found.

    Raises
    ------
    InputError
        Naming the first that does not hold.
    """
    for what, (holds, expected, found) in rules.items():
        if not holds:
            raise InputError(f"cannot simulate with this {what}", expected=expected, found=str(found))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
