"""The report: one self-contained HTML page that shows everything a run found."""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import plotly.graph_objects as go
from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cryodc.evaluation import N_SHUFFLES, LeakageTable, run_leakage
from cryodc.figures import (
    ParticlePreviews,
    codes_figure,
    fsc_figure,
    load_previews,
    loss_figure,
    number_figure,
)
from cryodc.io import write_text
from cryodc.report.cards import class_cards, class_gallery, sample_cards
from cryodc.report.decoded import decoded_section
from cryodc.runs import (
    FSC_COLUMNS,
    Clusters,
    RunFolder,
    classes_if_any,
    current_averages,
    load_codes,
    load_config,
    read_table,
)

T = TypeVar("T")


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
    previews = load_previews(run)
    particles = previews.particles
    clusters, found = classes_if_any(run), current_averages(run)
    averages = None if found is None else found.model_dump(by_alias=True)
    stale = found is None and (run.averages / "summary.json").exists()
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("cryodc.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    cards = class_cards(run, clusters, averages)
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
        low_pass_angstrom=previews.low_pass_angstrom,
        flat=previews.dims == 2,
        origin=_origin(previews),
        gallery=class_gallery(previews, clusters),
        samples=sample_cards(previews, clusters),
        decoded=_optional(run.codes, lambda: decoded_section(run)),
        leakage=None if previews.dims == 2 else _leakage(run),
        n_shuffles=N_SHUFFLES,
        figures=_figures(run, previews, clusters, averages),
        plotly_js=Markup(get_plotlyjs()),
    )
    write_text(run.report, page)
    return run.report


def _figures(
    run: RunFolder, previews: ParticlePreviews, clusters: Clusters | None, averages: dict[str, Any] | None
) -> dict[str, Markup]:
    """Every plot the run has files for, as JSON for the page's script."""
    figures: dict[str, go.Figure] = {}
    groups: dict[str, list[str | int]] = {}
    if clusters is not None:
        groups["class"] = [int(label) + 1 for label in clusters.labels]
        if len(clusters.trials) > 1:
            figures["number"] = number_figure(clusters.trials, clusters.n_clusters)
    groups[_origin(previews)] = list(previews.particles.tomograms)
    if run.codes.exists():
        codes = load_codes(run).select(previews.particles.names)
        figures["content"] = codes_figure(codes.content_points, codes.names, groups)
        if codes.transformation_told.shape[1] > 0:
            figures["transformation"] = codes_figure(codes.transformation_points, codes.names, groups)
    if run.log.exists():
        figures["losses"] = loss_figure(read_table(run.log, ("epoch", "seconds", "total"), "cryodc train --resume"))
    if averages is not None and (run.averages / "fsc.csv").exists():
        hidden = [row["class"] for row in averages["classes"] if not row["aligned"]]
        figures["fsc"] = fsc_figure(read_table(run.averages / "fsc.csv", FSC_COLUMNS, "cryodc average"), hidden)
    # "</script" would end the script element that holds the JSON, "<!--<script" would keep it from ending.
    return {name: Markup(figure.to_json().replace("<", "\\u003c")) for name, figure in figures.items()}


def _fractions(run: RunFolder, averages: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Rows of fractions.csv, tomogram by tomogram, where there are several tomograms."""
    path = run.averages / "fractions.csv"
    if averages is None or not path.exists():
        return []
    table = read_table(path, ("class", "n_particles", "fraction", "low", "high"), "cryodc average", ("tomogram",))
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


def _origin(previews: ParticlePreviews) -> str:
    """What a particle was cut from."""
    return "micrograph" if previews.dims == 2 else "tomogram"


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
