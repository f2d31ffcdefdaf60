"""Classes as picks of a copick project: a config that opens the project with them, and the picks of each tomogram.

A copick project has picks in ``ExperimentRuns/RUN/Picks/USER_SESSION_OBJECT.json`` under its overlay, and shows beside
them what lies under its static root. The config that is written has a new overlay, so nothing of the project changes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.export.named import particle_names
from cryodc.export.placements import Placements
from cryodc.figures import class_colour
from cryodc.io import find_name, read_text, read_volume, tomogram_stem, write_json
from cryodc.runs import RunFolder, current_classes, fingerprint_of_averages
from cryodc.star import find_particle_block, read_star

_USER = "cryodc"
_LOCAL = ("local://", "file://")


def read_copick_config(path: Path) -> dict[str, Any]:
    """Read the config of a copick project.

    Raises
    ------
    InputError
        If it is no JSON of one.
    """
    try:
        config = json.loads(read_text(path, "the copick config"))
        objects = config["pickable_objects"]
        found = "" if all(isinstance(entry["name"], str) for entry in objects) else "an object without a name"
        found = found or ("" if isinstance(config["overlay_root"], str) else "an overlay_root that is no text")
    except (RecursionError, LookupError, TypeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"[:80]
    if found:
        raise InputError(
            "this is no config of a copick project",
            file=path,
            expected='{"pickable_objects": [{"name": …}, …], "overlay_root": "local:///…", …}',
            found=found,
        )
    return dict(config)


def write_copick(
    folder: Path,
    out: Path,
    run: RunFolder,
    placements: Placements,
    keep: Int[NDArray[np.int64], " k"],
    config_file: Path,
    size_xyz: tuple[int, int, int] | None,
) -> list[str]:
    """Write ``copick.json`` and ``copick/``, the picks of each tomogram and class; the names of the files.

    Parameters
    ----------
    folder, out
        Where files are written now, and where they will lie.
    run
        Whose classes they are; its fingerprint is the session.
    placements, keep
        The particles, and which of them are written.
    config_file
        The config of the project. Its other objects, tomograms and picks are shown with ours.
    size_xyz
        The tomogram in voxels of the subtomograms, needed where coordinates count from its centre.

    Raises
    ------
    InputError
        If the config cannot be read, a tomogram is no run of the project, or positions cannot be converted.
    """
    config, picks = read_copick_config(config_file), placements.picks
    spacing = placements.image_spacing_angstrom
    places = picks.in_voxels(spacing, None if size_xyz is None else size_xyz[::-1]) * spacing
    classes = current_classes(run)
    sure = dict(zip(classes.names, classes.confidence.tolist(), strict=True))
    names = particle_names(find_particle_block(read_star(picks.source)))
    session = fingerprint_of_averages(run)[:8]
    runs = _run_names(config, placements.tomograms(), config_file)
    written = []
    for tomogram, run_name in runs.items():
        mine = keep[[picks.tomograms[row] == tomogram for row in keep.tolist()]]
        for number in sorted(set(placements.classes[mine].tolist())):
            rows = mine[placements.classes[mine] == number]
            content = {
                "pickable_object_name": _object_name(number),
                "user_id": _USER,
                "session_id": session,
                "run_name": run_name,
                "voxel_spacing": None,
                "unit": "angstrom",
                "points": [
                    {
                        "location": dict(zip("zyx", places[row].round(4).tolist(), strict=True)),
                        "transformation_": _matrix(placements.rotations[row][::-1, ::-1]),
                        "instance_id": row + 1,
                        "score": sure[names[row]],
                    }
                    for row in rows.tolist()
                ],
                "trust_orientation": True,
            }
            file = f"copick/ExperimentRuns/{run_name}/Picks/{_USER}_{session}_{_object_name(number)}.json"
            write_json(folder / file, content)
            written.append(file)
    write_json(folder / "copick.json", _with_classes(config, run, placements, keep, out / "copick"))
    return ["copick.json", *written]


def _matrix(rotation_xyz: NDArray[np.float64]) -> list[list[float]]:
    """Reference → tomogram, x y z, without a translation: the location is where the middle of the average lies."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_xyz
    return [[float(value) for value in row] for row in matrix]


def _object_name(number: int) -> str:
    """An underscore ends a name in copick."""
    return f"class-{number:03d}"


def _run_names(config: Mapping[str, Any], tomograms: Sequence[str], file: Path) -> dict[str, str]:
    """The run of each tomogram: by name, where the project lies on this disk; else the tomogram's own name."""
    roots = [config.get("static_root"), config["overlay_root"]]
    folders = [
        Path(str(root).removeprefix(_LOCAL[0]).removeprefix(_LOCAL[1])) / "ExperimentRuns" for root in roots if root
    ]
    known = sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()})
    if not known:
        return {tomogram: tomogram_stem(tomogram) for tomogram in tomograms}
    found = {tomogram: find_name(tomogram, known, file=file) for tomogram in tomograms}
    missing = [tomogram for tomogram, at in found.items() if at is None]
    if missing:
        raise InputError(
            "no run of the copick project has the name of this tomogram",
            file=file,
            expected=", ".join(known[:6]) + (", …" if len(known) > 6 else ""),
            found=", ".join(missing[:6]),
            remedy="give the config of the project that these tomograms are in",
        )
    return {tomogram: known[at] for tomogram, at in found.items() if at is not None}


def _with_classes(
    config: Mapping[str, Any], run: RunFolder, placements: Placements, keep: NDArray[np.int64], overlay: Path
) -> dict[str, Any]:
    """The config with our objects and overlay; what was the only root is what is shown beneath."""
    objects = list(config["pickable_objects"])
    label = max([int(entry.get("label") or 0) for entry in objects], default=0)
    for number in sorted(set(placements.classes[keep].tolist())):
        name = _object_name(number)
        if any(entry["name"] == name for entry in objects):
            continue
        label += 1
        colour = class_colour(number).lstrip("#")
        mask = read_volume(run.averages / f"class{number:03d}_mask.mrc")
        radius = mask.spacing_angstrom * (3 / (4 * np.pi) * float((mask.voxels > 0.5).sum())) ** (1 / 3)
        objects.append(
            {
                "name": name,
                "is_particle": True,
                "label": label,
                "color": [*bytes.fromhex(colour), 255],
                "radius": round(radius, 1),
            }
        )
    beneath: dict[str, Any] = {}
    if config.get("config_type", "filesystem") == "filesystem" and not config.get("static_root"):
        beneath = {"static_root": config["overlay_root"], "static_fs_args": config.get("overlay_fs_args") or {}}
    root = f"{_LOCAL[0]}{overlay.absolute()}"
    return {
        **config,
        "pickable_objects": objects,
        **beneath,
        "overlay_root": root,
        "overlay_fs_args": {"auto_mkdir": True},
    }
