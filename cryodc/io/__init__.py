"""Files of voxels and atoms: MRC, weights, tomograms, structures; and writing that never leaves half a file."""

from cryodc.io.folders import new_folder, recover_folder, replace_folder
from cryodc.io.images import ImageFinder, Problem, check_headers, check_weight_headers, resolve_images, split_image_name
from cryodc.io.mrc import read_array, read_volume, write_array, write_volume
from cryodc.io.mrc_header import read_header, unreadable, wrong_length
from cryodc.io.reference import ImageReference
from cryodc.io.structures import Atoms, read_structure
from cryodc.io.tomograms import Tomogram
from cryodc.io.weights import LAYOUTS, MEASURED_MULTIPLICITY, read_tilt_ranges, read_weight, weight_layout
from cryodc.io.writing import atomic_path, require_empty, write_json, write_text

__all__ = [
    "LAYOUTS",
    "MEASURED_MULTIPLICITY",
    "Atoms",
    "ImageFinder",
    "ImageReference",
    "Problem",
    "Tomogram",
    "atomic_path",
    "check_headers",
    "check_weight_headers",
    "new_folder",
    "read_array",
    "read_header",
    "read_structure",
    "read_tilt_ranges",
    "read_volume",
    "read_weight",
    "recover_folder",
    "replace_folder",
    "require_empty",
    "resolve_images",
    "split_image_name",
    "unreadable",
    "weight_layout",
    "write_array",
    "write_json",
    "write_text",
    "write_volume",
    "wrong_length",
]
