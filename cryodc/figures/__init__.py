"""Plots and pictures, with one set of class colours."""

from cryodc.figures.columns import ColourColumn, colour_columns, name_column, star_of_now
from cryodc.figures.grids import PictureKind, gallery_png, grid_png, maps_png, slices_png, traversal_png
from cryodc.figures.particles import ParticlePreviews, ShownParticle, load_previews, missing_notice
from cryodc.figures.plots import class_name, fsc_figure, loss_figure, number_figure, principal_plane
from cryodc.figures.volumes import class_colour, orthoslices_png, read_particle, surface_png, surface_threshold

__all__ = [
    "ColourColumn",
    "ParticlePreviews",
    "PictureKind",
    "ShownParticle",
    "class_colour",
    "class_name",
    "colour_columns",
    "fsc_figure",
    "gallery_png",
    "grid_png",
    "load_previews",
    "loss_figure",
    "maps_png",
    "missing_notice",
    "name_column",
    "number_figure",
    "orthoslices_png",
    "principal_plane",
    "read_particle",
    "slices_png",
    "star_of_now",
    "surface_png",
    "surface_threshold",
    "traversal_png",
]
