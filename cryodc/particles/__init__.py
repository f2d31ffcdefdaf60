"""The particles of a STAR file: the frozen table, its readers and writers."""

from cryodc.particles.coordinates import (
    CENTRED,
    COORDINATE_PIXEL,
    CORNER,
    IMAGE_PIXEL,
    TILT_SERIES_PIXEL,
    CoordinateFrame,
    by_optics_group,
    coordinate_frame,
    has_coordinates,
    optics_rows,
    positive_number,
    positive_numbers,
)
from cryodc.particles.images_2d import (
    check_sections,
    check_stacks,
    holds_images,
    read_image,
    read_image_particles,
    read_images,
    read_metadata,
    read_sections,
)
from cryodc.particles.inspection import Inspection, inspect_particles, raise_first
from cryodc.particles.names import name_label, repeated_names, unwritable_names
from cryodc.particles.positions import BOX_ANGLES, ORIGINS, Positions, read_positions, with_coordinates_moved
from cryodc.particles.read import read_particles, require_particles
from cryodc.particles.table import Grid, ParticleSet, Poses
from cryodc.particles.write import (
    with_classes,
    with_half_sets,
    with_origins,
    with_poses,
    with_subtomograms,
    with_verdicts,
)

__all__ = [
    "BOX_ANGLES",
    "CENTRED",
    "COORDINATE_PIXEL",
    "CORNER",
    "IMAGE_PIXEL",
    "ORIGINS",
    "TILT_SERIES_PIXEL",
    "CoordinateFrame",
    "Grid",
    "Inspection",
    "ParticleSet",
    "Poses",
    "Positions",
    "by_optics_group",
    "check_sections",
    "check_stacks",
    "coordinate_frame",
    "has_coordinates",
    "holds_images",
    "inspect_particles",
    "name_label",
    "optics_rows",
    "positive_number",
    "positive_numbers",
    "raise_first",
    "read_image",
    "read_image_particles",
    "read_images",
    "read_metadata",
    "read_particles",
    "read_positions",
    "read_sections",
    "repeated_names",
    "require_particles",
    "unwritable_names",
    "with_classes",
    "with_coordinates_moved",
    "with_half_sets",
    "with_origins",
    "with_poses",
    "with_subtomograms",
    "with_verdicts",
]
