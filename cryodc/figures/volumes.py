"""Pictures of volumes, and the one set of class colours that report and viewer share.

Pictures look along z, y and x through the box centre. Rows of the picture run upwards, as in 3dmod and ChimeraX.
Protein is white.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryodc.fourier import low_pass, standardise
from cryodc.io import ImageReference, read_array
from cryodc.particles import read_image
from cryodc.volumes import Volume

# Okabe & Ito 2008, its yellow darkened enough to be seen on white, then Paul Tol's muted set.
_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#E3CF1F", "#882255",
    "#5A4FCF", "#44AA99", "#CC6677", "#999933", "#8A5A2B", "#AA4499",
)  # fmt: skip
_DARKER, _PALER = 0.58, 0.5


def class_colour(class_number: int) -> str:
    """Colour of a class (1-based), the same in every picture; grey for 0, the unassigned.

    From class 15 the colours come again darker, from 29 paler, and from 43 as they were.

    Examples
    --------
    >>> class_colour(1), class_colour(15), class_colour(0)
    ('#0072B2', '#004267', '#7F7F7F')
    """
    if class_number < 1:
        return "#7F7F7F"
    shade, hue = divmod(class_number - 1, len(_COLOURS))
    rgb = np.array(to_rgb(_COLOURS[hue]))
    shades = (rgb, rgb * _DARKER, 1 - (1 - rgb) * _PALER)
    red, green, blue = shades[shade % len(shades)].tolist()
    return to_hex((red, green, blue)).upper()


def orthoslices_png(volume: Volume) -> bytes:
    """The three central slices side by side – along z, y and x – with a scale bar in Å, as a PNG."""
    low, high = np.percentile(volume.voxels, [0.5, 99.95])
    centre = volume.box_size // 2
    slices = [volume.voxels[centre], volume.voxels[:, centre], volume.voxels[:, :, centre]]
    figure = _three_panels(
        slices, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="bicubic", origin="lower"
    )
    _draw_scale_bar(figure, volume)
    for axes, name in zip(figure.axes, "zyx", strict=True):
        axes.text(0.04, 0.95, name, transform=axes.transAxes, va="top", fontsize=7, color="white", alpha=0.8)
    return _png(figure)


def surface_png(volume: Volume, colour: str) -> bytes:
    """The surface at `surface_threshold`, lit from the upper left, seen along z, y and x, as a PNG.

    The background is transparent.
    """
    threshold = surface_threshold(volume.voxels)
    fine = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(volume.voxels))[None, None],
        size=(_FINE, _FINE, _FINE),
        mode="trilinear",
        align_corners=False,
    )[0, 0]
    fine = low_pass(fine, 0.6 * volume.box_size / 2)
    # Seen from the side of high z, of low y and of high x, so that the picture's axes are those of the slices.
    views = (fine, fine.permute(1, 0, 2).flip(0), fine.permute(2, 0, 1))
    panels = [_shade(view.numpy(), threshold, np.array(to_rgb(colour))) for view in views]
    return _png(_three_panels(panels, interpolation="bilinear", origin="lower"))


def surface_threshold(voxels: Float[NDArray[np.float32], "d h w"]) -> float:
    """Grey value of the surface to draw: 40 % of the way from the background to the brightest voxels.

    The background is the median of the box, the brightest 0.2 % of the voxels are skipped.
    """
    background, bright = np.percentile(voxels, [50, 99.8])
    return float(background + 0.4 * (bright - background))


def read_particle(
    image: ImageReference, *, invert: bool, low_pass_voxels: float | None = None, dims: int = 3
) -> Float[NDArray[np.float32], "*image"]:
    """One subtomogram or image, mean 0 and standard deviation 1, protein white; low-passed on request.

    Parameters
    ----------
    image
        Where it lies.
    invert
        Whether the file holds protein black.
    low_pass_voxels
        Finest wavelength kept, in voxels; None keeps all.
    dims
        3 for a subtomogram, 2 for an image of a stack.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    voxels = torch.from_numpy(read_image(image) if dims == 2 else read_array(image).astype(np.float32))
    if invert:
        voxels = -voxels
    if low_pass_voxels is not None:
        voxels = low_pass(voxels, voxels.shape[-1] / low_pass_voxels, dims=dims)
    return standardise(voxels, dims=dims).numpy()


def scale_bar_angstrom(box_angstrom: float) -> float:
    """Round length of a scale bar, at most a third of the box.

    Examples
    --------
    >>> scale_bar_angstrom(320.0)
    100.0
    """
    longest = box_angstrom / 3
    decade = 10.0 ** math.floor(math.log10(longest))
    return max(step * decade for step in (1, 2, 5) if step * decade <= longest)


_FINE = 144


def _shade(voxels: NDArray[np.float32], threshold: float, colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shade the first surface met from the last plane downwards: ``(h, w, 4)`` RGBA."""
    inside: NDArray[np.bool_] = np.greater(voxels[::-1], threshold)
    hit: NDArray[np.bool_] = np.any(inside, axis=0)
    depth = len(voxels) - 1 - inside.argmax(axis=0)
    gradient = np.stack([np.gradient(voxels, axis=axis) for axis in range(3)], axis=-1)
    normal = -np.take_along_axis(gradient, depth[None, :, :, None], axis=0)[0]
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
    light = np.array([0.75, 0.45, -0.48])
    diffuse = np.clip(normal @ light, 0, 1)
    nearness = depth / len(voxels)
    brightness = np.asarray((0.30 + 0.80 * diffuse) * (0.55 + 0.6 * nearness))
    gloss = 0.35 * np.clip(normal @ (light / np.linalg.norm(light)), 0, 1) ** 24
    rgb = np.clip(colour * brightness[..., None] + gloss[..., None], 0, 1)
    # Beside the surface the pixels are unseen, but interpolation mixes their colour into its rim.
    rgb[~hit] = 0.4 * colour
    return np.concatenate([rgb, hit[..., None].astype(float)], axis=-1)


def _three_panels(panels: Sequence[NDArray[np.floating]], **imshow: Any) -> Figure:
    figure = Figure(figsize=(4.56, 1.5), dpi=200)
    figure.patch.set_alpha(0)
    for i, panel in enumerate(panels):
        axes = figure.add_axes((i * 1.53 / 4.56, 0, 1.5 / 4.56, 1))
        axes.set_axis_off()
        axes.imshow(panel, aspect="auto", **imshow)
    return figure


def _draw_scale_bar(figure: Figure, volume: Volume) -> None:
    length = scale_bar_angstrom(volume.box_size * volume.spacing_angstrom)
    share = length / (volume.box_size * volume.spacing_angstrom)
    axes = figure.axes[0]
    axes.plot(
        [0.06, 0.06 + share],
        [0.07, 0.07],
        transform=axes.transAxes,
        color="black",
        lw=3.6,
        solid_capstyle="butt",
    )
    axes.plot(
        [0.06, 0.06 + share],
        [0.07, 0.07],
        transform=axes.transAxes,
        color="white",
        lw=2.2,
        solid_capstyle="butt",
    )
    axes.text(0.06, 0.1, f"{length:g} Å", transform=axes.transAxes, fontsize=6.5, color="white")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()
