"""Picks of every program: read, converted, cut out of tomograms."""

from cryodc.picks.convert import convert_picks, read_tomogram_names
from cryodc.picks.extract import ExtractRequest, extract_subtomograms
from cryodc.picks.formats import read_picks
from cryodc.picks.picks import Picks, match_tomograms
from cryodc.picks.writers import PickText, dynamo_table, tomogram_numbers_table

__all__ = [
    "ExtractRequest",
    "PickText",
    "Picks",
    "convert_picks",
    "dynamo_table",
    "extract_subtomograms",
    "match_tomograms",
    "read_picks",
    "read_tomogram_names",
    "tomogram_numbers_table",
]
