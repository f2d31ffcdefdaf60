"""Averages of the classes of a run, in given poses or aligned, with clusters classified by alignment."""

from cryodc.averaging.average import average_run
from cryodc.averaging.classify import classify_particles
from cryodc.averaging.final_classes import shrink
from cryodc.averaging.place import PlacedClass, on_axes, place_class
from cryodc.averaging.request import AverageRequest

__all__ = [
    "AverageRequest",
    "PlacedClass",
    "average_run",
    "classify_particles",
    "on_axes",
    "place_class",
    "shrink",
]
