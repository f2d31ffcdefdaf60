"""The viewer: averages, particles and codes of a run in napari."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.export import load_placements
from cryodc.figures import class_colour, principal_plane, read_particle, surface_threshold
from cryodc.generate import read_traversals
from cryodc.io import read_volume
from cryodc.particles import ParticleSet
from cryodc.runs import (
    AverageSummary,
    Clusters,
    RunFolder,
    classes_if_any,
    current_averages,
    current_states,
    load_codes,
    load_config,
    load_run_particles,
)

if TYPE_CHECKING:
    import napari

_MOST_TOMOGRAMS = 50


def open_viewer(run: RunFolder, *, show: bool = True, tell: Callable[[str], None] = lambda _: None) -> "napari.Viewer":
    """Open a run in napari; the caller starts the event loop.

    Layers, in Å: every class average as a volume in its class's colour (half maps and masks hidden), its states, the
    motion along its principal axes and its decoded traversals as time series (hidden), the particle that is selected,
    and the content codes as points in their principal plane, coloured by class. Selecting a point, by a click or in
    napari's features table, shows its particle. Positions in each tomogram are points in the same colours (hidden).
    What is of an earlier clustering is left out.

    Parameters
    ----------
    run
        Trained; clustered and averaged or not.
    show
        Whether a window appears.
    tell
        Called with a line for everything that is left out, and with the unit of positions.

    Raises
    ------
    InputError
        If napari is not installed or the run has not been trained.
    """
    try:
        import napari
    except ImportError as error:
        raise InputError("napari is not installed", remedy="pip install 'cryodc[view]'") from error
    codes, particles, clusters = load_codes(run), load_run_particles(run), classes_if_any(run)
    viewer = napari.Viewer(title=f"cryodc · {run.path.resolve().name}", show=show)
    box_angstrom = particles.box_size * particles.spacing_angstrom
    n_averages = 0
    if (run.averages / "summary.json").exists():
        averages = current_averages(run)
        if averages is not None:
            n_averages = _add_averages(viewer, run, averages, box_angstrom)
            _add_states(viewer, run, box_angstrom, tell)
        else:
            tell("the averages are of an earlier clustering and are left out: run `cryodc average`")
            viewer.title += " · averages of an earlier clustering are left out"
    _add_traversals(viewer, run, codes.select(particles.names), clusters, box_angstrom, tell)
    particle = _ParticleLayer(viewer, particles, bool(load_config(run)["input"]["invert"]))
    plane, _ = principal_plane(codes.select(particles.names).content_points)
    _add_codes(viewer, plane, particles, clusters, box_angstrom, max(1, n_averages), particle)
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.dims.ndisplay = 2
    # States put a time axis before z.
    viewer.dims.set_point(viewer.dims.ndim - 3, box_angstrom / 2)
    viewer.reset_view()
    if n_averages:
        # Tomograms are vast beside an average: the view is fitted to what came before.
        shown = viewer.layers.selection.active
        _add_positions(viewer, run, tell)
        viewer.layers.selection.active = shown
    return viewer


def run_viewer(run: RunFolder, tell: Callable[[str], None] = lambda _: None) -> None:
    """Open a run in napari and stay until its window is closed.

    Parameters
    ----------
    run, tell
        As in :func:`open_viewer`.

    Raises
    ------
    InputError
        As :func:`open_viewer`.
    """
    open_viewer(run, tell=tell)
    import napari

    napari.run()


class _ParticleLayer:
    """One image layer that shows one particle at a time, low-passed, and reads it only when it is shown."""

    def __init__(self, viewer: "napari.Viewer", particles: ParticleSet, invert: bool) -> None:
        self.particles = particles
        self.invert = invert
        self.caption = viewer.canvas.overlays.text
        self.caption.text, self.caption.visible, self.caption.position = particles.names[0], True, "bottom_left"
        spacing = particles.spacing_angstrom
        self.layer = viewer.add_image(
            self._read(0),
            name="particle",
            scale=[spacing] * 3,
            units=["angstrom"] * 3,
            translate=[0, 1.15 * particles.box_size * spacing, 0],
            colormap="gray",
            metadata={"row": 0, "name": particles.names[0]},
        )

    def show(self, row: int) -> None:
        """Show another particle of the set."""
        self.layer.data = self._read(row)
        self.layer.metadata = {"row": row, "name": self.particles.names[row]}
        self.layer.reset_contrast_limits()
        self.caption.text = self.particles.names[row]

    def _read(self, row: int) -> NDArray[np.float32]:
        return read_particle(self.particles.images[row], invert=self.invert, low_pass_voxels=6)


def _add_averages(viewer: "napari.Viewer", run: RunFolder, averages: AverageSummary, box_angstrom: float) -> int:
    """Averages side by side along x; those not aligned are hidden and named so."""
    for position, row in enumerate(averages.classes):
        number = row.class_number
        for suffix, what in (("_mask", "mask"), ("_half1", "half map 1"), ("_half2", "half map 2"), ("", "average")):
            volume = read_volume(run.averages / f"class{number:03d}{suffix}.mrc")
            low, high = np.percentile(volume.voxels, [1, 99.95])
            aligned = "" if row.aligned else " (not aligned)"
            viewer.add_image(
                volume.voxels,
                name=f"class {number} {what}{aligned}",
                scale=[volume.spacing_angstrom] * 3,
                units=["angstrom"] * 3,
                translate=[0, 0, position * 1.1 * box_angstrom],
                colormap=_colormap(number),
                contrast_limits=(float(low), float(max(high, low + 1e-6))),
                rendering="iso",
                iso_threshold=surface_threshold(volume.voxels),
                blending="translucent",
                visible=what == "average" and row.aligned,
            )
    return len(averages.classes)


def _add_states(viewer: "napari.Viewer", run: RunFolder, box_angstrom: float, tell: Callable[[str], None]) -> None:
    """States and axes of every class that has them, in the place of its average, with time as the first axis."""
    current = current_states(run)
    for folder in sorted(path.parent for path in run.states.glob("class*/summary.json")):
        if folder.name not in {f"class{number:03d}" for number in current}:
            tell(f"the states in {folder.name} are of earlier averages and are left out: run `cryodc states`")
    for number, found in current.items():
        folder = run.states / f"class{number:03d}"
        series = {"states": sorted(folder.glob("state*.mrc"))}
        for axis in range(1, found.axes + 1):
            supported = "" if axis <= found.axes_supported else " (not supported)"
            series[f"axis {axis}{supported}"] = sorted(folder.glob(f"axis{axis}_*.mrc"))
        for name, files in series.items():
            if files:
                _add_series(viewer, files, f"class {number} {name}", number, box_angstrom)


def _add_traversals(
    viewer: "napari.Viewer",
    run: RunFolder,
    codes: Codes,
    clusters: Clusters | None,
    box_angstrom: float,
    tell: Callable[[str], None],
) -> None:
    """Decoded traversals of every class that has them, in the place of its average; those of earlier codes are not."""
    labels = None if clusters is None else clusters.labels
    for found in read_traversals(run, codes, labels):
        if not found.current:
            tell(f"the traversal of class {found.class_number} is of earlier codes or classes and is left out")
            continue
        for axis, files in enumerate(found.series, start=1):
            name = f"class {found.class_number} decoded axis {axis}"
            _add_series(viewer, files, name, found.class_number, box_angstrom)


def _add_series(
    viewer: "napari.Viewer", files: Sequence[Path], name: str, class_number: int, box_angstrom: float
) -> None:
    """Volumes of a class as one hidden layer, with time as the first axis, in the place of the class's average."""
    volumes = [read_volume(file) for file in files]
    frames = np.stack([volume.voxels for volume in volumes])
    low, high = np.percentile(frames, [1, 99.95])
    spacing = volumes[0].spacing_angstrom
    viewer.add_image(
        frames,
        name=name,
        scale=[1, spacing, spacing, spacing],
        units=["pixel", "angstrom", "angstrom", "angstrom"],
        translate=[0, 0, 0, (class_number - 1) * 1.1 * box_angstrom],
        axis_labels=["time", "z", "y", "x"],
        colormap=_colormap(class_number),
        contrast_limits=(float(low), float(max(high, low + 1e-6))),
        rendering="iso",
        iso_threshold=surface_threshold(volumes[0].voxels),
        blending="translucent",
        visible=False,
    )


