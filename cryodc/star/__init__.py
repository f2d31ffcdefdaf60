"""STAR files as text: parsed, edited without touching the rest, compared."""

from cryodc.star.blocks import StarBlock
from cryodc.star.compare import compare_stars
from cryodc.star.difference import BlockComparison, Differences, StarComparison
from cryodc.star.document import StarDocument, read_star, write_star
from cryodc.star.image_names import keep_images_found
from cryodc.star.layout import (
    describe_layout,
    find_particle_block,
    holds_image_series,
    holds_tilt_stacks,
    image_block,
    particle_block,
)
from cryodc.star.lexer import without_collection
from cryodc.star.optics import (
    OpticsGroup,
    common_pixel_size,
    common_value,
    group_number,
    not_positive,
    read_optics,
    spacing_of_old_layout,
)
from cryodc.star.tables import number_texts, star_table
from cryodc.star.values import (
    class_numbers,
    half_sets_of,
    numbers_of,
    read_numbers,
    read_whole_numbers,
    vector_of,
    whole_number_of,
)

__all__ = [
    "BlockComparison",
    "Differences",
    "OpticsGroup",
    "StarBlock",
    "StarComparison",
    "StarDocument",
    "class_numbers",
    "common_pixel_size",
    "common_value",
    "compare_stars",
    "describe_layout",
    "find_particle_block",
    "group_number",
    "half_sets_of",
    "holds_image_series",
    "holds_tilt_stacks",
    "image_block",
    "keep_images_found",
    "not_positive",
    "number_texts",
    "numbers_of",
    "particle_block",
    "read_numbers",
    "read_optics",
    "read_star",
    "read_whole_numbers",
    "spacing_of_old_layout",
    "star_table",
    "vector_of",
    "whole_number_of",
    "without_collection",
    "write_star",
]
