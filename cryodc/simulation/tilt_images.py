"""Simulated tilt series: projections, CTF, damage and noise image by image, backprojected as ``cryodc import`` does.

In Fourier space an image is ``C(k) · Σ_j V_j(Pᵀ k) exp(−2πi k · P x_j) + noise``: a slice of the particle and of each
neighbour ``j``, which lies at ``x_j``. ``C`` is :meth:`cryodc.fourier.ctf.TiltOptics.transfer`.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import (
    OVERSAMPLING,
    Backprojection,
    TiltAxis,
    TiltOptics,
    backproject,
    crop_images,
    multiply_by_transfer,
)
from cryodc.simulation.config import SimulatedTiltSeries, SimulationConfig
from cryodc.simulation.scene import (
    TOMOGRAM_SHAPE,
    draw_coordinates,
    map_scales,
    neighbours_of,
    render,
    render_poses,
    weight_index,
)
from cryodc.simulation.specimens import Specimen
from cryodc.simulation.truth import Truth

_BATCH_BYTES = 1 << 29
_MAX_BATCH = 32
_DEFOCUS_HAND = -1
"""Defocus falls with depth, as rlnTomoHand −1 says."""


def tilt_angles(tilt_range: tuple[float, float], step_degrees: float) -> Float[NDArray[np.float64], " t"]:
    """Angles from the smallest in steps, degrees."""
    n_tilts = int((tilt_range[1] - tilt_range[0]) / step_degrees + 1e-9) + 1
    return tilt_range[0] + step_degrees * np.arange(n_tilts, dtype=np.float64)


def tilt_projections(angles_degrees: Float[NDArray[np.float64], " t"], tilt_axis: TiltAxis) -> Float[Tensor, "t 3 3"]:
    """Specimen → image, zyx: the image at θ measures the plane ``k_z = k_x tan θ`` (axis x: ``k_z = k_y tan θ``)."""
    turns = torch.eye(3).repeat(len(angles_degrees), 1, 1)
    angles = torch.from_numpy(np.radians(angles_degrees)).float()
    across = 2 if tilt_axis == "y" else 1
    turns[:, 0, 0] = turns[:, across, across] = torch.cos(angles)
    turns[:, across, 0] = torch.sin(angles)
    turns[:, 0, across] = -torch.sin(angles)
    return turns


def tilt_optics(
    series: SimulatedTiltSeries, angles_degrees: Float[NDArray[np.float64], " t"], defocus_micrometres: float
) -> TiltOptics:
    """Transfer of each tilt: no astigmatism, signal as the cosine of the angle, dose from the smallest angle out."""
    order = np.argsort(np.abs(angles_degrees), kind="stable")
    dose = np.empty(len(order))
    dose[order] = np.arange(len(order)) * series.dose_per_tilt
    zero = torch.zeros(len(order))
    defocus = torch.full((len(order),), 1e4 * defocus_micrometres)
    return TiltOptics(
        series.voltage_kilovolts,
        series.spherical_aberration_millimetres,
        series.amplitude_contrast,
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
        defocus_angle_degrees=zero,
        phase_shift_degrees=zero,
        bfactor=zero,
        scale=torch.from_numpy(np.cos(np.radians(angles_degrees))).float(),
        dose=torch.from_numpy(dose).float(),
    )


def image_noise_variance(voxel_variance: Float[Tensor, " b"], step_degrees: float) -> Float[Tensor, " b"]:
    """Noise of the images that does to a volume what white noise of a variance per voxel does.

    Slices ``Δ`` radians apart meet a voxel at distance ``k`` from the tilt axis ``1 / (Δ k)`` times, which divides
    the noise power ``N² σ_i²`` there. Its mean over the Nyquist ball, ``N² σ_i² · Δ · 3πN/32``, is ``N³ σ²`` for
    ``σ_i² = 32 σ² / (3π Δ)``.

    Examples
    --------
    >>> image_noise_variance(torch.ones(1), 3.0)
    tensor([64.8456])
    """
    return voxel_variance * 32 / (3 * math.pi * math.radians(step_degrees))


def defocus_offsets(
    rows: list[int], projections: Float[Tensor, "t 3 3"], n_particles: int, config: SimulationConfig
) -> Float[Tensor, "b t"]:
    """What the depth of each particle in its tomogram adds to the defocus of each tilt, Å.

    Parameters
    ----------
    rows
        Of which particles.
    projections
        ``(t, 3, 3)`` of the tilt series.
    n_particles
        In all.
    config
        Of the simulation.
    """
    coordinates = draw_coordinates(n_particles, config)[rows] - np.array(TOMOGRAM_SHAPE) / 2
    points = torch.from_numpy(coordinates * config.spacing_angstrom).float()
    return _DEFOCUS_HAND * points @ projections[:, 0].T


def untilted_defocus(truth: Truth, config: SimulationConfig) -> Float[NDArray[np.float64], " n"]:
    """Defocus of each particle in the untilted image, Å: that of its tomogram at its depth."""
    rows = list(range(len(truth)))
    offsets = defocus_offsets(rows, torch.eye(3)[None], len(truth), config)[:, 0]
    return 1e4 * truth.extra["defocus_micrometres"] + offsets.double().numpy()


def simulate_tilt_batches(
    specimens: Mapping[str, Specimen], truth: Truth, config: SimulationConfig
) -> Iterator[tuple[list[int], Backprojection]]:
    """Particles of one tomogram at a time, with their rows, as ``ΣC · image`` and ``ΣC²``.

    Images are twice as wide as the box, so that what the CTF spreads does not come back on the other side; noise
    is added there, then they are multiplied by the transfer and cut to the box.
    """
    series = config.tilt_series or SimulatedTiltSeries()
    scales = map_scales(specimens, config)
    for rows in _batches(truth, config):
        angles = tilt_angles(config.tilt_ranges[int(weight_index(truth, config)[rows[0]])], series.step_degrees)
        projections = tilt_projections(angles, config.tilt_axis)
        optics = tilt_optics(series, angles, float(truth.extra["defocus_micrometres"][rows[0]]))
        offsets = defocus_offsets(rows, projections, len(truth), config)
        spacing = config.spacing_angstrom
        clean, images = project_scene(specimens, truth, rows, angles, config, scales)
        images = multiply_by_transfer(images, optics, offsets, spacing)
        if config.snr != math.inf:
            images = images + _noise(clean, rows, images, config.snr, series.step_degrees, config.seed)
        images = crop_images(multiply_by_transfer(images, optics, offsets, spacing), config.box_size)
        visible = torch.ones(images.shape[:2], dtype=torch.bool)
        yield rows, backproject(images, visible, projections, optics, offsets, spacing, config.box_size)


def project(
    volumes: Float[Tensor, "b d h w"], angles_degrees: Float[NDArray[np.float64], " t"], tilt_axis: TiltAxis
) -> Float[Tensor, "b t m m"]:
    """Sums along the beam of volumes tilted by each angle; images twice as wide as the box.

    Parameters
    ----------
    volumes
        ``(b, N, N, N)``, centre index ``N // 2``.
    angles_degrees
        ``(t,)``.
    tilt_axis
        The axis the volumes are tilted about.

    Returns
    -------
    ``(b, t, 2N, 2N)``, centre index ``N``.
    """
    return _images(_slices(volumes, angles_degrees, tilt_axis))


def project_scene(
    specimens: Mapping[str, Specimen],
    truth: Truth,
    rows: list[int],
    angles: Float[NDArray[np.float64], " t"],
    config: SimulationConfig,
    scales: Mapping[str, float],
) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b t m m"]]:
    """Clean boxes of particles without neighbours, and clean images, twice as wide, of particles with them.

    Parameters
    ----------
    specimens
        The proteins.
    truth
        What is to be seen.
    rows
        Of which particles.
    angles
        ``(t,)`` tilts, degrees.
    config
        Of the simulation.
    scales
        ``(proteins,)`` by which each protein is multiplied.
    """
    clean = render(specimens, truth, rows, config, scales)
    spectra = _slices(clean, angles, config.tilt_axis)
    image_grid = _image_grid(config.box_size) @ tilt_projections(angles, config.tilt_axis)[:, None]
    for place, row in enumerate(rows):
        n = neighbours_of(row, truth, config)
        for j in range(len(n)):
            one = slice(j, j + 1)
            centred = render_poses(
                specimens, n.labels[one], n.rotations[one], torch.zeros(1, 3), n.states[one], config, scales
            )
            voxels = n.centres_angstrom[j].float() / config.spacing_angstrom
            angle = image_grid @ voxels * (-2 * math.pi / config.box_size)
            spectra[place] += _slices(centred, angles, config.tilt_axis)[0] * torch.polar(torch.ones_like(angle), angle)
    return clean, _images(spectra)


def _image_grid(box_size: int) -> Float[Tensor, "m hm 3"]:
    """Frequencies, zyx in cycles per box, of images twice as wide."""
    y = torch.fft.fftfreq(2 * box_size) * box_size
    x = torch.fft.rfftfreq(2 * box_size) * box_size
    plane = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    return F.pad(plane, (1, 0))


def _slices(
    volumes: Float[Tensor, "b d h w"], angles_degrees: Float[NDArray[np.float64], " t"], tilt_axis: TiltAxis
) -> Complex[Tensor, "b t m hm"]:
    """Central slices without interpolation: the tilted axis is transformed at its own frequencies, z likewise.

    ``Σ_z exp(−2πi k z sin θ) Σ_x exp(−2πi k x cos θ) v(z, y, x)`` for tilts about y, then a plain FFT along y.
    """
    box_size = volumes.shape[-1]
    centred = torch.arange(box_size) - box_size // 2
    grid = _image_grid(box_size)
    inside = grid.norm(dim=-1) < box_size / 2
    k = -2 * math.pi / box_size * grid[0, :, 2]
    turned = volumes if tilt_axis == "y" else volumes.transpose(-1, -2)
    spectra = []
    for angle in np.radians(angles_degrees):
        phase_x, phase_z = (torch.outer(centred, k * float(f)) for f in (np.cos(angle), np.sin(angle)))
        rows = torch.complex(turned @ torch.cos(phase_x), turned @ torch.sin(phase_x))
        rows = (rows * torch.polar(torch.ones_like(phase_z), phase_z)[:, None]).sum(dim=1)
        padded = F.pad(rows, (0, 0, box_size - box_size // 2, box_size // 2))
        spectra.append(torch.fft.fft(torch.fft.ifftshift(padded, dim=-2), dim=-2) * inside)
    found = torch.stack(spectra, dim=1)
    return found if tilt_axis == "y" else torch.fft.rfft2(torch.fft.irfft2(found).transpose(-1, -2))


def _images(spectra: Complex[Tensor, "b t m hm"]) -> Float[Tensor, "b t m m"]:
    edge = spectra.shape[-2]
    return torch.fft.fftshift(torch.fft.irfft2(spectra, s=(edge, edge)), dim=(-2, -1))


def _noise(
    clean: Float[Tensor, "b d h w"],
    rows: list[int],
    images: Float[Tensor, "b t m m"],
    snr: float,
    step_degrees: float,
    seed: int,
) -> Float[Tensor, "b t m m"]:
    """White noise of each image; a particle's does not depend on its batch."""
    noise = torch.empty_like(images)
    for place, row in enumerate(rows):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + row + 1) % 2**63)
        torch.randn(images.shape[1:], generator=generator, out=noise[place])
    variance = image_noise_variance(clean.var(dim=(1, 2, 3), correction=0) / snr, step_degrees)
    return noise * variance.sqrt()[:, None, None, None]


def _batches(truth: Truth, config: SimulationConfig) -> Iterator[list[int]]:
    groups: dict[str, list[int]] = {}
    for row, tomogram in enumerate(truth.tomograms):
        groups.setdefault(tomogram, []).append(row)
    step = SimulatedTiltSeries().step_degrees if config.tilt_series is None else config.tilt_series.step_degrees
    n_tilts = max(len(tilt_angles(tilt_range, step)) for tilt_range in config.tilt_ranges)
    edge = OVERSAMPLING * config.box_size
    # Bytes per particle: sums, spectra and volumes on the wide grid; images, their spectra and their noise.
    size = min(_MAX_BATCH, max(1, _BATCH_BYTES // (edge**3 * 72 + n_tilts * edge**2 * 32)))
    for rows in groups.values():
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
