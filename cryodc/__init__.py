"""cryodc: which proteins are in subtomograms, in which states, and what they look like.

The nouns and verbs of the story, each imported when it is first used:

>>> import cryodc
>>> cryodc.Volume.__module__
'cryodc.volumes'
"""

import importlib
from typing import Any

_HOMES = {
    "Clusters": "cluster",
    "Codes": "codes",
    "ExtractRequest": "extract",
    "GenerateRequest": "generate",
    "InputError": "errors",
    "ParticleSet": "particles",
    "Poses": "particles",
    "RunFolder": "io.run",
    "SimulationConfig": "data.simulation_config",
    "SubtomogramDataset": "data.dataset",
    "TrainRequest": "workflow",
    "Volume": "volumes",
    "average_run": "average",
    "cluster_run": "cluster",
    "compare_stars": "compare",
    "convert_picks": "convert",
    "demo_phantoms": "data.phantoms",
    "evaluate_run": "evaluate",
    "extract_subtomograms": "extract",
    "generate_run": "generate",
    "import_tilt_stacks": "import_stacks",
    "open_pack": "pack",
    "open_viewer": "viewer",
    "pack_particles": "pack",
    "read_particles": "io.star",
    "read_volume": "io.mrc",
    "run_demo": "demo",
    "run_leakage": "leakage.table",
    "select_run": "select",
    "train_run": "workflow",
    "write_report": "report",
    "write_simulation": "data.simulation_folder",
    "write_volume": "io.mrc",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its module, so that ``import cryodc`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cryodc' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cryodc.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
