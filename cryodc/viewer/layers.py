"""What of a run napari shows, as layer data ``(data, how it is shown, kind)``; napari itself is not needed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.export import load_placements
from cryodc.figures import class_colour, surface_threshold
from cryodc.generate import read_traversals
from cryodc.io import read_volume
from cryodc.picks import read_picks
from cryodc.runs import RunFolder, classes_if_any, current_averages, current_states, load_codes
from cryodc.volumes import Volume

LayerData = tuple[NDArray[Any], dict[str, Any], str]
_KINDS = (("_mask", "mask"), ("_half1", "half map 1"), ("_half2", "half map 2"), ("", "average"))
APART = 1.1
"""Distance of neighbouring averages, in boxes."""


def run_layers(run: RunFolder, tell: Callable[[str], None] = lambda _: None) -> list[LayerData]:
    """Averages of a run side by side along x, their halves, masks, states and traversals hidden in the same place.

    The average of a class that could not be aligned is hidden and named so. What is of an earlier clustering is left
    out.

    Parameters
    ----------
    run
        Trained.
    tell
        Told what is left out, a line at a time.

    Raises
    ------
    InputError
        If a file is damaged.
    """
    found = []
    averages = current_averages(run)
    if averages is not None:
        for entry in averages.classes:
            number, aligned = entry.class_number, "" if entry.aligned else " (not aligned)"
            for suffix, what in _KINDS:
                volume = read_volume(run.averages / f"class{number:03d}{suffix}.mrc")
                shown = what == "average" and entry.aligned
                found.append(class_layer(volume, f"class {number} {what}{aligned}", number, visible=shown))
        found += _state_layers(run, tell)
    elif (run.averages / "summary.json").exists():
        tell("the averages are of an earlier clustering and are left out: run `cryodc average`")
    return found + _traversal_layers(run, tell)


def class_layer(volume: Volume, name: str, number: int, *, visible: bool = True, row: int = 0) -> LayerData:
    """A map of a class in its colour, at the class's place along x.

    Parameters
    ----------
    volume
        The map.
    name
        Of the layer.
    number
        Of the class, from 1.
    visible
        Whether it is shown at first.
    row
        Boxes further down along y.
    """
    box_angstrom = volume.box_size * volume.spacing_angstrom
    return (
        volume.voxels,
        {
            "name": name,
            "scale": [volume.spacing_angstrom] * 3,
            "units": ["angstrom"] * 3,
            "translate": [0, row * APART * box_angstrom, max(0, number - 1) * APART * box_angstrom],
            "visible": visible,
            **_surface(volume.voxels, volume.voxels, number),
        },
        "image",
    )


def particle_layer(voxels: NDArray[np.float32], name: str, box_angstrom: float, column: int) -> LayerData:
    """A particle, or what it is compared with, below the averages.

    Parameters
    ----------
    voxels
        ``(d, h, w)``, or ``(h, w)`` of an image.
    name
        Of the layer.
    box_angstrom
        Side of the box.
    column
        Boxes along x.
    """
    spacing, dims = box_angstrom / voxels.shape[-1], voxels.ndim
    low, high = np.percentile(voxels, [0.5, 99.8])
    how = {
        "name": name,
        "scale": [spacing] * dims,
        "units": ["angstrom"] * dims,
        "translate": [0, APART * box_angstrom, column * APART * box_angstrom][-dims:],
        "colormap": "gray",
        "blending": "translucent",
        "contrast_limits": (float(low), float(max(high, low + 1e-6))),
    }
    return voxels, how, "image"


def tomogram_names(run: RunFolder) -> list[str]:
    """Tomograms that the particles of an averaged run have places in; none without coordinates."""
    try:
        return load_placements(run).tomograms()
    except InputError:
        return []


def position_layer(run: RunFolder, tomogram: str) -> LayerData:
    """Where the particles of one tomogram lie, in Å from where the STAR counts, coloured by class.

    ``metadata["coordinates"]`` says in words in which unit, and from where, the STAR was read.

    Raises
    ------
    InputError
        As :func:`cryodc.export.load_placements`.
    """
    placements = load_placements(run)
    rows = np.flatnonzero(np.array(placements.picks.tomograms, dtype=str) == tomogram)
    size = 0.5 * placements.box_size * placements.spacing_angstrom
    positions, how, kind = _points(tomogram, placements.positions_angstrom()[rows], placements.classes[rows], size)
    return positions, {**how, "units": ["angstrom"] * 3, "metadata": {"coordinates": placements.coordinates}}, kind


def star_layers(star: Path) -> list[LayerData]:
    """Where the particles of a STAR lie: a layer of points a tomogram, in the units of the STAR, coloured by class.

    Raises
    ------
    InputError
        If it cannot be read, or has no coordinates.
    """
    picks = read_picks(star)
    classes = np.zeros(len(picks), dtype=np.int64) if picks.classes is None else picks.classes
    tomograms = np.array(picks.tomograms, dtype=str)
    spread = np.ptp(picks.positions, axis=0).max() if len(picks) else 1.0
    return [
        _points(name, picks.positions[tomograms == name], classes[tomograms == name], max(1.0, 0.01 * spread))
        for name in dict.fromkeys(picks.tomograms)
    ]


def _points(tomogram: str, positions: NDArray[np.float64], classes: NDArray[np.int64], size: float) -> LayerData:
    how = {
        "name": f"positions {tomogram or 'unnamed'}",
        "size": size,
        "face_color": [class_colour(int(number)) for number in classes],
        "border_width": 0,
        "features": {"class": classes},
    }
    return positions, how, "points"


def _state_layers(run: RunFolder, tell: Callable[[str], None]) -> list[LayerData]:
    current, found = current_states(run), []
    for folder in sorted(path.parent for path in run.states.glob("class*/summary.json")):
        if folder.name not in {f"class{number:03d}" for number in current}:
            tell(f"the states in {folder.name} are of earlier averages and are left out: run `cryodc states`")
    for number, states in current.items():
        folder = run.states / f"class{number:03d}"
        series = {"states": sorted(folder.glob("state*.mrc"))}
        for axis in range(1, states.axes + 1):
            supported = "" if axis <= states.axes_supported else " (not supported)"
            series[f"axis {axis}{supported}"] = sorted(folder.glob(f"axis{axis}_*.mrc"))
        found += [_series(files, f"class {number} {name}", number) for name, files in series.items() if files]
    return found


def _traversal_layers(run: RunFolder, tell: Callable[[str], None]) -> list[LayerData]:
    clusters, found = classes_if_any(run), []
    for traversal in read_traversals(run, load_codes(run), None if clusters is None else clusters.labels):
        number = traversal.class_number
        if not traversal.current:
            tell(f"the traversal of class {number} is of earlier codes or classes and is left out")
            continue
        for axis, files in enumerate(traversal.series, start=1):
            found.append(_series(files, f"class {number} decoded axis {axis}", number))
    return found


def _series(files: Sequence[Path], name: str, number: int) -> LayerData:
    """Volumes of a class as one hidden layer, with time as the first axis, in the place of the class's average."""
    volumes = [read_volume(file) for file in files]
    frames = np.stack([volume.voxels for volume in volumes])
    spacing = volumes[0].spacing_angstrom
    place = (number - 1) * APART * volumes[0].box_size * spacing
    how = {
        "name": name,
        "scale": [1, spacing, spacing, spacing],
        "units": ["pixel", "angstrom", "angstrom", "angstrom"],
        "translate": [0, 0, 0, place],
        "axis_labels": ["time", "z", "y", "x"],
        "visible": False,
        **_surface(frames, volumes[0].voxels, number),
    }
    return frames, how, "image"


def _surface(voxels: NDArray[np.float32], first: NDArray[np.float32], number: int) -> dict[str, Any]:
    """How a map of a class is drawn: its slices in shades of its colour, in 3D its surface."""
    low, high = np.percentile(voxels, [1, 99.95])
    # The surface lies at two fifths of the range: there the map has its class's colour, and beyond it pales.
    ramp = {"colors": ["black", class_colour(number), "white"], "controls": [0, 0.45, 1], "name": f"class {number}"}
    return {
        "colormap": ramp,
        "contrast_limits": (float(low), float(max(high, low + 1e-6))),
        "rendering": "iso",
        "iso_threshold": surface_threshold(first),
        "blending": "translucent",
    }
