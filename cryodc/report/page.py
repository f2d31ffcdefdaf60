"""The report: one self-contained HTML page that shows everything a run found."""

from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cryodc.evaluation import N_SHUFFLES, run_leakage
from cryodc.figures import ParticlePreviews, fsc_figure, load_previews, loss_figure, number_figure
from cryodc.io import write_text
from cryodc.report.cards import class_cards, class_gallery, sample_cards
from cryodc.report.decoded import decoded_section
from cryodc.report.embed import packed
from cryodc.report.findings import describe
from cryodc.report.points import Points, make_points
from cryodc.runs import (
    FSC_COLUMNS,
    Clusters,
    RunFolder,
    classes_if_any,
    current_averages,
    current_states,
    fingerprint_of_shown,
    load_codes,
    load_config,
    read_table,
)
from cryodc.templates import templates_left_out

_MANY = 12
"""Above so many classes the table scrolls within itself, cards fold their curves, and links lead to each card."""


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
    tomograms = list(previews.particles.tomograms)
    clusters, found, states = classes_if_any(run), current_averages(run), current_states(run)
    averages = None if found is None else found.model_dump(by_alias=True)
    stale = found is None and (run.averages / "summary.json").exists()
    flat = previews.dims == 2
    decoded = decoded_section(run) if run.codes.exists() else None
    leakage = run_leakage(run) if run.codes.exists() and not flat else None
    made_of = fingerprint_of_shown(run)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _part("report.html.jinja")
    )
    page = template.render(
        title=" / ".join(run.path.resolve().parts[-2:]),
        made_of=made_of,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        config=config,
        sections=_sections(config),
        findings=describe(
            run,
            tomograms,
            previews.particles.spacing_angstrom,
            clusters,
            averages,
            states,
            leakage,
            flat=flat,
            stale=stale,
            of_training=[told for told in (_without_templates(run), decoded and decoded.nothing_learned) if told],
        ),
        clusters=clusters,
        averages=averages,
        stale=stale,
        cards=class_cards(run, clusters, averages, states),
        many=clusters is not None and clusters.n_clusters > _MANY,
        fractions=_fractions(run, averages),
        low_pass_angstrom=previews.low_pass_angstrom,
        flat=flat,
        origin="micrograph" if flat else "tomogram",
        gallery=class_gallery(previews, clusters),
        samples=sample_cards(previews, clusters),
        decoded=decoded,
        leakage=leakage,
        n_shuffles=N_SHUFFLES,
        points=_points(run, clusters, previews),
        figures=_figures(run, clusters, averages),
        plotly=packed(get_plotlyjs().encode("utf-8")),
        css=Markup(_part("report.css")),
        scripts=[Markup(_part(f"{name}.js")) for name in ("page", "surface", "points")],
    )
    write_text(run.report, page)
    return run.report


def _without_templates(run: RunFolder) -> str:
    why = templates_left_out(run)
    return f"{why[0].upper()}{why[1:]}." if why else ""


def _part(name: str) -> str:
    return files("cryodc.report").joinpath(name).read_text(encoding="utf-8")


def _points(run: RunFolder, clusters: Clusters | None, previews: ParticlePreviews) -> Points | None:
    if not run.codes.exists():
        return None
    return make_points(run, load_codes(run).select(previews.particles.names), clusters, previews)


def _figures(run: RunFolder, clusters: Clusters | None, averages: dict[str, Any] | None) -> dict[str, Markup]:
    """Every plot the run has files for, as JSON for the page's script; none that would be empty."""
    figures: dict[str, go.Figure] = {}
    if clusters is not None and any(trial.n_clusters > 1 for trial in clusters.trials):
        figures["number"] = number_figure(clusters.trials, clusters.n_clusters)
    if run.log.exists():
        figures["losses"] = loss_figure(read_table(run.log, ("epoch", "seconds", "total"), "cryodc train --resume"))
    if averages is not None and (run.averages / "fsc.csv").exists():
        curves = read_table(run.averages / "fsc.csv", FSC_COLUMNS, "cryodc average")
        aligned = [row["class"] for row in averages["classes"] if row["aligned"]]
        curves = curves[curves["class"].isin(aligned) & np.isfinite(curves["fsc"])]
        if len(curves):
            figures["fsc"] = fsc_figure(curves)
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
