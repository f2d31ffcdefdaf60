"""cryodc within other programs: jobs of RELION and of CCP-EM's pipeliner, and a package of stw.

The other programs import ``cryodc.plugins.pipeliner`` and ``cryodc.plugins.stw`` by their entry points, to list what
there is. So nothing that takes long to import is imported here.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryodc.plugins.relion_job import RelionJob

__all__ = [
    "RelionJob",
]


def __getattr__(name: str) -> Any:
    """Import the one public name when it is used."""
    if name != "RelionJob":
        raise AttributeError(f"module 'cryodc.plugins' has no attribute {name!r}")
    from cryodc.plugins.relion_job import RelionJob

    return RelionJob
