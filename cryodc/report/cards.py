"""Cards of the report: what the page shows of each class, of sample particles and of images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryodc.figures import (
    ParticlePreviews,
    class_colour,
    class_name,
    gallery_png,
    orthoslices_png,
    slices_png,
    surface_png,
)
from cryodc.io import read_volume
from cryodc.report.embed import data_uri
from cryodc.report.findings import resolution_text
from cryodc.report.surfaces import TurnedVolume, turned_volume
from cryodc.runs import Clusters, RunFolder, StatesSummary, current_names
from cryodc.volumes import Volume

_N_SAMPLES = 4
_N_MEMBERS = 12
_SMALL = 99


@dataclass(frozen=True)
class AxisCard:
    """The average of a class moved along an axis: a volume of one frame a step."""

    number: int
    supported: bool
    volume: TurnedVolume


@dataclass(frozen=True)
class StateCard:
    """One state of a class."""

    number: int
    n_particles: int
    resolution: str
    slices: str
    volume: TurnedVolume


@dataclass(frozen=True)
class StatesCard:
    """The states of a class, the axes along which it varies, and how that was decided."""

    verdict: str
    states: list[StateCard]
    axes: list[AxisCard]


@dataclass(frozen=True)
class ClassCard:
    """What the page says of one class."""

    number: int
    name: str
    colour: str
    n_particles: int
    share: float
    confidence: str
    aligned: bool | None
    resolution: str
    verdict: str
    note: str
    slices: str
    surface: str
    volume: TurnedVolume | None
    quality: str
    interval: str
    coverage: str
    states: StatesCard | None


@dataclass(frozen=True)
class SampleCard:
    """One particle as recorded and low-passed; class 0 is none."""

    name: str
    tomogram: str
    class_number: int
    colour: str
    raw: str
    filtered: str


def class_cards(
    run: RunFolder,
    clusters: Clusters | None,
    averages: dict[str, Any] | None,
    states: dict[int, StatesSummary],
) -> list[ClassCard]:
    """A card for each class; without averages it has no maps.

    Parameters
    ----------
    run
        Where the maps are.
    clusters, averages, states
        What the run has; none of an earlier one.
    """
    if clusters is None:
        return []
    rows = {} if averages is None else {row["class"]: row for row in averages["classes"]}
    cards, names = [], current_names(run)
    for label, size in enumerate(clusters.sizes):
        number = label + 1
        row = rows.get(number)
        resolution, slices, surface, quality, turned = "–", "", "", "", None
        if row is not None:
            volume = read_volume(run.averages / f"class{number:03d}.mrc")
            slices = data_uri(orthoslices_png(volume))
            picture = run.averages / f"class{number:03d}_quality.png"
            if row["aligned"]:
                resolution = resolution_text(row["resolution_angstrom"], volume.spacing_angstrom)
                surface = data_uri(surface_png(volume, class_colour(number)))
                turned = turned_volume([volume], [f"class {number}"], len(clusters.sizes))
                quality = data_uri(picture.read_bytes()) if picture.exists() else ""
        confidence = clusters.mean_confidence(label)
        cards.append(
            ClassCard(
                number=number,
                name=names.get(number, ""),
                colour=class_colour(number),
                n_particles=size,
                share=size / sum(clusters.sizes),
                confidence="–" if confidence is None else f"{confidence:.2f}",
                aligned=None if row is None else row["aligned"],
                resolution=resolution,
                verdict=_verdict(row),
                note="" if row is None else row["note"],
                slices=slices,
                surface=surface,
                volume=turned,
                quality=quality,
                interval=_interval(row),
                coverage=_coverage(row),
                states=_states(run, states[number]) if number in states else None,
            )
        )
    return cards


def _states(run: RunFolder, summary: StatesSummary) -> StatesCard:
    folder = run.states / f"class{summary.class_number:03d}"
    maps = [read_volume(folder / entry["map"]) for entry in summary.states]
    states = [
        StateCard(
            number=entry["state"],
            n_particles=entry["n_particles"],
            resolution=resolution_text(entry["resolution_angstrom"], volume.spacing_angstrom),
            slices=data_uri(orthoslices_png(volume)),
            volume=turned_volume([volume], [f"state {entry['state']}"], len(maps)),
        )
        for entry, volume in zip(summary.states, maps, strict=True)
    ]
    axes = []
    for axis in range(1, summary.axes + 1):
        frames = [
            read_volume(folder / f"axis{axis}_{frame:02d}.mrc") for frame in range(1, len(summary.axis_steps) + 1)
        ]
        if np.array_equal(frames[0].voxels, frames[-1].voxels):
            # This axis has vanished: no particle lies elsewhere along it.
            continue
        names = [f"{step:+g} standard deviations" if step else "the average" for step in summary.axis_steps]
        axes.append(AxisCard(axis, axis <= summary.axes_supported, turned_volume(frames, names, _SMALL)))
    return StatesCard(summary.verdict, states, axes)


def _verdict(row: dict[str, Any] | None) -> str:
    """What a class is and why, in a few words."""
    return "not averaged" if row is None else f"{row['verdict']}: {row['reason']}"


def _interval(row: dict[str, Any] | None) -> str:
    low, high = (row or {}).get("fraction_interval", (None, None))
    # The share of the only class is no count that could have come out otherwise.
    return "" if low is None or low == high else f"{100 * low:.1f}–{100 * high:.1f} %"


def _coverage(row: dict[str, Any] | None) -> str:
    if row is None or "fourier_measured" not in row:
        return ""
    return f"{row['fourier_measured']:.0%} of Fourier space measured, efficiency {row['fourier_efficiency']:.2f}"


def sample_cards(previews: ParticlePreviews, clusters: Clusters | None) -> list[SampleCard]:
    """Particles spread evenly over the classes, as recorded and low-passed; none of those whose image has moved."""
    particles = previews.particles
    labels = np.full(len(particles), -1) if clusters is None else clusters.labels
    in_class_order = np.argsort(labels, kind="stable")
    places = np.linspace(0, len(particles) - 1, min(_N_SAMPLES, len(particles))).astype(int)
    cards = []
    for row in in_class_order[np.unique(places)]:
        number = int(labels[row]) + 1
        shown = previews.show(int(row))
        if shown.raw is None or shown.filtered is None:
            continue
        pictures = [data_uri(_picture(voxels, previews)) for voxels in (shown.raw, shown.filtered)]
        cards.append(
            SampleCard(particles.names[row], particles.tomograms[row], number, class_colour(number), *pictures)
        )
    return cards


def class_gallery(previews: ParticlePreviews, clusters: Clusters | None) -> str:
    """The surest members of each class of images, a class a row; empty for subtomograms, which are averaged."""
    if clusters is None or previews.dims == 3:
        return ""
    rows = []
    for label in range(clusters.n_clusters):
        members = np.flatnonzero(clusters.labels == label)
        surest = members[np.argsort(-clusters.confidence[members], kind="stable")[:_N_MEMBERS]]
        images = [shown.raw for shown in map(previews.show, surest.tolist()) if shown.raw is not None]
        if images:
            rows.append((class_name(label + 1), class_colour(label + 1), images))
    box = previews.particles.spacing_angstrom * previews.particles.box_size
    return data_uri(gallery_png(rows, box_angstrom=box)) if rows else ""


def _picture(voxels: NDArray[np.float32], previews: ParticlePreviews) -> bytes:
    """The central slices of a subtomogram, or an image, as a PNG."""
    spacing = previews.particles.spacing_angstrom
    if previews.dims == 2:
        return slices_png([("", "#5b6570", voxels)], box_angstrom=spacing * len(voxels))
    return orthoslices_png(Volume(voxels, spacing))
