"""Files of voxels and atoms: MRC, OME-Zarr, weights, structures; and writing that never leaves half a file."""

from cryodc.io.folders import STATE, new_folder, recover_folder, replace_folder, stopped_folders
from cryodc.io.images import ImageFinder, Problem, resolve_images, split_image_name
from cryodc.io.mrc import read_array, read_volume, write_array, write_volume
from cryodc.io.mrc_header import read_header, unreadable, wrong_length
from cryodc.io.reading import number_of, read_bytes, read_text, read_yaml
from cryodc.io.reference import ImageReference
from cryodc.io.structures import STRUCTURE_SUFFIXES, Atoms, read_structure
from cryodc.io.tomograms import Tomogram, file_names, find_by_name, find_name, last_number, series_name, tomogram_stem
from cryodc.io.weights import LAYOUTS, MEASURED_MULTIPLICITY, read_weight, weight_layout
from cryodc.io.writing import atomic_path, atomic_stream, require_empty, write_json, write_text

__all__ = [
    "LAYOUTS",
    "MEASURED_MULTIPLICITY",
    "STATE",
    "STRUCTURE_SUFFIXES",
    "Atoms",
    "ImageFinder",
    "ImageReference",
    "Problem",
    "Tomogram",
    "atomic_path",
    "atomic_stream",
    "file_names",
    "find_by_name",
    "find_name",
    "last_number",
    "new_folder",
    "number_of",
    "read_array",
    "read_bytes",
    "read_header",
    "read_structure",
    "read_text",
    "read_volume",
    "read_weight",
    "read_yaml",
    "recover_folder",
    "replace_folder",
    "require_empty",
    "resolve_images",
    "series_name",
    "split_image_name",
    "stopped_folders",
    "tomogram_stem",
    "unreadable",
    "weight_layout",
    "write_array",
    "write_json",
    "write_text",
    "write_volume",
    "wrong_length",
]
