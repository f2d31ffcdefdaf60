"""3D subtomograms from 2D tilt images: each image is a slice of the particle's Fourier space.

With ``A`` taking a point of the subtomogram to the image, ``image(k) = C(k) · V(Aᵀ k)`` plus white noise, ``C`` the
transfer of the tilt and ``k`` in the plane of the image. Multiplied by ``C`` and inserted where they belong,

``data = Σ C · image = W · V + noise of variance W``, ``W = Σ C²``.

Slices are spread linearly over a grid twice as fine as the box asks for, that is, over a box twice as wide. What
came out is cut to the box by a soft sphere, data and weight in the same way, so nothing wraps around its faces.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cryodc.fourier.ctf import TiltOptics
from cryodc.fourier.filters import soft_sphere
from cryodc.fourier.grid import OVERSAMPLING
from cryodc.fourier.wedge import frequency_grid

MEASURED = 1e-4
"""Share of the largest weight below which a Fourier voxel counts as not measured: the tails of slices."""


@dataclass(frozen=True)
class Backprojection:
    """Subtomograms with what was measured of them.

    Parameters
    ----------
    data
        ``(b, d, h, w)``: ``Σ C · image``, not normalised; protein positive where it is in the images.
    weight
        ``(b, d, h, w // 2 + 1)``: ``W = Σ C²``, half-Fourier in FFT order, 0 where nothing was measured.
    multiplicity
        ``(b, d, h, w // 2 + 1)``: how many slices met each Fourier voxel.
    """

    data: Float[Tensor, "b d h w"]
    weight: Float[Tensor, "b d h hw"]
    multiplicity: Float[Tensor, "b d h hw"]


@dataclass(frozen=True)
class _FineGrid:
    """The fine half-Fourier grid: its edge, and place and frequency (zyx, cycles per box) of voxels to Nyquist."""

    edge: int
    index: Int[Tensor, " p"]
    frequencies: Float[Tensor, "p 3"]


def backproject(
    images: Float[Tensor, "b t m m"],
    visible: Bool[Tensor, "b t"],
    projections: Float[Tensor, "t 3 3"],
    optics: TiltOptics,
    defocus_offsets_angstrom: Float[Tensor, "b t"],
    spacing_angstrom: float,
    box_size: int,
) -> Backprojection:
    """Make subtomograms of particles that share their projections.

    Parameters
    ----------
    images
        ``(b, t, m, m)``, multiplied by their transfer; the particle's centre is index ``m // 2``.
    visible
        ``(b, t)``: which images count.
    projections
        ``(t, 3, 3)``: subtomogram → image, zyx; z is depth.
    optics, defocus_offsets_angstrom
        The transfer of each tilt, and ``(b, t)`` what is added to its defocus.
    spacing_angstrom
        Pixel of the images.
    box_size
        Edge of the subtomograms; ``m`` is a multiple of it, by which they are binned.

    Raises
    ------
    ValueError
        If ``m`` is no multiple of the box size.
    """
    n_particles, n_tilts, image_size = images.shape[:3]
    if image_size % box_size:
        raise ValueError(f"images of {image_size} pixels for a box of {box_size}")
    grid = _fine_grid(box_size, images.device)
    sums = images.new_zeros(n_particles, 4, grid.edge * grid.edge * (grid.edge // 2 + 1))
    for tilt in range(n_tilts):
        index, inplane, spread = _slab(grid, projections[tilt])
        transfer = optics.transfer(tilt, inplane / (image_size * spacing_angstrom), defocus_offsets_angstrom[:, tilt])
        values = _sample_image(_fine_image(images[:, tilt], box_size / 2), inplane)
        terms = torch.cat([values, transfer.square()[:, None], torch.ones_like(transfer)[:, None]], dim=1)
        sums.index_add_(2, index, terms * spread * visible[:, tilt, None, None])
    data, weight = _cut_to_box(sums, grid.edge, box_size)
    # Grey values stay when voxels become larger.
    data = data * (box_size / image_size) ** 3
    density, multiplicity = weight.unbind(dim=1)
    measured = density > MEASURED * density.amax(dim=(1, 2, 3), keepdim=True)
    return Backprojection(data, density * measured, multiplicity.clamp_min(0) * measured)


def crop_images(images: Float[Tensor, "*batch m m"], size: int) -> Float[Tensor, "*batch s s"]:
    """The middle of images; the centre (index ``m // 2``) stays the centre."""
    start = images.shape[-1] // 2 - size // 2
    keep = slice(start, start + size)
    return images[..., keep, keep]


def subtract_background(images: Float[Tensor, "*batch m m"]) -> Float[Tensor, "*batch m m"]:
    """Subtract from each image its mean outside the largest circle."""
    size = images.shape[-1]
    axis = torch.arange(size, device=images.device) - size // 2
    outside = ((axis[:, None] ** 2 + axis**2) > (size / 2) ** 2).float()
    background = (images * outside).sum(dim=(-2, -1), keepdim=True) / outside.sum()
    return images - background


def image_frequencies(
    size: int, spacing_angstrom: float, device: torch.device | None = None
) -> Float[Tensor, "m hm 2"]:
    """Frequencies (yx, Å⁻¹) of the half-Fourier grid of a square image."""
    y = torch.fft.fftfreq(size, spacing_angstrom, device=device)
    x = torch.fft.rfftfreq(size, spacing_angstrom, device=device)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)


def multiply_by_transfer(
    images: Float[Tensor, "b t m m"],
    optics: TiltOptics,
    defocus_offsets_angstrom: Float[Tensor, "b t"],
    spacing_angstrom: float,
) -> Float[Tensor, "b t m m"]:
    """Multiply each image by the transfer of its tilt at the particle's depth: CTF premultiplication.

    Parameters
    ----------
    images
        ``(t, h, w)`` tilt images.
    optics
        Their contrast transfer.
    defocus_offsets_angstrom
        ``(t,)`` added to the defocus of each tilt, because the particle lies above or below the tilt axis.
    spacing_angstrom
        Pixel size.
    """
    size = images.shape[-1]
    frequencies = image_frequencies(size, spacing_angstrom, images.device)
    transfers = [
        optics.transfer(tilt, frequencies, defocus_offsets_angstrom[:, tilt]) for tilt in range(images.shape[1])
    ]
    return torch.fft.irfft2(torch.fft.rfft2(images) * torch.stack(transfers, dim=1), s=(size, size))


def _fine_grid(box_size: int, device: torch.device) -> _FineGrid:
    edge = OVERSAMPLING * box_size
    frequencies = frequency_grid(edge, device).reshape(-1, 3) / OVERSAMPLING
    inside = (frequencies.norm(dim=1) <= box_size / 2) & (frequencies.abs().amax(dim=1) < box_size / 2)
    index = torch.nonzero(inside)[:, 0]
    return _FineGrid(edge, index, frequencies[index])


def _slab(
    grid: _FineGrid, projection: Float[Tensor, "3 3"]
) -> tuple[Int[Tensor, " s"], Float[Tensor, "s 2"], Float[Tensor, " s"]]:
    """Voxels within one fine step of a slice: their places, in-plane frequencies (yx) and shares of the slice.

    A share is linear in the distance from the slice, and along a line across it shares add up to one.
    """
    turn = torch.linalg.inv(projection).T
    distance = OVERSAMPLING * (grid.frequencies @ turn[0]).abs()
    near = torch.nonzero(distance < 1)[:, 0]
    inplane = grid.frequencies[near] @ turn[1:].T
    return grid.index[near], inplane, OVERSAMPLING * (1 - distance[near])


def _fine_image(images: Float[Tensor, "b m m"], radius_shells: float) -> Float[Tensor, "b 2 e e"]:
    """Spectra sampled twice as finely, for linear interpolation; as :func:`cryodc.fourier.ball.fine_spectrum`."""
    size = images.shape[-1]
    fine = OVERSAMPLING * size
    x = torch.arange(size, dtype=images.dtype, device=images.device) - size // 2
    loss = torch.sinc(x / fine) ** 2
    before = fine // 2 - size // 2
    padded = F.pad(images / (loss[:, None] * loss), [before, fine - size - before] * 2)
    spectra = torch.fft.fft2(torch.fft.ifftshift(padded, dim=(-2, -1)))
    half = min(fine // 2 - 1, math.ceil(OVERSAMPLING * radius_shells) + 1)
    keep = slice(fine // 2 - half, fine // 2 + half + 1)
    spectra = torch.fft.fftshift(spectra, dim=(-2, -1))[:, keep, keep]
    return torch.stack([spectra.real, spectra.imag], dim=1)


def _sample_image(fine: Float[Tensor, "b 2 e e"], frequencies: Float[Tensor, "s 2"]) -> Float[Tensor, "b 2 s"]:
    half = fine.shape[-1] // 2
    points = (frequencies.flip(-1) * (OVERSAMPLING / half))[None, None].expand(len(fine), -1, -1, -1)
    return F.grid_sample(fine, points, align_corners=True, padding_mode="zeros")[:, :, 0]


def _cut_to_box(
    sums: Float[Tensor, "b 4 v"], edge: int, box_size: int
) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b 2 d h hw"]]:
    """The middle of the wide box through a soft sphere: of the data, and of the weights' point spread functions."""
    shape = (edge, edge, edge // 2 + 1)
    rim = max(2.0, 0.1 * box_size)
    sphere = soft_sphere(box_size, box_size / 2 - rim, rim, sums.device)
    keep = slice(edge // 2 - box_size // 2, edge // 2 + box_size // 2)
    spectra = torch.stack([torch.complex(sums[:, 0], sums[:, 1]), sums[:, 2] + 0j, sums[:, 3] + 0j], dim=1)
    wide = torch.fft.irfftn(spectra.reshape(len(sums), 3, *shape), s=(edge, edge, edge), dim=(-3, -2, -1))
    box = torch.fft.fftshift(wide, dim=(-3, -2, -1))[..., keep, keep, keep] * sphere
    weights = torch.fft.rfftn(torch.fft.ifftshift(box[:, 1:], dim=(-3, -2, -1)), dim=(-3, -2, -1)).real
    return box[:, 0].contiguous(), weights
