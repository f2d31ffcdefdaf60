import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from cryodc.figures import class_colour, grid_png, maps_png, slices_png, traversal_png
from cryodc.figures.grids import cell_panels


def picture(png: bytes) -> np.ndarray:
    return imread(io.BytesIO(png), format="png")[..., :3]


def places(mask: np.ndarray) -> tuple[float, float]:
    """Down and right, in pixels: the mean place of what is marked."""
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())


def spot(shape: tuple[int, ...], centre: tuple[int, ...], radius: float = 2.5) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(edge) for edge in shape], indexing="ij")
    distance = np.sqrt(sum((axis - place) ** 2 for axis, place in zip(axes, centre, strict=True)))
    return (distance < radius).astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 16), (3, 16, 16), (16, 16, 16)])
def test_a_cell_stands_in_its_row_and_column(shape: tuple[int, ...]) -> None:
    """One dark cell among light ones: its place moves right with the column and down with the row."""
    light = np.random.default_rng(0).uniform(0.6, 1, (2, 3, *shape)).astype(np.float32)
    # So that the grey values of a row do not hang on the dark cell.
    light[..., 0, :] = 0
    light[..., 1, :] = 1
    before = picture(grid_png(light))
    found = {}
    for i in range(2):
        for j in range(3):
            cells = light.copy()
            cells[i, j, ..., 2:, :] = 0
            found[i, j] = places((before - picture(grid_png(cells)) > 0.2).all(axis=-1))
    across = [found[0, j][1] for j in range(3)]
    assert np.diff(across).min() > 90
    np.testing.assert_allclose(np.diff(across)[0], np.diff(across)[1], atol=2)
    assert found[1, 0][0] - found[0, 0][0] == pytest.approx(0.86 * 130, abs=3)
    assert found[0, 2][0] == pytest.approx(found[0, 0][0], abs=1)


def test_volumes_show_their_central_slices_along_z_y_and_x() -> None:
    volume = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    z, y, x = cell_panels(volume, "slices")
    np.testing.assert_array_equal(z, volume[4])
    np.testing.assert_array_equal(y, volume[:, 4])
    np.testing.assert_array_equal(x, volume[:, :, 4])
    np.testing.assert_allclose(cell_panels(volume, "projection")[0], volume.mean(axis=0), rtol=1e-5)
    colour = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(cell_panels(colour, "slices")[0][2, 5], colour[:, 2, 5])


def test_y_runs_upwards() -> None:
    cells = spot((16, 16), (13, 3))[None, None]
    row, column = places(_grey_above(picture(grid_png(cells)), 0.5))
    # The panel begins 0.8 inches from the left and 0.3 from the top.
    assert (column - 0.8 * 130) / 104 * 16 - 0.5 == pytest.approx(3, abs=0.5)
    assert 15.5 - (row - 0.3 * 130) / 104 * 16 == pytest.approx(13, abs=0.5)


def _grey_above(shown: np.ndarray, level: float) -> np.ndarray:
    panel = np.zeros(shown.shape[:2], dtype=bool)
    panel[41:141, 106:206] = True
    return (shown > level).all(axis=-1) & panel


def test_particles_stand_beside_their_row_and_above_their_column() -> None:
    cells = np.zeros((1, 2, 16, 16), np.float32)
    plain = picture(grid_png(cells))
    both = picture(
        grid_png(cells, row_particles=[spot((16, 16), (8, 8))], column_particles=[None, spot((16, 16), (8, 8))])
    )
    assert both.shape[0] - plain.shape[0] == pytest.approx(0.86 * 130, abs=2)
    assert both.shape[1] > plain.shape[1] + 100
    white = (both > 0.9).all(axis=-1)
    top, left, right = 0.3 * 130 + 52, 0.8 * 130 + 52, both.shape[1] - 0.06 * 130 - 52
    assert white[round(top), round(right)]
    assert white[round(top + 0.86 * 130), round(left)]
    assert not white[round(top), round(right) + 40]


def test_what_is_more_than_in_the_middle_is_red_and_what_is_less_is_blue() -> None:
    """A spot that moves to the right: at the last step red is right of blue, at the first left of it."""
    cells = np.stack([spot((16, 16), (8, x)) for x in (4, 8, 12)])
    shown = picture(traversal_png([("axis 1", cells)]))
    below = shown[round((0.3 + 0.86) * 130) :]
    red = (below[..., 0] > below[..., 2] + 0.3) & (below[..., 1] < 0.75)
    blue = (below[..., 2] > below[..., 0] + 0.3) & (below[..., 1] < 0.85)
    edges = np.linspace(1.15 * 130, shown.shape[1], 4).astype(int)
    panels = [slice(edges[j], edges[j + 1]) for j in range(3)]
    assert not red[:, panels[1]].any()
    assert not blue[:, panels[1]].any()
    assert places(red[:, panels[2]])[1] > places(blue[:, panels[2]])[1] + 15
    assert places(red[:, panels[0]])[1] < places(blue[:, panels[0]])[1] - 15


def test_slices_stand_in_the_order_of_z() -> None:
    found = []
    for z in (2, 7, 11):
        volume = np.zeros((16, 16, 16), np.float32)
        volume[z] = 1
        shown = picture(slices_png([("a", "#000000", volume)]))
        inside = (shown > 0.97).all(axis=-1)[10:50, round(1.25 * 130) : -8]
        columns = np.flatnonzero(inside.all(axis=0))
        found.append(np.bincount(columns * 16 // inside.shape[1]).argmax())
    assert found == [2, 7, 11]


def test_maps_have_the_colours_of_classes() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0], [0.2, 0.1]])
    shown = picture(maps_png([[("codes", points)]], [[{"class 3": [0, 2], "class 5": [1]}]]))
    for number, there in ((3, True), (5, True), (1, False)):
        near = np.abs(shown - np.array(to_rgb(class_colour(number)))).max(axis=-1) < 0.05
        assert (near.sum() > 10) == there
