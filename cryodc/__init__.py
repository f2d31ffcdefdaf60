"""cryodc: which proteins are in subtomograms, in which states, and what they look like.

The nouns of the story, and its verbs in ``cryodc.verbs``; each imported when it is first used:

>>> import cryodc
>>> cryodc.Volume.__module__
'cryodc.volumes'
>>> cryodc.verbs.cluster.__module__
'cryodc.clustering.cluster'
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryodc import verbs as verbs
    from cryodc.averaging import AverageRequest as AverageRequest
    from cryodc.bench import BenchRequest as BenchRequest
    from cryodc.check import CheckSettings as CheckSettings
    from cryodc.codes import Codes as Codes
    from cryodc.dataset import InputOptions as InputOptions
    from cryodc.dataset import SubtomogramDataset as SubtomogramDataset
    from cryodc.dataset import open_pack as open_pack
    from cryodc.demo import DemoConfig as DemoConfig
    from cryodc.errors import InputError as InputError
    from cryodc.evaluation import run_leakage as run_leakage
    from cryodc.generate import GenerateRequest as GenerateRequest
    from cryodc.io import read_volume as read_volume
    from cryodc.io import write_volume as write_volume
    from cryodc.particles import ParticleSet as ParticleSet
    from cryodc.particles import Poses as Poses
    from cryodc.particles import read_particles as read_particles
    from cryodc.picks import ExtractRequest as ExtractRequest
    from cryodc.runs import Clusters as Clusters
    from cryodc.runs import RunFolder as RunFolder
    from cryodc.runs import find_run as find_run
    from cryodc.runs import load_codes as load_codes
    from cryodc.simulation import SimulationConfig as SimulationConfig
    from cryodc.simulation import demo_phantoms as demo_phantoms
    from cryodc.star import compare_stars as compare_stars
    from cryodc.training import EncodeRequest as EncodeRequest
    from cryodc.training import Listener as Listener
    from cryodc.training import TrainRequest as TrainRequest
    from cryodc.viewer import open_viewer as open_viewer
    from cryodc.volumes import Volume as Volume

# The same as above, where it is looked up when it is used.
_HOMES = {
    "AverageRequest": "averaging",
    "BenchRequest": "bench",
    "CheckSettings": "check",
    "Clusters": "runs",
    "Codes": "codes",
    "DemoConfig": "demo",
    "EncodeRequest": "training",
    "ExtractRequest": "picks",
    "GenerateRequest": "generate",
    "InputError": "errors",
    "InputOptions": "dataset",
    "Listener": "training",
    "ParticleSet": "particles",
    "Poses": "particles",
    "RunFolder": "runs",
    "SimulationConfig": "simulation",
    "SubtomogramDataset": "dataset",
    "TrainRequest": "training",
    "Volume": "volumes",
    "compare_stars": "star",
    "demo_phantoms": "simulation",
    "find_run": "runs",
    "load_codes": "runs",
    "open_pack": "dataset",
    "open_viewer": "viewer",
    "read_particles": "particles",
    "read_volume": "io",
    "run_leakage": "evaluation",
    "verbs": "",
    "write_volume": "io",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its module, so that ``import cryodc`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cryodc' has no attribute {name!r}")
    if name == "verbs":
        return importlib.import_module("cryodc.verbs")
    return getattr(importlib.import_module(f"cryodc.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
