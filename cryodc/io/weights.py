"""Weight volumes (rlnCtfImage): what each particle's microscope passed on.

Three layouts are told apart by shape, for a box of ``N`` voxels; arrays are ``(z, y, x)``:

1. ``(N, N, N)``: mean signed CTF, DC at ``N // 2`` (RELION 1.4 to 3.1);
2. ``(N, N, N/2 + 1)``: half-Fourier in FFT order, about ``|CTF| · dose`` (Warp, WarpTools);
3. ``(2N, N, N/2 + 1)``: ``W = ΣCTF² · dose²``, then the number of tilts that met each voxel (RELION 4 and 5).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io.mrc import read_array
from cryodc.io.mrc_header import MrcHeader
from cryodc.io.reference import ImageReference

MEASURED_MULTIPLICITY = 0.01
"""Tilts that must have met a Fourier voxel of layout 3 for it to count as measured."""


@dataclass(frozen=True)
class WeightVolume:
    """One weight volume, in the one order this package uses.

    Parameters
    ----------
    transfer
        ``(d, h, w // 2 + 1)`` half-Fourier, FFT order, DC at ``[0, 0, 0]``. With ``whitening`` it is ``W``,
        scaled to a maximum of 1 and 0 where no tilt measured.
    whitening
        True for layout 3, whose particles are ``ΣCTF · image``: divided by ``√W`` their noise is white, and
        ``√W`` is what passed on the protein.
    layout
        In words.
    """

    transfer: Float[NDArray[np.float32], "d h hw"]
    whitening: bool
    layout: str


def weight_layout(shape_zyx: tuple[int, int, int], box_size: int) -> int | None:
    """Tell the layout, 1, 2 or 3, from the shape of a weight volume; None where it is none of them.

    Examples
    --------
    >>> [weight_layout(shape, 32) for shape in ((32, 32, 32), (32, 32, 17), (64, 32, 17), (32, 17, 32))]
    [1, 2, 3, None]
    """
    return _shapes(box_size).get(shape_zyx)


def check_weight_shape(header: MrcHeader, box_size: int) -> None:
    """Check a header against the three layouts.

    Raises
    ------
    InputError
        If the shape is none of the three.
    """
    _require_layout(header.path, header.shape_zyx, box_size)


def read_weight(reference: ImageReference | Path, box_size: int) -> WeightVolume:
    """Read a weight volume in any of the three layouts.

    Raises
    ------
    InputError
        If the shape is none of the three, a voxel is not finite, or nothing was measured.
    """
    path = reference if isinstance(reference, Path) else reference.path
    array = read_array(reference)
    layout = _require_layout(path, (array.shape[0], array.shape[1], array.shape[2]), box_size)
    if layout == 1:
        transfer = np.fft.ifftshift(array)[:, :, : box_size // 2 + 1]
    elif layout == 2:
        transfer = array
    else:
        measured = array[box_size:] > MEASURED_MULTIPLICITY
        transfer = np.where(measured, array[:box_size].clip(min=0), np.float32(0))
    largest = float(np.abs(transfer).max())
    if largest == 0:
        raise InputError(
            "the weight volume is zero everywhere: nothing was measured",
            file=path,
            remedy="reconstruct this weight again, or remove its particle from the STAR",
        )
    if layout == 3:
        transfer = transfer / np.float32(largest)
    return WeightVolume(np.ascontiguousarray(transfer, dtype=np.float32), layout == 3, LAYOUTS[layout])


LAYOUTS = {
    1: "full cube, mean CTF (RELION 1.4 to 3.1)",
    2: "half-Fourier, |CTF| · dose (Warp)",
    3: "half-Fourier, ΣCTF² and multiplicity (RELION 4 and 5)",
}


def _shapes(box_size: int) -> dict[tuple[int, int, int], int]:
    half = box_size // 2 + 1
    return {
        (box_size, box_size, box_size): 1,
        (box_size, box_size, half): 2,
        (2 * box_size, box_size, half): 3,
    }


def _require_layout(path: Path, shape_zyx: tuple[int, int, int], box_size: int) -> int:
    layout = weight_layout(shape_zyx, box_size)
    if layout is None:
        accepted = " or ".join(str(shape) for shape in _shapes(box_size))
        raise InputError(
            "the weight volume has a shape that no layout has",
            file=path,
            expected=f"{accepted} (z, y, x) for a box of {box_size}",
            found=str(shape_zyx),
            remedy="give the rlnCtfImage that was written with these particles",
        )
    return layout
