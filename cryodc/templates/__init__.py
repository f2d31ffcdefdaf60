"""Templates learned from the particles, and the codes that are made of them."""

from cryodc.templates.decoder import codes_of_templates, conformation_axes
from cryodc.templates.match import BOX, spectra_of
from cryodc.templates.run import add_template_code, forget_steps, load_template_decoder, with_templates_of
from cryodc.templates.shapes import shape_points

__all__ = [
    "BOX",
    "add_template_code",
    "codes_of_templates",
    "conformation_axes",
    "forget_steps",
    "load_template_decoder",
    "shape_points",
    "spectra_of",
    "with_templates_of",
]
