"""Half maps, masks, coverage, sharpening and what share of the particles a class holds."""

from cryodc.maps.coverage import view_directions
from cryodc.maps.fractions import ClassFractions, class_fractions, fractions_table
from cryodc.maps.half_maps import HalfMaps, average_particles, average_sums
from cryodc.maps.quality import quality_png
from cryodc.maps.sharpening import sharpen
from cryodc.maps.user_masks import mask_of, read_mask, read_masks
from cryodc.maps.verdict import Kind, MapShape, Verdict, judge_class, map_shape, peak_of

__all__ = [
    "ClassFractions",
    "HalfMaps",
    "Kind",
    "MapShape",
    "Verdict",
    "average_particles",
    "average_sums",
    "class_fractions",
    "fractions_table",
    "judge_class",
    "map_shape",
    "mask_of",
    "peak_of",
    "quality_png",
    "read_mask",
    "read_masks",
    "sharpen",
    "view_directions",
]
