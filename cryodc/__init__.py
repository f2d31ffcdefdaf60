"""cryodc: which proteins are in subtomograms, in which states, and what they look like.

The nouns and verbs of the story, each imported when it is first used:

>>> import cryodc
>>> cryodc.Volume.__module__
'cryodc.volumes'
"""

import importlib
from typing import Any

_HOMES = {
    "Clusters": "clustering",
    "AverageRequest": "averaging",
    "Codes": "codes",
    "ExtractRequest": "picks",
    "GenerateRequest": "generate",
    "InputError": "errors",
    "ParticleSet": "particles",
    "Poses": "particles",
    "RunFolder": "runs",
    "SimulationConfig": "simulation",
    "SubtomogramDataset": "dataset",
    "TrainRequest": "training",
    "Volume": "volumes",
    "average_run": "averaging",
    "cluster_run": "clustering",
    "compare_stars": "star",
    "convert_picks": "picks",
    "demo_phantoms": "simulation",
    "evaluate_run": "evaluation",
    "extract_subtomograms": "picks",
    "generate_run": "generate",
    "import_tilt_stacks": "tilts",
    "open_pack": "dataset",
    "open_viewer": "viewer",
    "pack_particles": "dataset",
    "read_particles": "particles",
    "read_volume": "io",
    "run_demo": "demo",
    "run_leakage": "evaluation",
    "select_run": "export",
    "train_run": "training",
    "write_report": "report",
    "write_simulation": "simulation",
    "write_volume": "io",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its module, so that ``import cryodc`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cryodc' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cryodc.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
