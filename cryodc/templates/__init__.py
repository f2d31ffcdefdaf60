"""Templates learned from the particles, and the codes that are made of them."""

from cryodc.templates.decoder import TemplateDecoder, codes_of_templates, conformation_axes
from cryodc.templates.groups import ROTATION_SCALE
from cryodc.templates.match import BOX, spectra_of
from cryodc.templates.run import add_template_code, load_template_decoder, with_templates_of
from cryodc.templates.shapes import shape_points

__all__ = [
    "BOX",
    "ROTATION_SCALE",
    "TemplateDecoder",
    "add_template_code",
    "codes_of_templates",
    "conformation_axes",
    "load_template_decoder",
    "shape_points",
    "spectra_of",
    "with_templates_of",
]
