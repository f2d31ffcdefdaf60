"""Templates learned from the particles, and the codes that are made of them."""

from cryodc.templates.decoder import FoundPairs, codes_of_templates, conformation_axes, found_pairs
from cryodc.templates.match import BOX, spectra_of
from cryodc.templates.run import (
    add_template_code,
    forget_steps,
    load_template_decoder,
    templates_left_out,
    with_templates_of,
)
from cryodc.templates.shapes import shape_points

__all__ = [
    "BOX",
    "FoundPairs",
    "add_template_code",
    "codes_of_templates",
    "conformation_axes",
    "forget_steps",
    "found_pairs",
    "load_template_decoder",
    "shape_points",
    "spectra_of",
    "templates_left_out",
    "with_templates_of",
]
