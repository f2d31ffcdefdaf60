"""The run folder: its files, settings, codes and particles."""

from cryodc.runs.codes import load_codes, save_codes
from cryodc.runs.config import input_options, load_config, save_config
from cryodc.runs.folder import RunFolder, find_run, require
from cryodc.runs.particles import load_run_dataset, load_run_particles, open_run_dataset, read_run_particles

__all__ = [
    "RunFolder",
    "find_run",
    "input_options",
    "load_codes",
    "load_config",
    "load_run_dataset",
    "load_run_particles",
    "open_run_dataset",
    "read_run_particles",
    "require",
    "save_codes",
    "save_config",
]
