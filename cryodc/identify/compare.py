"""One class average against one structure: every rotation and shift, both hands, where the class measured."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import register_map
from cryodc.fourier import (
    agreeing_shells,
    apply_weight,
    fourier_crop,
    fourier_shell_correlation,
    resolution_angstrom,
    shell_index,
)
from cryodc.simulation import MapSpecimen
from cryodc.volumes import Volume

FEWEST_SHELLS = 3
"""With fewer shells to compare, everything round looks like everything round."""
_SMALLEST_BOX = 24
_MARGIN_SHELLS = 3


@dataclass(frozen=True)
class ClassMap:
    """A class average as it is compared.

    Parameters
    ----------
    average
        ``(n, n, n)`` within its mask, in a box that just holds its resolution.
    filtered
        ``(n, n, n // 2 + 1)``: what of a structure's spectrum this average would show, 0 to 1.
    expected
        ``(shells,)``: the FSC of the average with the truth, from that of its halves: ``√(2 FSC / (1 + FSC))``.
    last
        Last shell compared: that of the resolution.
    spacing_angstrom
        Of the voxels.
    """

    average: Float[Tensor, "d h w"]
    filtered: Float[Tensor, "d h hw"]
    expected: Float[NDArray[np.float64], " shells"]
    last: int
    spacing_angstrom: float

    @property
    def box_size(self) -> int:
        """Of the average."""
        return self.average.shape[-1]


@dataclass(frozen=True)
class Match:
    """How far a class is a structure.

    Parameters
    ----------
    agreement
        FSC of the average with the structure over that expected of the truth, each summed to the class's resolution:
        1 where it agrees as far as the half maps let anything agree.
    resolution_half, resolution_seventh
        Å where that FSC falls below 0.5 and 0.143.
    mirrored
        Whether the mirror image of the structure agrees better.
    hand_margin
        Agreement of the better hand less that of the other.
    registered
        ``(n, n, n)``: the structure where the class is.
    """

    agreement: float
    resolution_half: float
    resolution_seventh: float
    mirrored: bool
    hand_margin: float
    registered: Float[Tensor, "d h w"]

    @property
    def resolutions(self) -> tuple[float, float]:
        """Where the FSC falls below 0.5 and 0.143, in Å."""
        return self.resolution_half, self.resolution_seventh

    @property
    def hand(self) -> str:
        """``as deposited`` or ``mirrored``."""
        return "mirrored" if self.mirrored else "as deposited"


def comparison_box(box_size: int, last_shell: int) -> int:
    """The smallest even box whose maps hold a shell, at most the box of the averages."""
    return min(box_size, max(_SMALLEST_BOX, 2 * (last_shell + _MARGIN_SHELLS)))


def class_map(
    average: Float[Tensor, "d h w"],
    mask: Float[Tensor, "d h w"],
    coverage: Float[Tensor, "d h w"],
    fsc: Float[NDArray[np.float64], " shells"],
    spacing_angstrom: float,
    box_size: int,
) -> ClassMap:
    """Crop an average to a box for comparison, and say what of a structure it would show.

    An average is Wiener-filtered: with ``c`` the coverage and FSC that of the halves, of a spectrum it shows
    ``c / (c + c̄ (1 − FSC) / (2 FSC))``, ``c̄`` the mean over the shell.

    Parameters
    ----------
    average, mask, coverage
        As ``averages/`` has them; the coverage has DC at ``N // 2``.
    fsc
        Between the half maps, corrected.
    spacing_angstrom
        Of the average.
    box_size
        From :func:`comparison_box`.
    """
    old = average.shape[-1]
    known = torch.from_numpy(fsc).float().clamp(0.02, 0.99)
    index = shell_index(old).clamp_max(len(fsc) - 1)
    share = torch.fft.ifftshift(coverage)[..., : old // 2 + 1].clamp_min(0)
    count = torch.bincount(index.reshape(-1), minlength=len(fsc)).clamp_min(1)
    mean = torch.bincount(index.reshape(-1), share.reshape(-1), minlength=len(fsc)) / count
    damping = (mean * (1 - known) / (2 * known))[index]
    shown = share / (share + damping).clamp_min(1e-9)
    half = torch.arange(-(box_size // 2), box_size // 2).roll(box_size // 2)
    filtered = shown[half % old][:, half % old][..., : box_size // 2 + 1]
    truth = np.sqrt(2 * fsc.clip(0, 1) / (1 + fsc.clip(0, 1)))
    last = min(agreeing_shells(fsc), box_size // 2 - _MARGIN_SHELLS)
    spacing = spacing_angstrom * old / box_size
    return ClassMap(fourier_crop(average * mask, box_size), filtered, truth, last, spacing)


def match(shown: ClassMap, structure: MapSpecimen) -> Match:
    """Turn and shift a structure, in either hand, to where it agrees best with a class.

    Parameters
    ----------
    shown
        The class.
    structure
        Prepared at its box size and spacing.
    """
    found = []
    for is_mirrored in (False, True):
        fine = _mirror_image(structure.fine) if is_mirrored else structure.fine
        registered = _register(shown, replace(structure, fine=fine))
        curve = fourier_shell_correlation(shown.average, apply_weight(registered, shown.filtered))
        shells = slice(1, shown.last + 1)
        agreement = float(curve[shells].sum() / max(shown.expected[shells].sum(), 1e-9))
        found.append((agreement, is_mirrored, curve, registered))
    best, other = sorted(found, key=lambda each: -each[0])
    # Beyond the resolution of the class nothing is compared.
    curve = np.concatenate([best[2][: shown.last + 1], np.zeros(len(best[2]) - shown.last - 1)])
    half, seventh = (resolution_angstrom(curve, shown.spacing_angstrom, level) for level in (0.5, 0.143))
    return Match(best[0], half, seventh, best[1], best[0] - other[0], best[3])


def _register(shown: ClassMap, structure: MapSpecimen) -> Tensor:
    n, spacing = shown.box_size, shown.spacing_angstrom
    moving = Volume(structure.mean_map(n, spacing).numpy(), spacing)
    fixed = Volume(shown.average.numpy().astype(np.float32), spacing)
    matrix, shift, _ = register_map(moving, fixed, radius_shells=float(shown.last), weight=shown.filtered)
    # moved(x) = moving(R x + t) is the particle in the pose A = Rᵀ, o = Rᵀ t; drawn from the fine map, nothing is lost.
    rotation = torch.from_numpy(matrix.T.copy()).float()
    origin = torch.from_numpy(matrix.T @ shift).float() * spacing
    return structure.render(rotation[None], origin[None], torch.zeros(1), n, spacing)[0]


def _mirror_image(voxels: Tensor) -> Tensor:
    # Index N // 2 stays where it is.
    return torch.roll(voxels.flip(0), 1, 0)
