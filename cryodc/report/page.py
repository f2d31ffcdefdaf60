"""The report: one self-contained HTML page that shows everything a run found."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from cryodc.evaluation import N_SHUFFLES, LeakageTable, run_leakage
from cryodc.figures import (
    ParticleShelf,
    class_colour,
    class_name,
    codes_figure,
    fsc_figure,
    gallery_png,
    load_shelf,
    loss_figure,
    number_figure,
    orthoslices_png,
    slices_png,
    surface_png,
)
from cryodc.io import read_volume, write_text
from cryodc.report.decoded import data_uri, decoded_section
from cryodc.runs import Clusters, RunFolder, classes_if_any, current_averages, load_codes, load_config
from cryodc.volumes import Volume

T = TypeVar("T")
_N_SAMPLES = 4
_N_MEMBERS = 12


@dataclass(frozen=True)
class ClassCard:
    """What the page says of one class."""

    number: int
    colour: str
    n_particles: int
    share: float
    confidence: float
    aligned: bool | None
    resolution: str
    note: str
    slices: str
    surface: str
    quality: str
    interval: str
    coverage: str


@dataclass(frozen=True)
class SampleCard:
    """One particle as recorded and low-passed; class 0 is none."""

    name: str
    tomogram: str
    class_number: int
    colour: str
    raw: str
    filtered: str


def write_report(run: RunFolder) -> Path:
    """Write report.html of a run; parts whose files are missing say which command makes them.

    Parameters
    ----------
    run
        Trained; clustered and averaged or not.

    Returns
    -------
    The page: no network, no other file is needed to read it.

    Raises
    ------
    InputError
        If the run has not been trained, or a file of it is damaged.
    """
    config = load_config(run)
    shelf = load_shelf(run)
    particles = shelf.particles
    clusters, found = classes_if_any(run), current_averages(run)
    averages = None if found is None else found.model_dump(by_alias=True)
    stale = found is None and (run.averages / "summary.json").exists()
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("cryodc.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    cards = _class_cards(run, clusters, averages)
    page = template.render(
        title=" / ".join(run.path.resolve().parts[-2:]),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        config=config,
        sections=_sections(config),
        n_tomograms=len(set(particles.tomograms)),
        clusters=clusters,
        averages=averages,
        stale=stale,
        cards=cards,
        best=_best_resolution(averages),
        fractions=_fractions(run, averages),
        low_pass_angstrom=shelf.low_pass_angstrom,
        flat=shelf.dims == 2,
        origin=_origin(shelf),
        gallery=_gallery(shelf, clusters),
        samples=_sample_cards(shelf, clusters),
        decoded=_optional(run.codes, lambda: decoded_section(run)),
        leakage=None if shelf.dims == 2 else _leakage(run),
        n_shuffles=N_SHUFFLES,
        figures=_figures(run, shelf, clusters, averages),
        plotly_js=Markup(get_plotlyjs()),
    )
    write_text(run.report, page)
    return run.report


def _figures(
    run: RunFolder, shelf: ParticleShelf, clusters: Clusters | None, averages: dict[str, Any] | None
) -> dict[str, Markup]:
    """Every plot the run has files for, as JSON for the page's script."""
    figures: dict[str, go.Figure] = {}
    groups: dict[str, list[str | int]] = {}
    if clusters is not None:
        groups["class"] = [int(label) + 1 for label in clusters.labels]
        if len(clusters.trials) > 1:
            figures["number"] = number_figure(clusters.trials, clusters.n_clusters)
    groups[_origin(shelf)] = list(shelf.particles.tomograms)
    if run.codes.exists():
        codes = load_codes(run).select(shelf.particles.names)
        figures["content"] = codes_figure(codes.content_points, codes.names, groups)
        if codes.transformation_told.shape[1] > 0:
            figures["transformation"] = codes_figure(codes.transformation_points, codes.names, groups)
    if run.log.exists():
        figures["losses"] = loss_figure(pd.read_csv(run.log))
    if averages is not None and (run.averages / "fsc.csv").exists():
        hidden = [row["class"] for row in averages["classes"] if not row["aligned"]]
        figures["fsc"] = fsc_figure(pd.read_csv(run.averages / "fsc.csv"), hidden)
    # "</script" would end the script element that holds the JSON, "<!--<script" would keep it from ending.
    return {name: Markup(figure.to_json().replace("<", "\\u003c")) for name, figure in figures.items()}


