"""What config.yaml says of a run: its settings, particles, pack and versions."""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryodc.dataset import read_recipe
from cryodc.models import TrainConfig
from cryodc.particles import ParticleSet
from cryodc.runs import RunFolder
from cryodc.training.request import TrainRequest
from cryodc.unfinished import typed_command


def describe_pack(request: TrainRequest, particles: ParticleSet) -> dict[str, Any] | None:
    """The ``pack`` section of config.yaml: where the pack is, in the run folder or elsewhere; None without one."""
    if not request.packed:
        return None
    path, box_size, dtype = RunFolder(request.out).pack.name, particles.box_size, "float32"
    if request.pack is not None:
        made = read_recipe(request.pack)
        path, box_size, dtype = str(request.pack.resolve()), made.box_size, made.dtype
    spacing = particles.spacing_angstrom * particles.box_size / box_size
    return {"path": path, "box_size": box_size, "spacing_angstrom": spacing, "dtype": dtype}


def describe_run(
    request: TrainRequest, particles: ParticleSet, config: TrainConfig, pack: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of config.yaml: every setting, versions, seed, command, dataset fingerprint, and the pack.

    Parameters
    ----------
    request
        What the user asks.
    particles
        Of the run.
    config
        Settings.
    pack
        Section of the pack, if there is one.
    """
    settings = config.model_dump(mode="json")
    # Weights that the STAR names say what was measured; a tilt range beside them is not used, so none is recorded.
    has_weights = particles.weight_images is not None
    tilt_range = None if has_weights or request.tilt_range is None else list(request.tilt_range)
    tilt_ranges = None if has_weights or request.tilt_ranges_csv is None else str(request.tilt_ranges_csv.resolve())
    folders = [Path.cwd(), request.star.parent, *([] if request.data_dir is None else [request.data_dir])]
    return {
        "cryodc_version": version("cryodc"),
        "command": typed_command(),
        "seed": request.seed,
        "preset": request.preset,
        "star": str(request.star.resolve()),
        "image_folders": [str(folder.resolve()) for folder in folders],
        "dataset": {
            "n_particles": len(particles),
            "box_size": particles.box_size,
            "spacing_angstrom": particles.spacing_angstrom,
            "fingerprint": fingerprint(particles),
        },
        "input": {
            "tilt_range": tilt_range,
            "tilt_ranges": tilt_ranges,
            "tilt_axis": request.tilt_axis,
            "invert": request.invert,
        },
        "pack": pack,
        "model": settings["model"],
        "loss": settings["loss"],
        "views": settings["views"],
        "optimisation": settings["optimisation"],
        # Images have none.
        **({"templates": settings["templates"]} if config.model.dims == 3 else {}),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")},
        },
    }


def fingerprint(particles: ParticleSet) -> str:
    """SHA-256 over names, image sizes and spacing: whether a set is the one a run was trained on."""
    digest = hashlib.sha256()
    digest.update(f"{particles.box_size} {particles.spacing_angstrom}\n".encode())
    sizes: dict[str, int] = {}
    for name, image in zip(particles.names, particles.images, strict=True):
        if image.file not in sizes:
            sizes[image.file] = image.path.stat().st_size
        digest.update(f"{name} {sizes[image.file]}\n".encode())
    return digest.hexdigest()
