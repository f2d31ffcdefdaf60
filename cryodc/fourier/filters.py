"""Masks, shells, low-pass filters, Fourier cropping and normalisation."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.fourier.wedge import frequency_grid


def soft_sphere(
    box_size: int, radius_voxels: float, edge_voxels: float, device: torch.device | None = None, dims: int = 3
) -> Float[Tensor, "*space"]:
    """1 within a radius of the box centre (index ``N // 2``), a raised-cosine edge, 0 beyond it; in 2D a disc.

    Parameters
    ----------
    box_size
        Voxels.
    radius_voxels
        Within which the mask is 1.
    edge_voxels
        Width of the cosine edge outside it.
    device
        Where the mask lies.
    dims
        2 for a disc.
    """
    axis = torch.arange(box_size, dtype=torch.float32, device=device) - box_size // 2
    squares = [coordinate**2 for coordinate in torch.meshgrid(*[axis] * dims, indexing="ij")]
    beyond = (sum(squares[1:], squares[0]).sqrt() - radius_voxels) / edge_voxels
    return 0.5 + 0.5 * torch.cos(math.pi * beyond.clamp(0, 1))


def view_mask(box_size: int, device: torch.device | None = None, dims: int = 3) -> Float[Tensor, "*space"]:
    """The soft sphere or disc that every view is seen through: it fills the box and ends before its faces."""
    edge = max(2.0, 0.1 * box_size)
    return soft_sphere(box_size, box_size / 2 - 1 - edge, edge, device, dims)


def shell_radius(box_size: int, device: torch.device | None = None, dims: int = 3) -> Float[Tensor, "*half_spectrum"]:
    """Distance from DC of each half-Fourier voxel, in shells (cycles per box)."""
    return frequency_grid(box_size, device, dims).norm(dim=-1)


def shell_index(box_size: int, device: torch.device | None = None) -> Int[Tensor, "d h hw"]:
    """Shell number of each half-Fourier voxel: the nearest integer radius."""
    return shell_radius(box_size, device).round().long()


def hermitian_count(box_size: int, device: torch.device | None = None) -> Float[Tensor, " hw"]:
    """How often each x column of the half-Fourier grid stands in the full one: 1 at DC and Nyquist, else 2."""
    count = torch.full((box_size // 2 + 1,), 2.0, device=device)
    count[0] = count[-1] = 1.0
    return count


def low_pass(
    volumes: Float[Tensor, "*image"],
    radius_shells: float | Float[Tensor, "*batch"],
    edge_shells: float = 2.0,
    dims: int = 3,
) -> Float[Tensor, "*image"]:
    """Keep shells up to a radius, the same or one for each volume, with a raised-cosine edge of ``edge_shells`` beyond.

    ``volumes`` are ``(*batch, d, h, w)``, or with ``dims=2`` ``(*batch, h, w)``.

    Parameters
    ----------
    volumes
        ``(…, d, h, w)`` or images.
    radius_shells
        Shells that are kept.
    edge_shells
        Width of the cosine edge beyond them.
    dims
        2 for images.
    """
    box, axes = volumes.shape[-1], tuple(range(-dims, 0))
    kept = torch.as_tensor(radius_shells, device=volumes.device)[(..., *[None] * dims)]
    beyond = ((shell_radius(box, volumes.device, dims) - kept) / edge_shells).clamp(0, 1)
    keep = 0.5 + 0.5 * torch.cos(math.pi * beyond)
    spectrum = torch.fft.rfftn(volumes, dim=axes) * keep
    return torch.fft.irfftn(spectrum, s=volumes.shape[-dims:], dim=axes)


def fourier_crop(volumes: Float[Tensor, "*batch d h w"], box_size: int) -> Float[Tensor, "*batch D H W"]:
    """Resample to a coarser even box by dropping high frequencies; the centre and grey values stay.

    Along each axis a transform, the choice of frequencies and the transform back are one matrix: few rows are wanted,
    so products with it are quicker than transforms.
    """
    old, half = volumes.shape[-1], box_size // 2
    frequencies = torch.arange(-half, half, dtype=torch.float64)
    phases = torch.outer((torch.arange(box_size) - half) / box_size, frequencies)
    phases_of_old = torch.outer(frequencies, (torch.arange(old) - old // 2) / old)
    ones = torch.ones((), dtype=torch.float64)
    matrix = torch.polar(ones, 2 * math.pi * phases) @ torch.polar(ones, -2 * math.pi * phases_of_old) / old
    matrix = matrix.to(volumes.device, volumes.dtype.to_complex())
    columns = torch.view_as_real(matrix.T.contiguous()).flatten(1)
    along_x = torch.view_as_complex((volumes @ columns).unflatten(-1, (box_size, 2)))
    along_y = matrix @ along_x
    return (matrix @ along_y.flatten(-2)).real.contiguous().unflatten(-1, (box_size, box_size))


def fourier_pad(volumes: Float[Tensor, "*batch d h w"], box_size: int) -> Float[Tensor, "*batch D H W"]:
    """Resample to a finer even box, interpolating by the Fourier series; the centre and grey values stay."""
    old = volumes.shape[-1]
    if box_size == old:
        return volumes
    before, after = (box_size - old) // 2, (box_size - old) // 2
    spectrum = torch.fft.fftshift(torch.fft.fftn(_centre_first(volumes), dim=(-3, -2, -1)), dim=(-3, -2, -1))
    for axis in (-1, -2, -3):
        # The Nyquist frequency stands for both signs.
        first = 0.5 * spectrum.narrow(axis, 0, 1)
        spectrum = torch.cat([first, spectrum.narrow(axis, 1, old - 1), first], dim=axis)
        padding = [0, 0] * (-1 - axis) + [before, after - 1]
        spectrum = F.pad(spectrum, padding)
    fine = torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=(-3, -2, -1)), dim=(-3, -2, -1)).real
    return torch.fft.fftshift(fine, dim=(-3, -2, -1)) * (box_size / old) ** 3


def fourier_shift(
    volumes: Float[Tensor, "*batch d h w"], shifts_voxels: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch d h w"]:
    """Move each volume by a shift (zyx, voxels), periodically: a phase ramp in Fourier space.

    The Nyquist frequency stands for both signs, so the two ramps are averaged there. This keeps the result real.
    """
    box = volumes.shape[-1]
    frequencies = torch.fft.fftfreq(box, device=volumes.device), torch.fft.rfftfreq(box, device=volumes.device)
    spectrum = torch.fft.rfftn(volumes, dim=(-3, -2, -1))
    for axis in range(3):
        phase = -2 * math.pi * shifts_voxels[..., axis, None] * frequencies[axis == 2]
        ramp = torch.polar(torch.ones_like(phase), phase)
        ramp = torch.where(frequencies[axis == 2].abs() == 0.5, ramp.real + 0j, ramp)
        shape = [*volumes.shape[:-3], 1, 1, 1]
        shape[axis - 3] = ramp.shape[-1]
        spectrum = spectrum * ramp.reshape(shape)
    return torch.fft.irfftn(spectrum, s=volumes.shape[-3:], dim=(-3, -2, -1))


def crop_weights(weights: Float[Tensor, "*batch d h hw"], box_size: int) -> Float[Tensor, "*batch D H HW"]:
    """Half-Fourier weights of the coarser even box that :func:`fourier_crop` makes."""
    half = box_size // 2
    index = torch.arange(-half, half, device=weights.device).roll(half) % weights.shape[-2]
    return weights[..., index, :, :][..., index, :][..., : half + 1]


def regrid(volumes: Float[Tensor, "*batch d h w"], box_size: int, ratio: float) -> Float[Tensor, "*batch D H W"]:
    """Interpolate to another even box of voxels ``ratio`` times as large; the centre and grey values stay.

    By the Fourier series of the volume, of which what lies below the Nyquist frequency of the new voxels is kept. A
    place outside the old box is 0.

    Parameters
    ----------
    volumes
        ``(…, d, h, w)``.
    box_size, ratio
        Of the new voxels; ``ratio`` may be any positive number.
    """
    old = volumes.shape[-1]
    at = (torch.arange(box_size, device=volumes.device, dtype=torch.float64) - box_size // 2) * ratio
    place = torch.arange(old, device=volumes.device, dtype=torch.float64) - old // 2
    highest = math.ceil(old / (2 * max(1.0, ratio))) - 1
    waves = torch.arange(1, highest + 1, device=volumes.device, dtype=torch.float64)
    angles = 2 * math.pi / old * (at[:, None] - place)
    matrix = (1 + 2 * torch.cos(angles[..., None] * waves).sum(dim=-1)) / old
    matrix = (matrix * (at.abs() <= old / 2)[:, None]).to(volumes.dtype)
    return torch.einsum("...dhw,Dd,Hh,Ww->...DHW", volumes, matrix, matrix, matrix)


def regrid_weights(weights: Float[Tensor, "d h hw"], box_size: int, ratio: float) -> Float[Tensor, "D H HW"]:
    """Half-Fourier weights on the grid that :func:`regrid` makes, linearly interpolated; 0 beyond the old grid.

    Parameters
    ----------
    weights
        ``(d, h, w // 2 + 1)`` in FFT order.
    box_size, ratio
        As there.
    """
    old = weights.shape[0]
    half = box_size // 2
    signed = torch.arange(-half, half, device=weights.device).roll(half)
    step = old / (box_size * ratio)

    def lines(indices: Tensor, n: int) -> Tensor:
        """Which old lines a new one lies between, and how near."""
        at = indices.double() * step
        low = at.floor()
        matrix = torch.zeros(len(indices), n, dtype=torch.float64, device=weights.device)
        for line, share in ((low, 1 - (at - low)), (low + 1, at - low)):
            there = (share > 0) & (line.abs() <= old // 2)
            rows = torch.nonzero(there)[:, 0]
            matrix[rows, line[there].long() % n] += share[there]
        return matrix.to(weights.dtype)

    around, across = lines(signed, old), lines(torch.arange(half + 1, device=weights.device), old // 2 + 1)
    return torch.einsum("dhw,Dd,Hh,Ww->DHW", weights, around, around, across)


def pad_box(volumes: Float[Tensor, "*batch d h w"], box_size: int) -> Float[Tensor, "*batch D H W"]:
    """Zero-pad to a larger even box; index ``N // 2`` stays the centre."""
    before = box_size // 2 - volumes.shape[-1] // 2
    after = box_size - volumes.shape[-1] - before
    return F.pad(volumes, [before, after] * 3)


def standardise(volumes: Float[Tensor, "*image"], dims: int = 3) -> Float[Tensor, "*image"]:
    """Each volume to mean 0 and standard deviation 1 over its box, the last ``dims`` axes; a constant one becomes 0."""
    axes = tuple(range(-dims, 0))
    mean = volumes.mean(dim=axes, keepdim=True)
    std = volumes.std(dim=axes, keepdim=True, correction=0)
    return (volumes - mean) / std.clamp_min(1e-12)


def _centre_first(volumes: Tensor) -> Tensor:
    return torch.fft.ifftshift(volumes, dim=(-3, -2, -1))


def density_mask(
    volume: Float[Tensor, "d h w"], threshold: float = 0.15, grow_voxels: int = 2, edge_voxels: int = 3
) -> Float[Tensor, "d h w"]:
    """1 around the density of a map, falling softly to 0, within the sphere that every rotation keeps.

    The map is low-passed to a quarter of Nyquist; what exceeds ``threshold`` of its maximum is grown by
    ``grow_voxels``. A mask of less than 2 % of the box is too tight to compute an FSC in: then, and where there
    is no density, the whole sphere is returned.

    Parameters
    ----------
    volume
        ``(d, h, w)`` map.
    threshold
        Level of the density, over its maximum.
    grow_voxels
        By which the mask is grown.
    edge_voxels
        Width of the soft edge.
    """
    sphere = view_mask(volume.shape[-1], volume.device)
    smooth = low_pass(volume * sphere, volume.shape[-1] / 8, 2.0)
    dense = (smooth > threshold * smooth.max()).float()[None, None]
    grown = F.max_pool3d(dense, 2 * grow_voxels + 1, stride=1, padding=grow_voxels)
    for _ in range(2):
        grown = F.avg_pool3d(grown, edge_voxels, stride=1, padding=edge_voxels // 2)
    mask = grown[0, 0] * sphere
    return sphere if float(mask.mean()) < 0.02 else mask
