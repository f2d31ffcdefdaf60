"""What can be put under the microscope: phantoms, prepared maps and atomic models."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.errors import InputError
from cryodc.fourier import fourier_crop, low_pass, shell_radius
from cryodc.io import Atoms
from cryodc.simulation.maps import OVERSAMPLING, MapSpecimen, prepare_map, require_fit
from cryodc.simulation.phantoms import Phantom
from cryodc.volumes import Volume

Specimen = Phantom | MapSpecimen
"""Both have ``symmetry``, ``moves``, ``render`` (clean volumes in poses and states) and ``mean_map``."""


def prepare_specimens(
    maps: Mapping[str, Volume | Phantom | Atoms],
    box_size: int,
    spacing_angstrom: float,
    resolution_angstrom: float | None = None,
) -> dict[str, Specimen]:
    """Maps centred, resampled and normalised; atoms drawn to a resolution; phantoms as they are.

    Parameters
    ----------
    maps
        Phantoms, maps or atoms by name.
    box_size, spacing_angstrom
        Of the particles.
    resolution_angstrom
        Of atomic models.

    Raises
    ------
    InputError
        If there is nothing to simulate, or a map, structure or phantom does not fit the box.
    """
    if not maps:
        raise InputError("there is nothing to simulate", remedy="name phantoms, maps or structures")
    specimens: dict[str, Specimen] = {}
    half_box = box_size / 2 * spacing_angstrom
    for name, item in maps.items():
        if isinstance(item, Volume):
            specimens[name] = prepare_map(name, item, box_size, spacing_angstrom)
            continue
        if isinstance(item, Atoms):
            specimens[name] = prepare_structure(name, item, box_size, spacing_angstrom, resolution_angstrom)
            continue
        if item.radius_angstrom() > half_box:
            raise InputError(
                f"phantom {name!r} does not fit the box",
                expected=f"a radius of at most {half_box:g} Å",
                found=f"{item.radius_angstrom():.0f} Å",
                remedy="use a larger --box or --spacing",
            )
        specimens[name] = item
    return specimens


_STENCIL_SIGMA = 1.0
_STENCIL_REACH = 4
_ATOMS_AT_ONCE = 4096


def prepare_structure(
    name: str, atoms: Atoms, box_size: int, spacing_angstrom: float, resolution_angstrom: float | None = None
) -> MapSpecimen:
    """Put atoms on a grid with their centre of mass in its centre, scaled to variance 1 over the box.

    Parameters
    ----------
    name
        For messages.
    atoms
        Of the whole particle.
    box_size, spacing_angstrom
        What it will be rendered at.
    resolution_angstrom
        Default: twice the spacing.

    Raises
    ------
    InputError
        If the resolution is finer than the grid can hold, or more than 1 % of the scattering lies beyond the sphere
        that fits the box.
    """
    finest = 2 * spacing_angstrom
    resolution = finest if resolution_angstrom is None else resolution_angstrom
    if not finest * (1 - 1e-6) <= resolution < math.inf:
        raise InputError(
            f"structure {name!r} cannot be drawn at this resolution",
            expected=f"at least {finest:g} Å, two voxels of {spacing_angstrom:g} Å",
            found=f"{resolution:g} Å",
            remedy="use a larger --resolution or a smaller --spacing",
        )
    offsets = atoms.positions_angstrom - atoms.centre_angstrom
    require_fit(f"structure {name!r}", atoms.scattering, np.linalg.norm(offsets, axis=1), box_size, spacing_angstrom)
    fine_spacing = spacing_angstrom / OVERSAMPLING
    sigma = resolution / (math.pi * math.sqrt(2)) / fine_spacing
    fine = density_of_points(offsets / fine_spacing, atoms.scattering, sigma, OVERSAMPLING * box_size)
    fine = low_pass(fine, box_size / 2 - 2, edge_shells=2)
    return MapSpecimen(fine / fourier_crop(fine, box_size).std(correction=0), box_size, spacing_angstrom)


def density_of_points(
    positions_voxels: Float[NDArray[np.float64], "n 3"],
    weights: Float[NDArray[np.float64], " n"],
    sigma_voxels: float,
    box_size: int,
) -> Float[Tensor, "d h w"]:
    """Sum of Gaussians at points (zyx from index ``N // 2``); each integrates to its weight.

    Each point is drawn as a narrow Gaussian on the voxels around it; what is missing to ``sigma_voxels`` is blurred
    in Fourier space, where it costs nothing per point. What lies outside the box is left out.

    Parameters
    ----------
    positions_voxels, weights
        ``(n, 3)`` and ``(n,)``.
    sigma_voxels
        0.8 or more: a narrower Gaussian is aliased.
    box_size
        Edge of the grid.
    """
    stencil_sigma = min(sigma_voxels, _STENCIL_SIGMA)
    reach = np.arange(-_STENCIL_REACH, _STENCIL_REACH + 1)
    grid = np.zeros(box_size**3)
    inside = (np.abs(positions_voxels) < box_size / 2 + _STENCIL_REACH).all(axis=1)
    positions, kept = positions_voxels[inside] + box_size // 2, weights[inside]
    for start in range(0, len(positions), _ATOMS_AT_ONCE):
        rows = slice(start, start + _ATOMS_AT_ONCE)
        some = positions[rows]
        voxels = np.round(some).astype(np.int64)[..., None] + reach
        gauss = np.exp(-0.5 * ((voxels - some[..., None]) / stencil_sigma) ** 2)
        gauss /= stencil_sigma * math.sqrt(2 * math.pi)
        gauss *= (voxels >= 0) & (voxels < box_size)
        z, y, x = np.moveaxis(voxels.clip(0, box_size - 1), 1, 0)
        places = (z[:, :, None, None] * box_size + y[:, None, :, None]) * box_size + x[:, None, None, :]
        values = np.einsum("n,ni,nj,nk->nijk", kept[rows], *np.moveaxis(gauss, 1, 0))
        grid += np.bincount(places.ravel(), values.ravel(), minlength=box_size**3)
    density = torch.from_numpy(grid.reshape((box_size,) * 3)).float()
    blur = 2 * (math.pi / box_size) ** 2 * (sigma_voxels**2 - stencil_sigma**2)
    return torch.fft.irfftn(torch.fft.rfftn(density) * torch.exp(-blur * shell_radius(box_size) ** 2), s=density.shape)
