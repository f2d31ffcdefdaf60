"""STAR files as text: parsed, edited without touching the rest, compared."""

from cryodc.star.blocks import StarBlock
from cryodc.star.compare import compare_stars
from cryodc.star.difference import BlockComparison, Differences, StarComparison
from cryodc.star.document import StarDocument, number_texts, read_star, star_table, write_star
from cryodc.star.layout import describe_layout, find_particle_block, holds_tilt_stacks, particle_block
from cryodc.star.lexer import without_collection
from cryodc.star.optics import (
    OpticsGroup,
    common_pixel_size,
    common_value,
    group_number,
    read_numbers,
    read_optics,
    spacing_of_old_layout,
)

__all__ = [
    "BlockComparison",
    "Differences",
    "OpticsGroup",
    "StarBlock",
    "StarComparison",
    "StarDocument",
    "common_pixel_size",
    "common_value",
    "compare_stars",
    "describe_layout",
    "find_particle_block",
    "group_number",
    "holds_tilt_stacks",
    "number_texts",
    "particle_block",
    "read_numbers",
    "read_optics",
    "read_star",
    "spacing_of_old_layout",
    "star_table",
    "without_collection",
    "write_star",
]
