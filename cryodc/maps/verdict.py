"""Evidence that a class is a protein: the shape of its average, and the brightness of its particles."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.fourier import agreeing_shells, low_pass
from cryodc.maps.half_maps import HalfMaps

Kind = Literal["protein", "no-common-structure", "membrane-like", "bead-like", "off-centre"]
"""Verdicts, as the STAR column ``cdcVerdict`` has them."""

_SPHERE = 0.45
_LEVEL = 0.2
_EDGE = 0.85
_ROUND, _BRIGHT = 0.8, 4.0
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
    roundness
        Share of the variance that the radial mean explains: 1 for a map that no rotation changes.
    """

    off_centre: float
    thinness: float
    at_edge: float
    roundness: float


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
    """

    kind: Kind
    reason: str
    shape: MapShape
    brightness: float


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
    values, places, rings = smooth[inside], grid[:, inside].T, distance[inside].round().astype(int)
    radial = np.bincount(rings, values) / np.maximum(np.bincount(rings), 1)
    variance = max(float(values.var()), 1e-30)
    roundness = 1 - float(np.square(values - radial[rings]).mean()) / variance
    above = values - np.median(values)
    mass = np.clip(above - _LEVEL * above.max(), 0, None) + 1e-30
    mass /= mass.sum()
    centre = mass @ places
    extents = np.sqrt(np.linalg.eigvalsh((places - centre).T * mass @ (places - centre)).clip(1e-12))
    at_edge = float(mass[distance[inside] > _EDGE * radius].sum())
    return MapShape(float(np.linalg.norm(centre)) / radius, float(extents[0] / extents[1]), at_edge, roundness)


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


def judge_class(
    maps: HalfMaps,
    aligned: bool,
    note: str,
    peaks: Float[NDArray[np.float64], " n"],
    others: Float[NDArray[np.float64], " m"],
) -> Verdict:
    """Say whether a class may be a protein, or what it looks like instead.

    The kinds are tried in this order: halves that do not agree; a round map of particles far brighter than others; a
    sheet that reaches out of the box; density off the centre.

    Parameters
    ----------
    maps
        Of the class.
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
    kind: Kind = "protein"
    reason = "halves agree on a compact map about the centre of the box"
    if not aligned:
        kind, reason = "no-common-structure", note
    elif agreeing < _FEWEST_SHELLS:
        kind, reason = "no-common-structure", f"half maps agree to shell {agreeing} only"
    elif shape.roundness >= _ROUND and brightness >= _BRIGHT:
        kind = "bead-like"
        reason = f"round ({shape.roundness:.2f} of the variance) and {brightness:.1f} times as bright as particles are"
    elif shape.thinness <= _THIN and shape.at_edge >= _AT_EDGE:
        kind = "membrane-like"
        reason = (
            f"a sheet ({shape.thinness:.2f} as thick as wide) with {shape.at_edge:.0%} of it at the edge of the box"
        )
    elif shape.off_centre >= _OFF_CENTRE:
        kind = "off-centre"
        reason = f"the centre of mass lies {shape.off_centre * _SPHERE:.0%} of the box from its centre"
    return Verdict(kind, reason, shape, brightness)
