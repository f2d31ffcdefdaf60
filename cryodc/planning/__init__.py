"""Particles measured as they were recorded: practice particles like them, and what can be told apart in them."""

from cryodc.planning.like import LikeRequest, write_like
from cryodc.planning.noise import NoisePower
from cryodc.planning.recorded import MeasureRequest, Recorded, measure_particles

__all__ = [
    "LikeRequest",
    "MeasureRequest",
    "NoisePower",
    "Recorded",
    "measure_particles",
    "write_like",
]
