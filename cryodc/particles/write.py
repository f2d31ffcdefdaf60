"""Put classes, half sets, poses and subtomograms into the text of a STAR file; no other cell changes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.geometry import euler_from_matrices
from cryodc.io import number_of
from cryodc.particles.table import ParticleSet, Poses
from cryodc.star import (
    StarDocument,
    find_particle_block,
    number_texts,
    particle_block,
    read_numbers,
)


def with_classes(document: StarDocument, class_numbers: Sequence[int] | NDArray[np.int64]) -> StarDocument:
    """Set rlnClassNumber, one per row: 1 for the first class, 0 for none.

    Raises
    ------
    ValueError
        If a number is negative, or there is not one per row.
    """
    numbers = [int(number) for number in class_numbers]
    if numbers and min(numbers) < 0:
        raise ValueError(f"expected class numbers from 0 up, found {min(numbers)}")
    return document.with_column(
        find_particle_block(document).name, "rlnClassNumber", [str(number) for number in numbers]
    )


def with_half_sets(document: StarDocument, half_sets: Sequence[int] | NDArray[np.int64]) -> StarDocument:
    """Set rlnRandomSubset, 1 or 2, one per row.

    Raises
    ------
    ValueError
        If a number is neither, or there is not one per row.
    """
    values = [str(int(number)) for number in half_sets]
    if not set(values) <= {"1", "2"}:
        raise ValueError(f"expected half sets 1 and 2, found {sorted(set(values))}")
    return document.with_column(particle_block(document).name, "rlnRandomSubset", values)


def with_poses(document: StarDocument, poses: Poses, particles: ParticleSet) -> StarDocument:
    """Set rlnAngleRot, Tilt, Psi and the origins of every row.

    Origins are rlnOriginX/Y/ZAngst; in a STAR without optics groups (RELION 3.0, Warp), whose readers know no
    others, they are rlnOriginX/Y/Z in pixels of ``particles``.

    Raises
    ------
    ValueError
        If there is not one pose per row.
    """
    angles = euler_from_matrices(poses.rotations) if len(poses) else np.zeros((0, 3))
    columns = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T, strict=True))
    block = particle_block(document)
    document = document.with_columns(block.name, {label: number_texts(values) for label, values in columns.items()})
    return with_origins(document, poses.origins_angstrom, particles)


def with_origins(
    document: StarDocument, origins_angstrom: Float[NDArray[np.float64], "n 3"], particles: ParticleSet
) -> StarDocument:
    """Set the origins of every row, zyx, in the labels and unit of :func:`with_poses`.

    Raises
    ------
    ValueError
        If there is not one origin per row.
    """
    block = particle_block(document)
    in_angstrom = document.find("optics") is not None or "rlnOriginXAngst" in block
    unit, scale = ("Angst", 1.0) if in_angstrom else ("", 1 / particles.spacing_angstrom)
    columns = {
        f"rlnOrigin{name}{unit}": origins_angstrom[:, axis] * scale for axis, name in ((2, "X"), (1, "Y"), (0, "Z"))
    }
    return document.with_columns(block.name, {label: number_texts(values) for label, values in columns.items()})


def with_verdicts(
    document: StarDocument, labels: Sequence[int] | NDArray[np.int64], verdicts: Sequence[str]
) -> StarDocument:
    """Set cdcVerdict: what the class of each row is taken for; ``unassigned`` where the label is negative.

    Parameters
    ----------
    document
        The STAR.
    labels
        0-based class, one per row.
    verdicts
        Of each class.
    """
    values = [verdicts[int(label)] if label >= 0 else "unassigned" for label in labels]
    return document.with_column(particle_block(document).name, "cdcVerdict", values)


def with_subtomograms(
    document: StarDocument,
    images: Sequence[str],
    weights: Sequence[str],
    box_size: int,
    spacing_angstrom: float,
    binning: int = 1,
) -> StarDocument:
    """Replace stacks of 2D tilt images by the 3D subtomograms made of them; poses and all else stay.

    Sets rlnImageName, rlnCtfImage, _rlnTomoSubTomosAre2DStacks and, in the optics groups, dimensionality, box size,
    pixel size, binning and rlnCtfDataAreCtfPremultiplied. A number that does not change keeps its text.

    Parameters
    ----------
    document
        The STAR.
    images, weights
        One per row.
    box_size, spacing_angstrom
        Of the subtomograms.
    binning
        Pixels of the stacks per voxel.

    Raises
    ------
    ValueError
        If there is not one image and one weight per row.
    """
    optics = document.block("optics")
    n_groups = optics.n_rows
    columns = {
        "rlnImageDimensionality": ["3"] * n_groups,
        "rlnImageSize": [str(box_size)] * n_groups,
        "rlnImagePixelSize": [f"{spacing_angstrom:.6f}"] * n_groups,
        "rlnCtfDataAreCtfPremultiplied": ["1"] * n_groups,
    }
    if "rlnTomoSubtomogramBinning" in optics:
        old = optics.column("rlnTomoSubtomogramBinning")
        values = read_numbers(document, optics, "rlnTomoSubtomogramBinning", old)
        columns["rlnTomoSubtomogramBinning"] = [f"{value * binning:.6f}" for value in values.tolist()]
    kept = {
        label: [_same_or_new(old, new) for old, new in zip(optics.column(label), values, strict=True)]
        if label in optics
        else values
        for label, values in columns.items()
    }
    document = document.with_columns("optics", kept).with_column("general", "rlnTomoSubTomosAre2DStacks", ["0"])
    names = {"rlnImageName": list(images), "rlnCtfImage": list(weights)}
    return document.with_columns(find_particle_block(document).name, names)


def _same_or_new(old: str, new: str) -> str:
    return old if number_of(new) is not None and number_of(old) == number_of(new) else new
