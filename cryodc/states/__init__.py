"""Conformations within one class of aligned particles."""

from cryodc.states.conformations import Conformations, find_conformations
from cryodc.states.measurements import PosedBatch, measure
from cryodc.states.missing_data import average_of, fit_axes
from cryodc.states.relax import put_on_axes, relax_symmetry
from cryodc.states.states import find_states

__all__ = [
    "Conformations",
    "PosedBatch",
    "average_of",
    "find_conformations",
    "find_states",
    "fit_axes",
    "measure",
    "put_on_axes",
    "relax_symmetry",
]
