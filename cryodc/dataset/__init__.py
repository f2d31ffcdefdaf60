"""Particles as tensors: read, standardised, packed, and seen in random views."""

from cryodc.dataset.cropped import CroppedDataset, at_box
from cryodc.dataset.dataset import Dataset, SubtomogramDataset, load_dataset
from cryodc.dataset.images import ImageDataset, image_dataset
from cryodc.dataset.pack_files import PackDtype, PackRecipe, find_problem, is_finished, read_recipe
from cryodc.dataset.pack_writer import write_pack
from cryodc.dataset.packed import PackedArray
from cryodc.dataset.packing import box_of_spacing, open_own_pack, open_pack, pack_particles
from cryodc.dataset.reading import InputOptions, ParticleReader, fit_volume, fit_weight, whiten
from cryodc.dataset.view_config import ViewConfig
from cryodc.dataset.views import (
    View,
    add_noise,
    mask_of_views,
    random_low_pass,
    random_view,
    recorded_view,
    rotate_weights,
    through_mask,
)

__all__ = [
    "CroppedDataset",
    "Dataset",
    "ImageDataset",
    "InputOptions",
    "PackDtype",
    "PackRecipe",
    "PackedArray",
    "ParticleReader",
    "SubtomogramDataset",
    "View",
    "ViewConfig",
    "add_noise",
    "at_box",
    "box_of_spacing",
    "find_problem",
    "fit_volume",
    "fit_weight",
    "image_dataset",
    "is_finished",
    "load_dataset",
    "mask_of_views",
    "open_own_pack",
    "open_pack",
    "pack_particles",
    "random_low_pass",
    "random_view",
    "read_recipe",
    "recorded_view",
    "rotate_weights",
    "through_mask",
    "whiten",
    "write_pack",
]
