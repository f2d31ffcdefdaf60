"""Rotations, transforms, point groups and the axes of a map."""

from cryodc.geometry.axes import FOUND_AXES, RESOLVED, find_confirmed_axes
from cryodc.geometry.rotations import (
    POINT_GROUPS,
    euler_from_matrices,
    geodesic_degrees,
    matrices_from_euler,
    random_rotations,
    resample,
    rotation_grid,
    rotations_from_vectors,
    symmetry_rotations,
)
from cryodc.geometry.symmetry import asymmetric_unit, find_axes, symmetrise
from cryodc.geometry.transforms import exponential, invert, n_rotation_parameters, rigid, rotations_from_parameters

__all__ = [
    "FOUND_AXES",
    "POINT_GROUPS",
    "RESOLVED",
    "asymmetric_unit",
    "euler_from_matrices",
    "exponential",
    "find_axes",
    "find_confirmed_axes",
    "geodesic_degrees",
    "invert",
    "matrices_from_euler",
    "n_rotation_parameters",
    "random_rotations",
    "resample",
    "rigid",
    "rotation_grid",
    "rotations_from_parameters",
    "rotations_from_vectors",
    "symmetrise",
    "symmetry_rotations",
]