def _add_positions(viewer: "napari.Viewer", run: RunFolder, tell: Callable[[str], None]) -> None:
    """Where the particles lie in each tomogram, coloured by class: a hidden layer each, in Å.

    Å count from where the coordinates of the STAR do, the corner or the centre of the tomogram, as is told. Nothing is
    added where the run has no averages yet, or its STAR no coordinates.
    """
    if not (run.averages / "particles.star").exists():
        return
    try:
        placements = load_placements(run)
    except InputError:
        return
    tell(f"positions: {placements.coordinates}")
    positions = placements.positions_angstrom()
    tomograms = np.array(placements.picks.tomograms, dtype=str)
    for name in placements.tomograms()[:_MOST_TOMOGRAMS]:
        rows = np.flatnonzero(tomograms == name)
        layer = viewer.add_points(
            positions[rows],
            name=f"positions {name or 'unnamed'}",
            size=0.5 * placements.box_size * placements.spacing_angstrom,
            face_color=[class_colour(int(number)) for number in placements.classes[rows]],
            border_width=0,
            units=["angstrom"] * 3,
            features={"class": placements.classes[rows]},
            visible=False,
        )
        layer.editable = False


def _add_codes(
    viewer: "napari.Viewer",
    plane: Float[NDArray[np.float64], "n 2"],
    particles: ParticleSet,
    clusters: Clusters | None,
    box_angstrom: float,
    n_columns: int,
    particle: _ParticleLayer,
) -> None:
    """Content codes as points beside the particle; two-dimensional, so that every slice shows them."""
    low, extent = plane.min(axis=0), np.maximum(np.ptp(plane, axis=0), 1e-9)
    across, up = ((plane - low) / extent).T
    # Two boxes high, as wide as the averages above; the first components run right and up.
    width = (1.1 * max(n_columns, 3) - 1.2) * box_angstrom
    points = np.column_stack([(1.25 + 1.8 * (1 - up)) * box_angstrom, 1.2 * box_angstrom + width * across])
    classes = np.zeros(len(plane), dtype=int) if clusters is None else clusters.labels + 1
    layer = viewer.add_points(
        points,
        name="content codes",
        size=box_angstrom / 25,
        face_color=[class_colour(int(number)) for number in classes],
        border_width=0,
        units=["angstrom"] * 2,
        features={"name": list(particles.names), "tomogram": list(particles.tomograms), "class": classes},
    )
    layer.editable = False

    def clicked(layer: Any, event: Any) -> None:
        row = layer.get_value(event.position, view_direction=event.view_direction, world=True)
        if row is not None:
            layer.selected_data = {int(row)}

    def selected() -> None:
        if len(layer.selected_data) == 1:
            particle.show(next(iter(layer.selected_data)))

    layer.mouse_drag_callbacks.append(clicked)
    # By mouse, or as a row of napari's features table.
    layer.selected_data.events.items_changed.connect(selected)


def _colormap(class_number: int) -> Any:
    from napari.utils.colormaps import Colormap

    # The surface lies at two fifths of the range: there the map has its class's colour, and beyond it pales.
    return Colormap(["black", class_colour(class_number), "white"], controls=[0, 0.45, 1], name=f"class {class_number}")
