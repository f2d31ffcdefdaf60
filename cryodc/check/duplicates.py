"""What positions say: particles picked twice, and pixel sizes that contradict one another."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryodc.errors import InputError
from cryodc.io import Problem
from cryodc.particles import (
    IMAGE_PIXEL,
    TILT_SERIES_PIXEL,
    ParticleSet,
    coordinate_frame,
    has_coordinates,
    optics_rows,
    positive_number,
    positive_numbers,
)
from cryodc.star import StarBlock, StarDocument

_FRACTION = 1e-3
_FARTHEST_ANGSTROM = 1e9


def nearest_pairs(
    positions_angstrom: Float[NDArray[np.float64], "n 3"], tomograms: Sequence[str], distance_angstrom: float
) -> tuple[Int[NDArray[np.int64], "p 2"], Float[NDArray[np.float64], " p"]]:
    """Particles whose nearest neighbour in the same tomogram is within a distance.

    Returns
    -------
    ``(p, 2)`` positions, the earlier one first, each pair once; ``(p,)`` their distance in Å.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for i, tomogram in enumerate(tomograms):
        rows[tomogram].append(i)
    found: dict[tuple[int, int], float] = {}
    for members in rows.values():
        if len(members) < 2:
            continue
        points = positions_angstrom[members]
        distances, neighbours = (np.asarray(table) for table in cKDTree(points).query(points, k=2))
        # A particle on top of others may find itself second.
        own = neighbours[:, 1] == np.arange(len(points))
        other = np.where(own, neighbours[:, 0], neighbours[:, 1])
        for i in np.flatnonzero(distances[:, 1] <= distance_angstrom).tolist():
            first, second = sorted((members[i], members[int(other[i])]))
            found[first, second] = float(distances[i, 1])
    pairs = sorted(found)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array([found[pair] for pair in pairs])


def check_duplicates(
    particles: ParticleSet, positions_angstrom: Float[NDArray[np.float64], "n 3"], distance_angstrom: float
) -> list[Problem]:
    """One warning for each pair, at its later row; none where every position is the same and so says nothing.

    A position that no tomogram reaches is a warning too, and has no neighbour.
    """
    far = ~(np.abs(positions_angstrom) < _FARTHEST_ANGSTROM).all(axis=1)
    if far.any():
        near = check_duplicates(particles.select(np.flatnonzero(~far)), positions_angstrom[~far], distance_angstrom)
        return [*(_too_far(particles, row, positions_angstrom[row]) for row in np.flatnonzero(far).tolist()), *near]
    if not len(positions_angstrom) or not np.ptp(positions_angstrom, axis=0).any():
        return []
    pairs, distances = nearest_pairs(positions_angstrom, particles.tomograms, distance_angstrom)
    warnings = []
    for (first, second), distance in zip(pairs.tolist(), distances.tolist(), strict=True):
        error = InputError(
            "two particles of a tomogram are nearer than --duplicate-distance",
            file=particles.source,
            row=int(particles.rows[second]),
            expected=f"more than {distance_angstrom:g} Å between them",
            found=f"{distance:.1f} Å between lines {particles.rows[first]} and {particles.rows[second]}",
            remedy="remove one of the two, or give a smaller --duplicate-distance",
        )
        warnings.append(Problem(int(particles.rows[second]), error, unreadable=False))
    return warnings


def _too_far(particles: ParticleSet, row: int, position: Float[NDArray[np.float64], "3"]) -> Problem:
    line = int(particles.rows[row])
    error = InputError(
        "a particle lies farther off than any tomogram reaches",
        file=particles.source,
        row=line,
        expected=f"less than {_FARTHEST_ANGSTROM:g} Å",
        found=", ".join(f"{at:g}" for at in position[::-1]) + " Å (x, y, z)",
        remedy="correct its coordinates or origins",
    )
    return Problem(line, error, unreadable=False)


def check_pixels(document: StarDocument, block: StarBlock) -> list[Problem]:
    """One warning for each pixel size that contradicts another: positions or images are then of the wrong size.

    Raises
    ------
    InputError
        If a size is not positive, or particles cannot be told to their optics groups.
    """
    optics = document.find("optics")
    errors = [] if optics is None or not optics.n_rows else _check_binning(document, block, optics)
    if has_coordinates(block) and "rlnPixelSize" in block:
        errors += _check_rows(document, block)
    return [Problem(error.row, error, unreadable=False) for error in errors]


def _check_binning(document: StarDocument, block: StarBlock, optics: StarBlock) -> list[InputError]:
    labels = (TILT_SERIES_PIXEL, "rlnTomoSubtomogramBinning", IMAGE_PIXEL)
    if not all(label in optics for label in labels):
        return []
    errors = []
    for row in np.unique(optics_rows(document, block, optics)).tolist():
        tilt, binning, image = (positive_number(document, optics, label, row) for label in labels)
        if abs(tilt * binning - image) <= _FRACTION * image:
            continue
        errors.append(
            InputError(
                "the pixel of the tilt series times the binning is not the pixel of the images",
                file=document.source,
                row=int(optics.line_numbers[row]),
                expected=f"{TILT_SERIES_PIXEL} × rlnTomoSubtomogramBinning = {IMAGE_PIXEL}",
                found=f"{tilt:g} × {binning:g} = {tilt * binning:g}, but {image:g} Å",
                remedy="correct whichever is wrong: the first gives positions their place, the last images their size",
            )
        )
    return errors


def _check_rows(document: StarDocument, block: StarBlock) -> list[InputError]:
    frame = coordinate_frame("RELION", document, block)
    stated = positive_numbers(document, block, "rlnPixelSize")
    taken = frame.units(block.n_rows, 1.0)[:, 0]
    different = np.flatnonzero(np.abs(taken - stated) > _FRACTION * stated)
    if frame.from_centre or not len(different):
        return []
    at = int(different[0])
    return [
        InputError(
            "rows and optics groups state different pixels for the coordinates",
            file=document.source,
            row=int(block.line_numbers[at]),
            expected=f"rlnPixelSize {taken[at]:g}: {frame.stated_by} says so, and is taken",
            found=f"rlnPixelSize {stated[at]:g}, in {len(different)} rows like this",
            remedy="remove the one that is wrong",
        )
    ]
