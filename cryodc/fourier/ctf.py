"""Transfer of each tilt image: contrast transfer, radiation damage and scale.

RELION's conventions: underfocus is positive, and the CTF is positive at low frequency where protein is white,

``CTF(k) = sin(πλ z(φ) k² − π/2 Cs λ³ k⁴ + phase shift + atan(Q / √(1 − Q²))) · exp(−B k² / 4)``

with the astigmatic defocus ``z(φ) = (U + V) / 2 + (U − V) / 2 · cos 2(φ − α)``.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class TiltOptics:
    """The optics and the exposure of a tilt series, one value per tilt where it is a tensor.

    Parameters
    ----------
    voltage_kilovolts, spherical_aberration_millimetres, amplitude_contrast
        Of the microscope.
    defocus_u_angstrom, defocus_v_angstrom, defocus_angle_degrees
        ``(t,)`` at the centre of the tomogram; the angle is that of U from the image's x axis.
    phase_shift_degrees
        ``(t,)`` of a phase plate.
    bfactor
        ``(t,)`` Å².
    scale
        ``(t,)`` how much signal there is in each tilt: the cosine of its angle, for example.
    dose
        ``(t,)`` electrons per Å² before each tilt.
    bfactor_per_dose
        Å² per electron per Å²; where it is 0, damage follows :func:`critical_dose`.
    """

    voltage_kilovolts: float
    spherical_aberration_millimetres: float
    amplitude_contrast: float
    defocus_u_angstrom: Float[Tensor, " t"]
    defocus_v_angstrom: Float[Tensor, " t"]
    defocus_angle_degrees: Float[Tensor, " t"]
    phase_shift_degrees: Float[Tensor, " t"]
    bfactor: Float[Tensor, " t"]
    scale: Float[Tensor, " t"]
    dose: Float[Tensor, " t"]
    bfactor_per_dose: float = 0.0

    def to(self, device: torch.device) -> "TiltOptics":
        """Give the same on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def transfer(
        self, tilt: int, frequencies: Float[Tensor, "*grid 2"], defocus_offsets_angstrom: Float[Tensor, " b"]
    ) -> Float[Tensor, "b *grid"]:
        """CTF · damage · scale of one tilt: the factor between the protein's slice and each particle's image.

        Parameters
        ----------
        tilt
            Its place in the series.
        frequencies
            ``(..., 2)`` yx, Å⁻¹.
        defocus_offsets_angstrom
            ``(b,)`` added to the defocus, because each particle lies at a depth of its own.
        """
        return self.ctf(tilt, frequencies, defocus_offsets_angstrom) * self.envelope(tilt, frequencies)

    def ctf(
        self, tilt: int, frequencies: Float[Tensor, "*grid 2"], defocus_offsets_angstrom: Float[Tensor, " b"]
    ) -> Float[Tensor, "b *grid"]:
        """The oscillating part of :meth:`transfer`."""
        y, x = frequencies.unbind(dim=-1)
        square = x * x + y * y
        u, v = self.defocus_u_angstrom[tilt], self.defocus_v_angstrom[tilt]
        angle = torch.deg2rad(2 * self.defocus_angle_degrees[tilt])
        astigmatic = (x * x - y * y) * torch.cos(angle) + 2 * x * y * torch.sin(angle)
        wavelength = electron_wavelength(self.voltage_kilovolts)
        aberration = 0.5 * math.pi * self.spherical_aberration_millimetres * 1e7 * wavelength**3
        contrast = math.atan2(self.amplitude_contrast, math.sqrt(1 - self.amplitude_contrast**2))
        constant = torch.deg2rad(self.phase_shift_degrees[tilt]) + contrast
        common = math.pi * wavelength * 0.5 * ((u + v) * square + (u - v) * astigmatic) - aberration * square**2
        offsets = defocus_offsets_angstrom.reshape(-1, *[1] * square.dim())
        return torch.sin(common + constant + math.pi * wavelength * offsets * square)

    def envelope(self, tilt: int, frequencies: Float[Tensor, "*grid 2"]) -> Float[Tensor, "*grid"]:
        """The part of :meth:`transfer` that only falls: damage, B-factor and scale."""
        square = frequencies.square().sum(dim=-1)
        if self.bfactor_per_dose > 0:
            damage = self.dose[tilt] * self.bfactor_per_dose * square / 4
        else:
            damage = 0.5 * self.dose[tilt] / critical_dose(square.sqrt())
        return self.scale[tilt] * torch.exp(-damage - self.bfactor[tilt] * square / 4)


def electron_wavelength(voltage_kilovolts: float) -> float:
    """Relativistic wavelength of the electron, Å.

    Examples
    --------
    >>> round(electron_wavelength(300), 5)
    0.01969
    """
    volts = 1e3 * voltage_kilovolts
    return 12.2643247 / math.sqrt(volts * (1 + 0.978466e-6 * volts))


def critical_dose(frequency: Float[Tensor, "*grid"]) -> Float[Tensor, "*grid"]:
    """Dose that leaves 1/e of the power at a frequency (Å⁻¹): ``0.245 k^−1.665 + 2.81`` (Grant & Grigorieff 2015)."""
    return 0.245 * frequency.pow(-1.665) + 2.81
