"""Density maps of the user as specimens: centred, resampled, normalised, and rotated without visible loss."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.errors import InputError
from cryodc.fourier import fourier_crop, frequency_grid, low_pass
from cryodc.geometry import resample
from cryodc.io import read_array, read_header
from cryodc.volumes import Volume

OVERSAMPLING = 2
_CUT_OFF_TOLERATED = 0.01


@dataclass(frozen=True)
class MapSpecimen:
    """A rigid map, held twice as finely as it is rendered.

    Parameters
    ----------
    fine
        ``(2N, 2N, 2N)`` at half the rendered spacing, low-passed to the Nyquist frequency of the box ``N``.
    box_size, spacing_angstrom
        What it is rendered at.
    symmetry
        Point group the user says it has; C1 where unknown.
    """

    fine: Float[Tensor, "D H W"]
    box_size: int
    spacing_angstrom: float
    symmetry: str = "C1"
    moves: bool = False

    def render(
        self,
        rotations: Float[Tensor, "b 3 3"],
        origins_angstrom: Float[Tensor, "b 3"],
        states: Float[Tensor, " b"],
        box_size: int,
        spacing_angstrom: float,
    ) -> Float[Tensor, "b d h w"]:
        """The map in these poses: ``particle(x) = reference(Aᵀ (x + o))``; states change nothing.

        Trilinear interpolation on the fine grid damps the spectrum by ``sinc²`` along each axis; the map is
        divided by that first.

        Parameters
        ----------
        rotations, origins_angstrom
            ``(n, 3, 3)`` and ``(n, 3)`` zyx: poses.
        states
            ``(n,)`` in [0, 1]; a map has one state.
        box_size, spacing_angstrom
            Of the volumes.
        """
        self._require_grid(box_size, spacing_angstrom)
        inverse = rotations.float().transpose(1, 2)
        origins = origins_angstrom.float() / spacing_angstrom * OVERSAMPLING
        offsets = torch.einsum("bij,bj->bi", inverse, origins)
        sharpened = _undo_trilinear(self.fine).expand(len(rotations), -1, -1, -1)
        return fourier_crop(resample(sharpened, inverse, offsets), box_size)

    def mean_map(self, box_size: int, spacing_angstrom: float) -> Float[Tensor, "d h w"]:
        """The unrotated map."""
        self._require_grid(box_size, spacing_angstrom)
        return fourier_crop(self.fine, box_size)

    def _require_grid(self, box_size: int, spacing_angstrom: float) -> None:
        if (box_size, spacing_angstrom) != (self.box_size, self.spacing_angstrom):
            raise ValueError(
                f"prepared for box {self.box_size} at {self.spacing_angstrom} Å, "
                f"asked for {box_size} at {spacing_angstrom} Å"
            )


def read_map(path: Path) -> Volume:
    """Read a map of any shape, ``.gz`` too, padded with zeros to an even cube.

    Raises
    ------
    InputError
        If the file is bad, or its voxel spacing is not set or differs between axes.
    """
    header = read_header(path)
    if header.spacing_angstrom is None or not header.is_isotropic:
        raise InputError(
            "the map needs one voxel spacing",
            file=path,
            expected="the same spacing along z, y and x, in Å",
            found=", ".join(f"{spacing:g}" for spacing in header.spacing_zyx_angstrom),
            remedy="set the voxel size in the header",
        )
    voxels = read_array(path)
    edge = max(voxels.shape) + max(voxels.shape) % 2
    before = [(edge - n) // 2 for n in voxels.shape]
    after = [edge - n - b for n, b in zip(voxels.shape, before, strict=True)]
    padded = np.pad(voxels, list(zip(before, after, strict=True)))
    return Volume(padded, header.spacing_angstrom)


def prepare_map(name: str, volume: Volume, box_size: int, spacing_angstrom: float) -> MapSpecimen:
    """Centre a map on its mass, resample it, low-pass it and scale it to variance 1 over the box.

    The centre is the centre of mass of the density above a fifth of its peak (the 99.9th percentile).

    Parameters
    ----------
    name
        For messages.
    volume
        The map.
    box_size, spacing_angstrom
        Of the particles.

    Raises
    ------
    InputError
        If the map holds no density, or more than 1 % of its mass lies beyond the sphere that fits the box:
        rotated particles would be clipped.
    """
    mass, offsets = _density(name, volume)
    centre = (mass[:, None] * offsets).sum(axis=0) / mass.sum()
    distances = np.linalg.norm(offsets - centre, axis=1)
    require_fit(f"map {name!r}", mass, distances, box_size, spacing_angstrom)
    fine_box = OVERSAMPLING * box_size
    fine = shift_and_resample(volume, centre, fine_box, spacing_angstrom / OVERSAMPLING)
    fine = low_pass(fine, box_size / 2 - 2, edge_shells=2)
    scale = fourier_crop(fine, box_size).std(correction=0)
    return MapSpecimen(fine / scale, box_size, spacing_angstrom)


def require_fit(
    what: str,
    mass: Float[NDArray[np.float64], " n"],
    distances_angstrom: Float[NDArray[np.float64], " n"],
    box_size: int,
    spacing_angstrom: float,
) -> None:
    """Check that what lies at these distances from the centre stays in the box in every rotation.

    Parameters
    ----------
    what
        The specimen, for the message.
    mass, distances_angstrom
        Of its parts, and how far each lies from the middle.
    box_size, spacing_angstrom
        Of the particles.

    Raises
    ------
    InputError
        If more than 1 % of the mass lies beyond the sphere that fits the box.
    """
    radius = box_size / 2 * spacing_angstrom
    clipped = float(mass[distances_angstrom > radius].sum() / mass.sum())
    if clipped > _CUT_OFF_TOLERATED:
        needed = int(np.ceil(distances_angstrom.max() / spacing_angstrom)) * 2
        raise InputError(
            f"{what} does not fit the box: {100 * clipped:.0f} % of its mass would be clipped in some rotation",
            expected=f"density within {radius:g} Å of its centre of mass",
            found=f"density out to {distances_angstrom.max():.0f} Å",
            remedy=f"use --box {needed} at this spacing, or a larger --spacing",
        )


def shift_and_resample(
    volume: Volume, centre_angstrom: NDArray[np.float64], box_size: int, spacing_angstrom: float
) -> Float[Tensor, "d h w"]:
    """A map on another grid whose centre is a given point, by trigonometric interpolation; zero outside the map.

    Exact for what both grids can represent, at any ratio of spacings. Frequencies above the new Nyquist
    frequency are dropped.

    Parameters
    ----------
    volume
        The map.
    centre_angstrom
        ``(3,)`` zyx from the map's own centre.
    box_size, spacing_angstrom
        The new grid.
    """
    old, old_spacing = volume.box_size, volume.spacing_angstrom
    highest = min(old // 2 - 1, int(old * old_spacing / (2 * spacing_angstrom) - 1e-9))
    frequencies = np.arange(-highest, highest + 1)
    axes = []
    for centre in centre_angstrom:
        points = ((np.arange(box_size) - box_size // 2) * spacing_angstrom + centre) / old_spacing
        distance = points[:, None] - (np.arange(old) - old // 2)
        # Summed over ±k the kernel is real: the Dirichlet kernel.
        kernel = np.cos(2 * np.pi / old * distance[..., None] * frequencies).sum(axis=-1) / old
        kernel[(points < -old / 2) | (points > old / 2 - 1)] = 0
        axes.append(torch.from_numpy(kernel).float())
    along_x = torch.einsum("xk,ijk->ijx", axes[2], torch.from_numpy(volume.voxels))
    along_y = torch.einsum("yj,ijx->iyx", axes[1], along_x)
    return torch.einsum("zi,iyx->zyx", axes[0], along_y)


def _density(name: str, volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Grey value and offset from the map's centre, in Å, of every voxel above a fifth of the peak."""
    threshold = 0.2 * float(np.percentile(volume.voxels, 99.9))
    if not threshold > 0:
        raise InputError(f"map {name!r} holds no positive density", remedy="protein must be positive: invert the map")
    inside = np.argwhere(volume.voxels > threshold)
    mass = volume.voxels[tuple(inside.T)].astype(np.float64)
    offsets = (inside - volume.box_size // 2).astype(np.float64) * volume.spacing_angstrom
    return mass, offsets


def _undo_trilinear(volume: Float[Tensor, "d h w"]) -> Float[Tensor, "d h w"]:
    box_size = volume.shape[-1]
    damping = torch.sinc(frequency_grid(box_size) / box_size).prod(dim=-1) ** 2
    return torch.fft.irfftn(torch.fft.rfftn(volume) / damping, s=volume.shape)
