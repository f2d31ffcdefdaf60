import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from cryodc.codes import Codes
from cryodc.figures import class_colour, fsc_figure, orthoslices_png, principal_plane, surface_png, surface_threshold
from cryodc.figures.volumes import scale_bar_angstrom
from cryodc.volumes import Volume

# z, y, x of a ball that no rotation or mirror of the box leaves in place.
_PLACE = (22, 12, 27)


@pytest.fixture
def ball() -> Volume:
    axes = np.meshgrid(*[np.arange(36.0)] * 3, indexing="ij")
    radius = np.sqrt(sum((axis - place) ** 2 for axis, place in zip(axes, _PLACE, strict=True)))
    return Volume((radius < 5).astype(np.float32), 10.0)


def panels(png: bytes) -> list[np.ndarray]:
    picture = imread(io.BytesIO(png), format="png")
    edge = picture.shape[0]
    return [picture[:, :edge], picture[:, 306 : 306 + edge], picture[:, 612 : 612 + edge]]


def centre_of(mask: np.ndarray) -> tuple[float, float]:
    """Right and up, in voxels of a box of 36."""
    rows, columns = np.nonzero(mask)
    return columns.mean() * 36 / mask.shape[1] - 0.5, 35.5 - rows.mean() * 36 / mask.shape[0]


def test_slices_have_x_or_y_to_the_right_and_y_or_z_up(ball: Volume) -> None:
    z, y, x = _PLACE
    # Rolled until the ball lies in the central plane that the panel shows.
    for axis, (panel, expected) in enumerate([(0, (x, y)), (1, (x, z)), (2, (y, z))]):
        moved = np.roll(ball.voxels, 18 - _PLACE[axis], axis=axis)
        picture = panels(orthoslices_png(Volume(moved, 10.0)))[panel][..., 0]
        picture[-50:, :110] = picture[:30, :60] = 0  # the scale bar and the letter
        np.testing.assert_allclose(centre_of(picture > 0.5), expected, atol=0.7)


def test_surfaces_lie_where_the_slices_show_the_density(ball: Volume) -> None:
    z, y, x = _PLACE
    for panel, expected in zip(panels(surface_png(ball, class_colour(1))), [(x, y), (x, z), (y, z)], strict=True):
        np.testing.assert_allclose(centre_of(panel[..., 3] > 0.5), expected, atol=0.7)


@pytest.mark.parametrize(("panel", "axis", "near"), [(0, 0, 26), (1, 1, 9), (2, 2, 26)])
def test_the_nearer_of_two_balls_hides_the_other(panel: int, axis: int, near: int) -> None:
    """Seen from high z, low y and high x: so the three axes of each picture are right-handed."""
    axes = np.meshgrid(*[np.arange(36.0)] * 3, indexing="ij")
    pictures = []
    for place, far_radius in ((near, 5), (near, 0)):
        distance = [(axes[i] - (place if i == axis else 18)) ** 2 for i in range(3)]
        behind = [(axes[i] - (35 - place if i == axis else 18)) ** 2 for i in range(3)]
        voxels = (np.sqrt(sum(distance)) < 7) | (np.sqrt(sum(behind)) < far_radius)
        pictures.append(panels(surface_png(Volume(voxels.astype(np.float32), 10.0), class_colour(2)))[panel])
    inner = (slice(110, 190), slice(110, 190))
    np.testing.assert_allclose(pictures[0][inner], pictures[1][inner], atol=0.15)


def test_the_surface_threshold_lies_between_background_and_density(ball: Volume) -> None:
    noisy = ball.voxels + np.random.default_rng(0).normal(0, 0.05, ball.voxels.shape).astype(np.float32)
    threshold = surface_threshold(noisy)
    assert (noisy[ball.voxels == 0] < threshold).mean() > 0.9999
    assert (noisy[ball.voxels == 1] > threshold).all()


@pytest.mark.parametrize("box_angstrom", [24.0, 96.0, 333.0, 1280.0])
def test_the_scale_bar_is_round_and_fits(box_angstrom: float) -> None:
    length = scale_bar_angstrom(box_angstrom)
    assert box_angstrom / 7.6 < length <= box_angstrom / 3
    assert f"{length:.0e}"[0] in "125"


def test_the_first_classes_differ_in_lightness_or_hue_for_every_colour_vision() -> None:
    """Viénot, Brettel & Mollon 1999: what a protanope and a deuteranope see, in linear RGB."""
    rgb = np.array([[int(class_colour(k)[i : i + 2], 16) / 255 for i in (1, 3, 5)] for k in range(1, 9)]) ** 2.2
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for vision in (np.eye(3), protan, deutan):
        seen = np.clip(rgb @ vision.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(8)
        assert apart.min() > 0.14


def as_codes(content: np.ndarray, directional: bool = True) -> Codes:
    names = tuple(str(i) for i in range(len(content)))
    return Codes(names, content, content, content, content, directional)


def test_codes_are_compared_by_direction() -> None:
    generator = np.random.default_rng(1)
    directions = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    codes = directions * generator.uniform(0.1, 30, (60, 1)).astype(np.float32)
    plane, shares = principal_plane(as_codes(codes).content_points)
    assert sum(shares) == pytest.approx(1)
    for group in np.split(plane, 3):
        np.testing.assert_allclose(group, group[:1].repeat(20, axis=0), atol=1e-5)


def test_codes_of_a_model_without_a_contrast_are_compared_as_they_are() -> None:
    content = np.random.default_rng(2).normal(size=(40, 1)).astype(np.float32)
    plane, shares = principal_plane(as_codes(content, directional=False).content_points)
    np.testing.assert_allclose(np.abs(plane[:, 0]), np.abs(content[:, 0] - content.mean()), rtol=1e-4, atol=1e-6)
    assert shares == (pytest.approx(1), 0)


def test_one_particle_has_a_place() -> None:
    plane, shares = principal_plane(np.ones((1, 4), np.float32))
    assert not plane.any()
    assert shares == (0.0, 0.0)


def test_the_fsc_axis_is_labelled_in_angstrom_at_the_frequency_it_means() -> None:
    frequency = np.arange(17) / 320
    fsc = pd.DataFrame({"class": 1, "shell": range(17), "frequency_inverse_angstrom": frequency, "fsc": 1.0})
    axis = fsc_figure(fsc).layout.xaxis
    assert axis.ticktext[-1] == "20"
    np.testing.assert_allclose([1 / value for value in axis.tickvals], [float(text) for text in axis.ticktext])
    assert np.diff(axis.tickvals).min() > 0.07 * frequency[-1]
