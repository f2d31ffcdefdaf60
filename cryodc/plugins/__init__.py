"""cryodc within other programs: jobs of RELION and of CCP-EM's pipeliner, and a package of stw."""

from cryodc.plugins.relion_job import RelionJob

__all__ = [
    "RelionJob",
]
