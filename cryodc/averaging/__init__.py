"""Averages of the classes of a run, in given poses or aligned, with clusters classified by alignment."""

from cryodc.averaging.average import average_run
from cryodc.averaging.final_classes import load_final_classes
from cryodc.averaging.place import PlacedClass, on_axes, place_class

__all__ = [
    "PlacedClass",
    "average_run",
    "load_final_classes",
    "on_axes",
    "place_class",
]
