"""Evidence that a class is a protein: the shape of its average, and the brightness of its particles."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import (
    Particles,
    agreeing_shells,
    fourier_ball,
    low_pass,
    phase_ramps,
    shift_lattice,
    soft_sphere,
    stack_spectra,
)
from cryodc.maps.half_maps import HalfMaps

Kind = Literal["protein", "no-common-structure", "membrane-like", "bead-like", "off-centre"]
"""Verdicts, as the STAR column ``cdcVerdict`` has them."""

_SPHERE = 0.45
_LEVEL = 0.2
_EDGE = 0.85
_ROUND, _BRIGHT = 0.8, 4.0
_MOST_JUDGED = 64
"""Particles of a class that are looked at for roundness."""
_OFF_CENTRE = 0.3
_THIN, _AT_EDGE = 0.5, 0.08
_FEWEST_SHELLS = 3


@dataclass(frozen=True)
class MapShape:
    """Shape of the density of a map, within a sphere of 0.45 of the box; lengths over the radius of this sphere.

    Parameters
    ----------
    off_centre
        Distance of the centre of mass from the centre of the box.
    thinness
        Extent along the shortest principal axis over that along the next: 1 for a ball, 0 for a sheet.
    at_edge
        Share of the density in the outer 15 % of the sphere's radius: what reaches out of the box.
    """

    off_centre: float
    thinness: float
    at_edge: float


@dataclass(frozen=True)
class Verdict:
    """What a class is taken for, and the figure that says so.

    Parameters
    ----------
    kind
        ``protein`` where nothing speaks against one.
    reason
        A sentence with the figure.
    shape
        Of the average.
    brightness
        :func:`peak_of` the class's particles, the median, over the median of all particles.
    roundness
        :func:`roundness_of` the class's particles, the median; None unless they are bright enough for it to count.
    """

    kind: Kind
    reason: str
    shape: MapShape
    brightness: float
    roundness: float | None


def map_shape(volume: Float[Tensor, "d h w"], resolution_shells: float) -> MapShape:
    """Measure the shape of a map's density.

    Density is what exceeds the median of the sphere by more than a fifth of the highest voxel's excess.

    Parameters
    ----------
    volume
        ``(d, h, w)`` map, protein positive.
    resolution_shells
        Fourier shells that are looked at.
    """
    box = volume.shape[-1]
    smooth = low_pass(volume, resolution_shells, 2.0).double().cpu().numpy()
    grid = np.indices(smooth.shape) - box // 2
    distance, radius = np.sqrt((grid**2).sum(axis=0)), _SPHERE * box
    inside = distance <= radius
    values, places = smooth[inside], grid[:, inside].T
    above = values - np.median(values)
    mass = np.clip(above - _LEVEL * above.max(), 0, None) + 1e-30
    mass /= mass.sum()
    centre = mass @ places
    extents = np.sqrt(np.linalg.eigvalsh((places - centre).T * mass @ (places - centre)).clip(1e-12))
    at_edge = float(mass[distance[inside] > _EDGE * radius].sum())
    return MapShape(float(np.linalg.norm(centre)) / radius, float(extents[0] / extents[1]), at_edge)


def peak_of(volumes: Float[Tensor, "n d h w"]) -> Float[Tensor, " n"]:
    """The highest voxel of each particle below half of Nyquist, over the spread of what lies beyond: noise.

    Parameters
    ----------
    volumes
        ``(n, d, h, w)`` particles, protein positive.
    """
    smooth = low_pass(volumes, volumes.shape[-1] / 4, 2.0)
    noise = (volumes - smooth).flatten(1).std(dim=1).clamp_min(1e-12)
    return (smooth.flatten(1).amax(dim=1) - smooth.flatten(1).mean(dim=1)) / noise


def roundness_of(stack: Particles) -> Float[Tensor, " n"]:
    """The share of each particle's power, where it was measured, that no rotation would change.

    A round particle has one value in each Fourier shell, once its shift is undone. So the share is
    ``Σ |Σ_s H F|² / Σ_s H²  /  Σ |F|²``, with the sums ``Σ_s`` over each shell up to half of Nyquist, for the best
    shift of up to a sixth of the box. It needs no pose, and a missing wedge does not lower it.

    Parameters
    ----------
    stack
        The particles.
    """
    box, device = stack.box_size, stack.device
    ball, sphere = fourier_ball(box, box / 4, device), soft_sphere(box, 0.375 * box, 3.0, device)
    ramps = phase_ramps(ball, shift_lattice(box / 6, box / 32, device)).conj()
    n_shells, found = int(ball.shells.max()) + 1, []
    for _, part in stack.masked(sphere).batches(4):
        particles = stack_spectra(part, ball)
        weights = particles.own_weights
        weighted = (particles.spectra * weights)[:, None] * ramps
        sums = weighted.new_zeros(*weighted.shape[:2], n_shells).index_add(2, ball.shells, weighted)
        squares = weights.new_zeros(len(part), n_shells).index_add(1, ball.shells, weights.square())
        alike = (sums.abs().square() / squares.clamp_min(1e-6)[:, None])[:, :, 1:].sum(dim=2).amax(dim=1)
        measured = particles.measured[particles.weight_index] & (ball.shells > 0)
        found.append(alike / (particles.spectra.abs().square() * measured).sum(dim=1).clamp_min(1e-20))
    return torch.cat(found)


def judge_class(
    maps: HalfMaps,
    stack: Particles,
    aligned: bool,
    note: str,
    peaks: Float[NDArray[np.float64], " n"],
    others: Float[NDArray[np.float64], " m"],
) -> Verdict:
    """Say whether a class may be a protein, or what it looks like instead.

    The kinds are tried in this order: halves that do not agree; round particles far brighter than others; a sheet
    that reaches out of the box; density off the centre.

    Parameters
    ----------
    maps, stack
        Averages and particles of the class.
    aligned, note
        Whether its poses are to be trusted, and why.
    peaks
        ``(n,)`` :func:`peak_of` its particles.
    others
        ``(m,)`` of all particles of the run.
    """
    agreeing, box = agreeing_shells(maps.fsc), maps.average.shape[-1]
    shape = map_shape(maps.average, float(max(_FEWEST_SHELLS, min(agreeing, box // 4))))
    brightness = float(np.median(peaks) / np.median(others))
    roundness = None
    if brightness >= _BRIGHT:
        roundness = float(roundness_of(stack.select(slice(_MOST_JUDGED))).median())
    kind: Kind = "protein"
    reason = "halves agree on a compact map about the centre of the box"
    if not aligned:
        kind, reason = "no-common-structure", note
    elif agreeing < _FEWEST_SHELLS:
        kind, reason = "no-common-structure", f"half maps agree to shell {agreeing} only"
    elif roundness is not None and roundness >= _ROUND:
        kind = "bead-like"
        reason = f"round ({roundness:.2f} of the power) and {brightness:.1f} times as bright as particles are"
    elif shape.thinness <= _THIN and shape.at_edge >= _AT_EDGE:
        kind = "membrane-like"
        reason = (
            f"a sheet ({shape.thinness:.2f} as thick as wide) with {shape.at_edge:.0%} of it at the edge of the box"
        )
    elif shape.off_centre >= _OFF_CENTRE:
        kind = "off-centre"
        reason = f"the centre of mass lies {shape.off_centre * _SPHERE:.0%} of the box from its centre"
    return Verdict(kind, reason, shape, brightness, roundness)
