"""Pictures of how good an average is: FSC, coverage of Fourier space, and from where its particles were seen."""

import io

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryodc.fourier import HalfMapFsc, shell_frequencies
from cryodc.maps.coverage import Coverage

_KERNEL_DEGREES = 12.0
_MOST_POINTS = 1000
_INK, _SOFT = "#1b1f24", "#8c8c8c"


def quality_png(
    curves: HalfMapFsc,
    coverage: Coverage,
    directions: Float[NDArray[np.float64], "n 3"],
    spacing_angstrom: float,
) -> bytes:
    """Four panels: FSC curves, coverage of the shells, coverage along the plane k_y = 0, view directions.

    Parameters
    ----------
    curves, coverage
        Of the class.
    directions
        ``(n, 3)`` zyx unit vectors in the frame of the reference.
    spacing_angstrom
        Of the average.
    """
    figure = Figure(figsize=(11.4, 2.9), dpi=130)
    frequency = shell_frequencies(2 * (len(curves.masked) - 1), spacing_angstrom)
    axes = figure.add_axes((0.045, 0.17, 0.235, 0.70))
    for name, values, colour, width, dash in (
        # The masked curve runs along the corrected one: thin, and over it.
        ("corrected", curves.corrected, _INK, 2.6, "-"),
        ("masked", curves.masked, "#56B4E9", 1.0, "-"),
        ("unmasked", curves.unmasked, _SOFT, 1.2, "-"),
        ("phases random", curves.randomised, "#D55E00", 1.2, "--"),
    ):
        axes.plot(frequency[1:], values[1:], label=name, color=colour, lw=width, ls=dash)
    axes.axhline(0.143, color=_SOFT, lw=0.8, ls=":")
    axes.set_ylim(min(-0.1, float(curves.corrected.min()) - 0.05), 1.05)
    axes.legend(fontsize=6.5, frameon=False, loc="best")
    _label(axes, "FSC of the half maps", frequency)
    axes = figure.add_axes((0.325, 0.17, 0.20, 0.70))
    inside = slice(1, len(frequency) - 1)
    axes.plot(frequency[inside], coverage.measured[inside], color="#0072B2", lw=1.8, label="measured by ≥ 1")
    axes.plot(frequency[inside], coverage.efficiency[inside], color="#009E73", lw=1.8, label="efficiency")
    axes.plot(frequency[inside], coverage.evenness[inside], color="#CC79A7", lw=1.2, label="least / largest")
    axes.set_ylim(-0.02, 1.05)
    axes.legend(fontsize=6.5, frameon=False, loc="best")
    _label(axes, "Fourier coverage of each shell", frequency)
    axes = figure.add_axes((0.540, 0.17, 0.175, 0.70))
    _draw_plane(figure, axes, coverage)
    axes = figure.add_axes((0.775, 0.12, 0.215, 0.76), projection="mollweide")
    _draw_directions(figure, axes, directions)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def direction_density(
    directions: Float[NDArray[np.float64], "n 3"], at: Float[NDArray[np.float64], "m 3"]
) -> Float[NDArray[np.float64], " m"]:
    """Density of directions at points of the sphere, smoothed by 12°; 1 everywhere were they even.

    A von Mises–Fisher kernel. Vectors are of unit length.
    """
    kappa = 1 / np.radians(_KERNEL_DEGREES) ** 2
    # The kernel's mean over the sphere is (1 − exp(−2κ)) / 2κ.
    norm = 2 * kappa / (1 - np.exp(-2 * kappa))
    total = np.zeros(len(at))
    for start in range(0, len(directions), 2000):
        cosine = at @ directions[start : start + 2000].T
        total += np.exp(kappa * (cosine - 1)).sum(axis=1)
    return norm * total / max(1, len(directions))


def _draw_plane(figure: Figure, axes: Axes, coverage: Coverage) -> None:
    voxels = coverage.volume.cpu().numpy()
    plane = voxels[:, len(voxels) // 2, :]
    image = axes.imshow(plane, origin="lower", cmap="viridis", vmin=0, vmax=max(1e-6, float(np.quantile(plane, 0.995))))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("$k_x$", fontsize=7, labelpad=2)
    axes.set_ylabel("$k_z$", fontsize=7, labelpad=1)
    axes.set_title("Share of particles, $k_y$ = 0", fontsize=8.5)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03).ax.tick_params(labelsize=6)


def _draw_directions(figure: Figure, axes: Axes, directions: NDArray[np.float64]) -> None:
    longitude, latitude = np.linspace(-np.pi, np.pi, 91), np.linspace(-np.pi / 2, np.pi / 2, 46)
    lon, lat = np.meshgrid((longitude[1:] + longitude[:-1]) / 2, (latitude[1:] + latitude[:-1]) / 2)
    at = np.stack([np.sin(lat), np.cos(lat) * np.sin(lon), np.cos(lat) * np.cos(lon)], axis=-1).reshape(-1, 3)
    density = direction_density(directions, at).reshape(lon.shape)
    image = axes.pcolormesh(longitude, latitude, density, cmap="viridis", vmin=0, vmax=max(2.0, float(density.max())))
    if len(directions) <= _MOST_POINTS:
        z, y, x = directions.T
        axes.scatter(np.arctan2(y, x), np.arcsin(z.clip(-1, 1)), s=3, color="white", alpha=0.6, linewidths=0)
    axes.grid(visible=True, color="white", alpha=0.25, lw=0.4)
    axes.set_xticklabels([])
    axes.set_yticks(np.radians([-60, -30, 0, 30, 60]))
    axes.tick_params(labelsize=6)
    axes.set_title("View directions, density (even = 1)", fontsize=8.5, pad=6)
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.05, pad=0.06, shrink=0.7)
    bar.ax.tick_params(labelsize=6)


def _label(axes: Axes, title: str, frequency: NDArray[np.float64]) -> None:
    axes.set_title(title, fontsize=8.5)
    axes.set_xlim(0, frequency[-1])
    ticks = np.linspace(0, frequency[-1], 6)[1:]
    axes.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    axes.set_xlabel("resolution, Å", fontsize=7, labelpad=2)
    axes.tick_params(labelsize=6.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
