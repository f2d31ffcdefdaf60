"""The interactive plots of the report, as plotly figures; their colours follow the page's light or dark theme."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from cryodc.clustering import SEPARATED
from cryodc.figures.volumes import class_colour
from cryodc.runs import Trial

_LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"}
_ROUND_RESOLUTIONS = (
    1000, 600, 400, 300, 200, 150, 100, 80, 60, 50, 40, 30, 25, 20, 16, 14, 12, 10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3,
    2.5, 2,
)  # fmt: skip


def principal_plane(
    points: Float[NDArray[np.float32], "n dims"],
) -> tuple[Float[NDArray[np.float64], "n 2"], tuple[float, float]]:
    """First two principal components of codes as they are compared, and the share of the variance each explains.

    See :attr:`cryodc.codes.Codes.content_points`. A component that does not exist (one dimension, one particle) is 0.
    """
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(points), 2))
    shares = np.zeros(2)
    total = float((s**2).sum())
    rank = min(2, len(s))
    plane[:, :rank] = u[:, :rank] * s[:rank]
    if total > 0:
        shares[:rank] = s[:rank] ** 2 / total
    return plane, (float(shares[0]), float(shares[1]))


def loss_figure(log: pd.DataFrame) -> go.Figure:
    """One small panel per column of log.csv: the total, each loss term by name, the learning rate."""
    terms = [column for column in log.columns if column not in ("epoch", "seconds")]
    n_columns = 4
    n_rows = -(-len(terms) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[term.replace("_", " ").replace("kl ", "KL ") for term in terms],
        horizontal_spacing=0.07,
        vertical_spacing=0.30 / n_rows,
    )
    few = len(log) < 15
    for i, term in enumerate(terms):
        row, column = i // n_columns + 1, i % n_columns + 1
        figure.add_trace(
            go.Scatter(
                x=log["epoch"],
                y=log[term],
                mode="lines+markers" if few else "lines",
                line={"color": class_colour(1), "width": 1.8},
                marker={"size": 4},
                hovertemplate="epoch %{x}: %{y:.4g}<extra></extra>",
            ),
            row=row,
            col=column,
        )
        if row == n_rows or i + n_columns >= len(terms):
            figure.update_xaxes(title="epoch", row=row, col=column)
    figure.update_layout(height=70 + 190 * n_rows, showlegend=False)
    figure.update_annotations(font={"size": 12.5})
    figure.update_yaxes(nticks=5, exponentformat="power")
    figure.update_xaxes(nticks=6)
    return figure


def fsc_figure(fsc: pd.DataFrame) -> go.Figure:
    """Half-map FSC of each class against resolution, with the line at 0.143.

    Parameters
    ----------
    fsc
        Columns class, shell, frequency_inverse_angstrom, fsc; at least one row.
    """
    figure = go.Figure()
    for number in sorted(int(value) for value in fsc["class"].unique()):
        curve = fsc[fsc["class"] == number]
        frequency = curve["frequency_inverse_angstrom"].to_numpy()
        resolution = [f"{1 / f:.1f} Å" if f > 0 else "DC" for f in frequency]
        figure.add_trace(
            go.Scatter(
                x=frequency,
                y=curve["fsc"],
                mode="lines",
                name=class_name(number),
                line={"color": class_colour(number), "width": 2.2},
                text=resolution,
                hovertemplate="%{text}: %{y:.3f}<extra>%{fullData.name}</extra>",
            )
        )
    highest = float(fsc["frequency_inverse_angstrom"].max())
    figure.add_hline(
        y=0.143, line={"dash": "dash", "width": 1.2, "color": "#8a8a8a"},
        annotation={"text": "0.143", "x": 0, "xanchor": "left", "font": {"size": 12}},
    )  # fmt: skip
    ticks = _resolution_ticks(highest)
    figure.update_xaxes(
        title="resolution, Å", tickvals=[1 / t for t in ticks], ticktext=[f"{t:g}" for t in ticks],
        range=[0, highest],
    )  # fmt: skip
    low = min(-0.05, float(fsc["fsc"].min()) - 0.03)
    figure.update_yaxes(title="FSC", range=[low, 1.03])
    # On a phone a row of the legend names four classes.
    rows = (fsc["class"].nunique() - 1) // 4
    figure.update_layout(height=380 + 19 * rows, showlegend=True, legend=_LEGEND_ABOVE, margin={"t": 44})
    return figure


def number_figure(trials: Sequence[Trial], chosen: int) -> go.Figure:
    """Valley and silhouette of each number of classes with the bounds they are held to, the chosen one marked."""
    tried = [trial for trial in trials if trial.n_clusters > 1]
    counts = [trial.n_clusters for trial in tried]
    lines = (
        ("valley", [trial.valley for trial in tried], [trial.threshold for trial in tried]),
        ("silhouette", [trial.silhouette for trial in tried], [SEPARATED for _ in tried]),
    )
    figure = go.Figure()
    for number, (name, values, bounds) in enumerate(lines, start=1):
        colour = class_colour(number)
        figure.add_scatter(
            x=counts,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 1.5},
            marker={"size": [12 if k == chosen else 6 for k in counts], "color": colour},
            hovertemplate=f"%{{x}} classes: {name} %{{y:.2f}}<extra></extra>",
        )
        figure.add_scatter(
            x=[counts[0] - 0.5, *counts, counts[-1] + 0.5] if counts else [],
            y=[bounds[0], *bounds, bounds[-1]] if counts else [],
            mode="lines",
            line={"color": colour, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_layout(height=260, showlegend=True, legend=_LEGEND_ABOVE, margin={"t": 44})
    figure.update_xaxes(title="number of classes", dtick=1)
    figure.update_yaxes(range=[0, 1.05])
    return figure


def class_name(number: int) -> str:
    """How every picture names a class: ``class 1``; 0 is ``unassigned``."""
    return f"class {number}" if number > 0 else "unassigned"


def _resolution_ticks(highest_frequency: float) -> list[float]:
    """Round resolutions in Å that spread over the frequency axis up to its end."""
    ticks: list[float] = []
    for value in _ROUND_RESOLUTIONS:
        position = 1 / value / highest_frequency
        last = 1 / ticks[-1] / highest_frequency if ticks else 0.0
        if position <= 1.001 and position - last >= 0.08:
            ticks.append(value)
    return ticks
