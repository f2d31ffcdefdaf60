"""The missing wedge: which Fourier voxels a tilt series measures, and applying such a weight.

A weight is half-Fourier in FFT order, ``(d, h, w // 2 + 1)`` as :func:`torch.fft.rfftn` lays it out, DC at
``[0, 0, 0]``; 1 is measured, 0 is missing. Applying one is the only way this package removes a wedge.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TiltAxis = Literal["x", "y"]
MEASURED = 0.1
"""Share of a weight's own largest value above which a Fourier voxel counts as measured."""


def frequency_grid(
    box_size: int, device: torch.device | None = None, dims: int = 3
) -> Float[Tensor, "*half_spectrum dims"]:
    """Integer frequencies (cycles per box; zyx, in 2D yx) of the half-Fourier grid of a cubic box."""
    full = torch.fft.fftfreq(box_size, 1 / box_size, device=device)
    half = torch.fft.rfftfreq(box_size, 1 / box_size, device=device)
    return torch.stack(torch.meshgrid(*[full] * (dims - 1), half, indexing="ij"), dim=-1)


def wedge_from_tilt_range(
    box_size: int, tilt_min_degrees: float, tilt_max_degrees: float, tilt_axis: TiltAxis = "y"
) -> Float[Tensor, "d h hw"]:
    """Binary weight of a single-axis tilt series that spans a tilt range, beam along z.

    A projection at tilt θ about y measures the plane ``k_z = k_x tan θ`` (about x: ``k_z = k_y tan θ``). The
    planes between the two extreme tilts are measured; DC always is.

    Parameters
    ----------
    box_size
        Even, in voxels.
    tilt_min_degrees, tilt_max_degrees
        ``-90 ≤ min < max ≤ 90``.
    tilt_axis
        The axis the specimen was tilted about.

    Raises
    ------
    ValueError
        If the range is empty or beyond ±90°.
    """
    if not -90 <= tilt_min_degrees < tilt_max_degrees <= 90:
        raise ValueError(f"expected -90 <= tilt min < tilt max <= 90, found {tilt_min_degrees} and {tilt_max_degrees}")
    k = frequency_grid(box_size).double()
    beam, across = k[..., 0], k[..., 2] if tilt_axis == "y" else k[..., 1]
    # The Nyquist index stands for both signs of its frequency: it is measured if either sign is.
    nyquist = (beam.abs() == box_size // 2) | (across.abs() == box_size // 2)
    measured = _between(beam, across, tilt_min_degrees, tilt_max_degrees)
    mirrored = _between(-beam, across, tilt_min_degrees, tilt_max_degrees)
    weight = (measured | (nyquist & mirrored)).float()
    weight[0, 0, 0] = 1.0
    return weight


def apply_weight(
    volumes: Float[Tensor, "*batch d h w"], weights: Float[Tensor, "*#batch d h hw"]
) -> Float[Tensor, "*batch d h w"]:
    """``F⁻¹ [ W · F(x) ]``: a volume as a microscope with this weight records it."""
    spectrum = torch.fft.rfftn(volumes, dim=(-3, -2, -1)) * weights
    return torch.fft.irfftn(spectrum, s=volumes.shape[-3:], dim=(-3, -2, -1))


def measured_voxels(weights: Float[Tensor, "m *spectrum"]) -> Bool[Tensor, "m *spectrum"]:
    """Where each weight measures: where it exceeds a tenth of its own largest value.

    Each weight is judged by itself, so neither its scale nor the other weights matter.
    """
    magnitude = weights.abs()
    largest = magnitude.flatten(1).amax(dim=1).reshape(-1, *[1] * (weights.ndim - 1))
    return magnitude > MEASURED * largest


def missing_moments(weight: Float[Tensor, "d h hw"]) -> Float[Tensor, "3 3"]:
    """``Σ k̂ k̂ᵀ`` over the missing voxels within Nyquist, divided by the number of all: how much is missing, and where.

    Its trace is the missing share. A wedge that is turned by ``A`` has the moments ``A M Aᵀ``. Voxels that
    :func:`measured_voxels` does not count are missing.

    Examples
    --------
    A wedge of 60° about y is missing along z most, then along x:

    >>> missing_moments(wedge_from_tilt_range(32, -60, 60)).diagonal().round(decimals=2)
    tensor([0.2000, 0.1100, 0.0200], dtype=torch.float64)
    """
    box = weight.shape[0]
    k = frequency_grid(box, weight.device).double()
    radius = k.norm(dim=-1)
    # Each column but DC and Nyquist stands for its mirror image too, whose moments are the same.
    counted = torch.full((box // 2 + 1,), 2.0, device=weight.device).double()
    counted[0] = counted[-1] = 1.0
    counted = counted * ((radius > 0) & (radius <= box // 2))
    missing = counted * ~measured_voxels(weight[None])[0]
    direction = k / radius.clamp(min=1)[..., None]
    return torch.einsum("dhw,dhwi,dhwj->ij", missing, direction, direction) / counted.sum()


def _between(beam: Tensor, across: Tensor, tilt_min_degrees: float, tilt_max_degrees: float) -> Tensor:
    low = beam * math.cos(math.radians(tilt_min_degrees)) - across * math.sin(math.radians(tilt_min_degrees))
    high = beam * math.cos(math.radians(tilt_max_degrees)) - across * math.sin(math.radians(tilt_max_degrees))
    return low * high <= 1e-9
