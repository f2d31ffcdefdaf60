"""Pre-flight: what a STAR says, and what a sample of its particles says against it."""

from cryodc.check.check import CheckSettings, check_particles
from cryodc.check.poses import PoseCheck, describe_convention
from cryodc.check.report import CheckReport
from cryodc.check.wedge import describe_wedge, measure_wedge

__all__ = [
    "CheckReport",
    "CheckSettings",
    "PoseCheck",
    "check_particles",
    "describe_convention",
    "describe_wedge",
    "measure_wedge",
]