def _class_cards(run: RunFolder, clusters: Clusters | None, averages: dict[str, Any] | None) -> list[ClassCard]:
    if clusters is None:
        return []
    rows = {} if averages is None else {row["class"]: row for row in averages["classes"]}
    cards = []
    for label, size in enumerate(clusters.sizes):
        number = label + 1
        row = rows.get(number)
        resolution, slices, surface, quality = "–", "", "", ""
        if row is not None:
            volume = read_volume(run.averages / f"class{number:03d}.mrc")
            resolution = "–" if row["resolution_angstrom"] is None else f"{row['resolution_angstrom']:.1f} Å"
            slices = data_uri(orthoslices_png(volume))
            surface = data_uri(surface_png(volume, class_colour(number))) if row["aligned"] else ""
            picture = run.averages / f"class{number:03d}_quality.png"
            quality = data_uri(picture.read_bytes()) if picture.exists() else ""
        cards.append(
            ClassCard(
                number=number,
                colour=class_colour(number),
                n_particles=size,
                share=size / sum(clusters.sizes),
                confidence=float(clusters.confidence[clusters.labels == label].mean()),
                aligned=None if row is None else row["aligned"],
                resolution=resolution,
                note="" if row is None else row["note"],
                slices=slices,
                surface=surface,
                quality=quality,
                interval=_interval(row),
                coverage=_coverage(row),
            )
        )
    return cards


def _interval(row: dict[str, Any] | None) -> str:
    low, high = (row or {}).get("fraction_interval", (None, None))
    return "" if low is None else f"{100 * low:.1f}–{100 * high:.1f} %"


def _coverage(row: dict[str, Any] | None) -> str:
    if row is None or "fourier_measured" not in row:
        return ""
    return f"{row['fourier_measured']:.0%} of Fourier space measured, efficiency {row['fourier_efficiency']:.2f}"


def _fractions(run: RunFolder, averages: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Rows of fractions.csv, tomogram by tomogram, where there are several tomograms."""
    path = run.averages / "fractions.csv"
    if averages is None or not path.exists():
        return []
    table = pd.read_csv(path, dtype={"tomogram": str}, keep_default_na=False)
    each = [
        {"tomogram": name or "unnamed", "cells": rows.to_dict("records")}
        for name, rows in table.groupby("tomogram", sort=False)
    ]
    return each if len(each) > 2 else []


def _leakage(run: RunFolder) -> LeakageTable | None:
    return _optional(run.codes, lambda: run_leakage(run))


def _best_resolution(averages: dict[str, Any] | None) -> str:
    """Finest resolution of an aligned class, or a dash."""
    rows = [] if averages is None else averages["classes"]
    found = [row["resolution_angstrom"] for row in rows if row["aligned"] and row["resolution_angstrom"] is not None]
    return f"{min(found):.1f} Å" if found else "–"


def _sample_cards(shelf: ParticleShelf, clusters: Clusters | None) -> list[SampleCard]:
    """Particles spread evenly over the classes, as recorded and low-passed; none of those whose image has moved."""
    particles = shelf.particles
    labels = np.full(len(particles), -1) if clusters is None else clusters.labels
    in_class_order = np.argsort(labels, kind="stable")
    places = np.linspace(0, len(particles) - 1, min(_N_SAMPLES, len(particles))).astype(int)
    cards = []
    for row in in_class_order[np.unique(places)]:
        number = int(labels[row]) + 1
        shown = shelf.show(int(row))
        if shown.raw is None or shown.filtered is None:
            continue
        pictures = [data_uri(_picture(voxels, shelf)) for voxels in (shown.raw, shown.filtered)]
        cards.append(
            SampleCard(particles.names[row], particles.tomograms[row], number, class_colour(number), *pictures)
        )
    return cards


def _origin(shelf: ParticleShelf) -> str:
    """What a particle was cut from."""
    return "micrograph" if shelf.dims == 2 else "tomogram"


def _gallery(shelf: ParticleShelf, clusters: Clusters | None) -> str:
    """The surest members of each class of images, a class a row; empty for subtomograms, which are averaged."""
    if clusters is None or shelf.dims == 3:
        return ""
    rows = []
    for label in range(clusters.n_clusters):
        members = np.flatnonzero(clusters.labels == label)
        surest = members[np.argsort(-clusters.confidence[members], kind="stable")[:_N_MEMBERS]]
        images = [shown.raw for shown in map(shelf.show, surest.tolist()) if shown.raw is not None]
        if images:
            rows.append((class_name(label + 1), class_colour(label + 1), images))
    box = shelf.particles.spacing_angstrom * shelf.particles.box_size
    return data_uri(gallery_png(rows, box_angstrom=box)) if rows else ""


def _picture(voxels: NDArray[np.float32], shelf: ParticleShelf) -> bytes:
    """The central slices of a subtomogram, or an image, as a PNG."""
    spacing = shelf.particles.spacing_angstrom
    if shelf.dims == 2:
        return slices_png([("", "#5b6570", voxels)], box_angstrom=spacing * len(voxels))
    return orthoslices_png(Volume(voxels, spacing))


def _sections(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """config.yaml as titled lists of settings; what stands at its top comes first, under ``run``."""
    top = {key: value for key, value in config.items() if not isinstance(value, dict)}
    named = {key: value for key, value in config.items() if isinstance(value, dict)}
    return {
        title: {key.replace("_", " "): _plain(value) for key, value in settings.items()}
        for title, settings in {"run": top, **named}.items()
    }


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return {None: "–", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)


def _optional(path: Path, load: Callable[[], T]) -> T | None:
    return load() if path.exists() else None
