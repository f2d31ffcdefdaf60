"""Particles measured as they were recorded: practice particles like them, and what can be told apart in them."""

from cryodc.planning.like import LikeRequest, write_like
from cryodc.planning.noise import NoisePower
from cryodc.planning.plan import FEWEST, NUMBERS, WANTED_ARI, ExpectedMap, Needed, Plan, PlanRequest, plan_particles
from cryodc.planning.recorded import MeasureRequest, Recorded, measure_particles
from cryodc.planning.separation import Separation

__all__ = [
    "FEWEST",
    "NUMBERS",
    "WANTED_ARI",
    "ExpectedMap",
    "LikeRequest",
    "MeasureRequest",
    "Needed",
    "NoisePower",
    "Plan",
    "PlanRequest",
    "Recorded",
    "Separation",
    "measure_particles",
    "plan_particles",
    "write_like",
]
