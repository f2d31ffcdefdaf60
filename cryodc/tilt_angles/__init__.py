"""Tilt angles of tomograms: a table of ranges, or what alignment programs and microscopes write of each tilt series."""

from cryodc.tilt_angles.ranges import read_tilt_ranges

__all__ = ["read_tilt_ranges"]
