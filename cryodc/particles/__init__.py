"""The particles of a STAR file: the frozen table, its readers and writers."""

from cryodc.particles.coordinates import read_positions
from cryodc.particles.images_2d import (
    check_stacks,
    holds_images,
    read_image,
    read_image_particles,
    read_images,
    read_metadata,
)
from cryodc.particles.inspection import Inspection, inspect_particles, raise_first
from cryodc.particles.names import name_label, repeated_names, unwritable_names
from cryodc.particles.read import read_particles, require_particles
from cryodc.particles.table import ParticleSet, Poses
from cryodc.particles.write import with_classes, with_half_sets, with_poses, with_subtomograms

__all__ = [
    "Inspection",
    "ParticleSet",
    "Poses",
    "check_stacks",
    "holds_images",
    "inspect_particles",
    "name_label",
    "raise_first",
    "read_image",
    "read_image_particles",
    "read_images",
    "read_metadata",
    "read_particles",
    "read_positions",
    "repeated_names",
    "require_particles",
    "unwritable_names",
    "with_classes",
    "with_half_sets",
    "with_poses",
    "with_subtomograms",
]
