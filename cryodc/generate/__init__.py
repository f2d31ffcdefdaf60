"""Volumes decoded from codes."""

from cryodc.generate.decoders import Decoding, load_decoding
from cryodc.generate.encoded_run import load_encoded
from cryodc.generate.folder import read_traversals
from cryodc.generate.generate import GenerateRequest, compare_runs, generate_run, make_grid, make_traversal
from cryodc.generate.pictures import describe_axes, describe_shares, grid_picture, particles_picture, traversal_picture

__all__ = [
    "Decoding",
    "GenerateRequest",
    "compare_runs",
    "describe_axes",
    "describe_shares",
    "generate_run",
    "grid_picture",
    "load_decoding",
    "load_encoded",
    "make_grid",
    "make_traversal",
    "particles_picture",
    "read_traversals",
    "traversal_picture",
]
