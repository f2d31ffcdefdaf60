"""Whether a point group is there: axes found in a map, and confirmed by one half map on the other."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cryodc.fourier import ball_spectra, fourier_ball, fourier_shell_correlation, shell_product, volume_from_ball
from cryodc.geometry.rotations import resample, symmetry_rotations
from cryodc.geometry.symmetry import find_axes, symmetrise

FOUND_AXES = 0.75
"""Correlation of a map with its mates from which the axes of a point group count as found."""
FEWEST_KEPT = 0.9
"""Share of what half maps have in common that must outlast the averaging of one of them over mates."""
RESOLVED = 0.5
"""FSC of the half maps from which a shell is compared."""
_NEIGHBOURS = 3


class Axes(NamedTuple):
    """Where the axes of a point group lie in two half maps, and the evidence for them.

    Parameters
    ----------
    rotation, shift
        ``turned(x) = volume(R x + t)`` has its axes where the group has them.
    correlation
        Of the turned map with its mates.
    kept
        As :func:`agreement_kept` gives it.
    """

    rotation: Float[Tensor, "3 3"]
    shift: Float[Tensor, " 3"]
    correlation: float
    kept: float

    @property
    def found(self) -> bool:
        """Whether the map has the group, as far as the halves can tell."""
        return self.correlation >= FOUND_AXES and self.kept >= FEWEST_KEPT

    @property
    def evidence(self) -> str:
        """Both figures in words."""
        return f"correlation {self.correlation:.2f}, {self.kept:.2f} of the halves' agreement kept"


def find_confirmed_axes(
    average: Float[Tensor, "d h w"],
    halves: Float[Tensor, "2 d h w"],
    mask: Float[Tensor, "d h w"],
    symmetry: str,
    radius_shells: float,
) -> Axes:
    """Find the axes of a point group in an average, and confirm them with the half maps.

    Parameters
    ----------
    average, halves
        In one frame; the average within the mask.
    mask
        What the halves are compared within.
    symmetry
        As :func:`cryodc.geometry.rotations.symmetry_rotations` takes it.
    radius_shells
        Finest shell in which axes are looked for.
    """
    turn, move, correlation = find_axes(average, symmetry, radius_shells)
    turn, move = turn.to(halves.device), move.to(halves.device)
    turned = resample(halves, turn.expand(2, 3, 3), move.expand(2, 3))
    around = resample(mask[None], turn[None], move[None])[0].clamp(0, 1)
    return Axes(turn, move, correlation, agreement_kept(turned, around, symmetry))


def agreement_kept(halves: Float[Tensor, "2 d h w"], mask: Float[Tensor, "d h w"], symmetry: str) -> float:
    """How much of what two half maps have in common is left when one of them is averaged over mates.

    ``Re Σ S(A) B* / Re Σ A B*`` in each shell, both ways, with ``S`` the average over the group. Noise of one half is
    not in the other, so this is the share of the signal's power that has the symmetry: 1 where the map has it, less
    where only its outline does. An FSC would not do: averaging removes noise, which raises it for a false axis too.

    Parameters
    ----------
    halves
        Their axes where the group has them.
    mask
        What they are compared within.
    symmetry
        As :func:`cryodc.geometry.rotations.symmetry_rotations` takes it.

    Returns
    -------
    The least mean over three neighbouring shells, of those before the FSC first falls below 0.5; 0 where there are
    fewer than three.
    """
    box_size = halves.shape[-1]
    fsc = fourier_shell_correlation(halves[0] * mask, halves[1] * mask)
    below = np.flatnonzero(fsc[1:] < RESOLVED)
    # The corner of the box is lost where maps are turned.
    n_shells = min(int(below[0]) if len(below) else box_size // 2, int(0.8 * (box_size // 2)))
    if n_shells < _NEIGHBOURS:
        return 0.0
    averaged = torch.stack([_averaged(half, symmetry) for half in halves])
    common = shell_product(halves[0] * mask, halves[1] * mask)
    left = sum(shell_product(averaged[k] * mask, halves[1 - k] * mask) for k in (0, 1)) / 2
    kept = (left / common)[1 : 1 + n_shells]
    return float(np.convolve(kept, np.full(_NEIGHBOURS, 1 / _NEIGHBOURS), "valid").min())


def _averaged(volume: Float[Tensor, "d h w"], symmetry: str) -> Float[Tensor, "d h w"]:
    """The average of a map over its mates."""
    box_size = volume.shape[-1]
    ball = fourier_ball(box_size, box_size / 2 - 1, volume.device)
    values = ball_spectra(volume[None], ball)[0]
    total, _ = symmetrise(values, torch.ones(len(ball), device=volume.device), ball, symmetry)
    return volume_from_ball(total / len(symmetry_rotations(symmetry)), ball)
