import itertools

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from cryodc.clustering import k_medoids, medoids, middle_code, principal_axes, spread_codes
from cryodc.codes import Codes
from cryodc.generate.decode import TransferGrid, decode_codes, transfer_grid, traverse
from cryodc.models import ModelConfig
from cryodc.models.dualcontrast import DualContrast


class ImageModel(nn.Module):
    """A model of images: the outer product of the codes, in as many channels as asked for; 0 for no such axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.Parameter(torch.ones(()))

    def decode(self, content: Tensor, transformation: Tensor) -> Tensor:
        images = self.scale * content[:, :, None] * transformation[:, None, :]
        return images if self.channels == 0 else images[:, None].repeat(1, self.channels, 1, 1)


def some_codes(n: int = 30, seed: int = 0) -> Codes:
    generator = np.random.default_rng(seed)
    content = generator.normal(size=(n, 5)).astype(np.float32) + 1
    transformation = (generator.normal(size=(n, 4)) * [3, 2, 1, 0.2]).astype(np.float32)
    names = tuple(f"{i}.mrc" for i in range(n))
    return Codes(names, content, transformation, np.zeros_like(content), np.zeros_like(transformation))


@pytest.fixture(scope="module")
def model() -> DualContrast:
    torch.manual_seed(3)
    config = ModelConfig(box_size=16, content_dims=5, transformation_dims=4, width=8, max_channels=8, hidden=8)
    return DualContrast(config).eval()


def by_hand(model: DualContrast, content: np.ndarray, transformation: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.decode(torch.from_numpy(content)[None], torch.from_numpy(transformation)[None])[0].numpy()


def test_a_cell_has_the_content_of_its_row_and_the_transformation_of_its_column(model: DualContrast) -> None:
    codes = some_codes()
    grid = transfer_grid(model, codes, [4, 0, 9], [7, 2])
    for i, row in enumerate([4, 0, 9]):
        for j, column in enumerate([7, 2]):
            expected = by_hand(model, codes.content[row], codes.transformation[column])
            np.testing.assert_allclose(grid.cells[i, j], expected, atol=1e-5)


def test_pairs_stay_in_order_across_batches(model: DualContrast) -> None:
    codes = some_codes(7)
    whole = decode_codes(model, codes.content, codes.transformation)
    np.testing.assert_allclose(decode_codes(model, codes.content, codes.transformation, 3), whole, atol=1e-5)


@pytest.mark.parametrize(("channels", "shape"), [(0, (5, 4)), (1, (5, 4)), (3, (3, 5, 4))])
def test_models_of_images_go_the_same_way(channels: int, shape: tuple[int, ...]) -> None:
    codes = some_codes()
    grid = transfer_grid(ImageModel(channels), codes, [1, 2], [3, 4, 5])
    assert grid.cells.shape == (2, 3, *shape)
    expected = np.outer(codes.content[2], codes.transformation[5])
    np.testing.assert_allclose(grid.cells[1, 2], np.broadcast_to(expected, shape), rtol=1e-5)
    found = traverse(ImageModel(channels), codes, n_axes=1, n_steps=3)
    assert found.axes[0].cells.shape == (3, *shape)


def test_shares_of_the_variance_are_those_of_a_two_way_table() -> None:
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(4, 1, 6, 6)) * 3
    columns = generator.normal(size=(1, 5, 6, 6))
    additive = (rows + columns).astype(np.float32)
    by_row, by_column, rest = TransferGrid((0, 1, 2, 3), (0, 1, 2, 3, 4), additive).shares
    total = np.mean([additive[..., y, x].var() for y in range(6) for x in range(6)])
    assert by_row == pytest.approx(
        np.mean([rows[:, 0, y, x].var() for y in range(6) for x in range(6)]) / total, rel=1e-3
    )
    assert by_row + by_column == pytest.approx(1, abs=1e-5)
    assert rest == pytest.approx(0, abs=1e-5)
    crossed = np.array([[1, -1], [-1, 1]], np.float32)[:, :, None, None] * np.ones((4, 4), np.float32)
    assert TransferGrid((0, 1), (0, 1), crossed).shares == pytest.approx((0, 0, 1))
    assert TransferGrid((0,), (0,), np.ones((1, 1, 4, 4), np.float32)).shares == (0, 0, 0)


def test_a_traversal_goes_along_the_axes_of_pca_through_its_scores(model: DualContrast) -> None:
    codes = some_codes(40)
    found = traverse(model, codes, n_axes=2, n_steps=5)
    pca = PCA(2).fit(codes.transformation)
    scores = pca.transform(codes.transformation)
    unit = codes.content / np.linalg.norm(codes.content, axis=1, keepdims=True)
    content = unit.mean(axis=0) / np.linalg.norm(unit.mean(axis=0)) * np.linalg.norm(codes.content, axis=1).mean()
    assert len(found.axes) == 2
    for a, axis in enumerate(found.axes):
        sign = np.sign(axis.axis @ pca.components_[a])
        np.testing.assert_allclose(sign * axis.axis, pca.components_[a], atol=1e-5)
        assert axis.variance_share == pytest.approx(pca.explained_variance_ratio_[a], rel=1e-5)
        np.testing.assert_allclose(
            axis.positions, np.quantile(sign * scores[:, a], [0.05, 0.275, 0.5, 0.725, 0.95]), atol=1e-4
        )
        for position, cell in zip(axis.positions, axis.cells, strict=True):
            along = codes.transformation.mean(axis=0) + position * axis.axis
            expected = by_hand(model, content.astype(np.float32), along.astype(np.float32))
            np.testing.assert_allclose(cell, expected, atol=1e-4)
        assert not axis.differences[2].any()
        np.testing.assert_array_equal(axis.differences[4], axis.cells[4] - axis.cells[2])
        ends = [np.sqrt(((axis.cells[end] - axis.cells[2]) ** 2).mean()) for end in (0, 4)]
        assert axis.change == pytest.approx(max(ends) / axis.cells[2].std(), rel=1e-4)


def test_without_a_middle_there_is_no_traversal(model: DualContrast) -> None:
    with pytest.raises(ValueError, match="odd"):
        traverse(model, some_codes(), n_steps=4)


def test_one_member_has_no_axis(model: DualContrast) -> None:
    codes = some_codes()
    assert traverse(model, codes.select(codes.names[:1])).axes == ()
    axes, shares = principal_axes(np.ones((6, 3), np.float32), 2)
    assert axes.shape == (0, 3)
    assert len(shares) == 0


def unit(codes: np.ndarray) -> np.ndarray:
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def cosine_cost(points: np.ndarray, chosen: tuple[int, ...]) -> float:
    return float(sum(min(1 - points[i] @ points[j] for j in chosen) for i in range(len(points))))


def test_medoids_of_directions_are_least_far_from_their_group_by_cosine() -> None:
    generator = np.random.default_rng(4)
    codes = generator.normal(loc=[2, 0, 0], size=(24, 3)) * generator.uniform(0.1, 9, (24, 1))
    codes = codes.astype(np.float32)
    labels = np.repeat(np.arange(3), 8)
    for label, row in enumerate(medoids(unit(codes), labels)):
        members = np.flatnonzero(labels == label)
        assert row == min(members, key=lambda i: sum(1 - _cosine(codes[i], codes[j]) for j in members))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_k_medoids_finds_the_best_of_all_choices_where_groups_stand_apart() -> None:
    generator = np.random.default_rng(5)
    sizes = (7, 5, 3)
    centres = np.repeat(np.eye(3) * 4, sizes, axis=0)
    codes = unit((centres + generator.normal(size=centres.shape) * 0.4).astype(np.float32))
    best = min(itertools.combinations(range(15), 3), key=lambda chosen: cosine_cost(codes, chosen))
    for seed in range(5):
        chosen, labels = k_medoids(codes, 3, seed=seed)
        assert tuple(sorted(chosen.tolist())) == best
        assert np.bincount(labels).tolist() == list(sizes)
        assert labels[chosen].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="1 to 15"):
        k_medoids(codes, 16)


def test_alike_codes_are_one_group() -> None:
    chosen, labels = k_medoids(np.ones((6, 3), np.float32), 3)
    assert len(chosen) == 1
    assert not labels.any()


def test_spread_codes_are_each_the_farthest_from_those_before_but_no_outlier() -> None:
    codes = np.random.default_rng(6).normal(size=(60, 2)).astype(np.float32)
    codes[17] = (90, 90)
    chosen = spread_codes(codes, 5, seed=1).tolist()
    assert 17 not in chosen
    beyond = np.linalg.norm(codes - codes.mean(axis=0), axis=1)
    central = [i for i in range(60) if beyond[i] <= np.sort(beyond)[53]]
    for k in range(1, 5):
        distances = [min(np.linalg.norm(codes[i] - codes[j]) for j in chosen[:k]) for i in central]
        assert chosen[k] == central[int(np.argmax(distances))]
    assert spread_codes(codes, 5, seed=1).tolist() == chosen
    assert len({tuple(spread_codes(codes, 5, seed=seed).tolist()) for seed in range(6)}) > 1
    assert len(spread_codes(np.ones((4, 2), np.float32), 3)) == 1


def test_the_middle_of_directions_does_not_hang_on_long_codes() -> None:
    codes = np.array([[1, 0], [0, 3]], np.float32)
    middle = middle_code(codes, directional=True)
    np.testing.assert_allclose(middle, 2 * np.array([1, 1]) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(middle_code(codes, directional=False), [0.5, 1.5])


def test_medoids_of_points_are_found_by_distance_not_direction() -> None:
    points = np.array([[1, 0], [2, 0], [9, 0], [1, 1], [5, 5], [6, 6]], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1])
    brute = [
        min(rows, key=lambda i, rows=rows: sum(((points[i] - points[j]) ** 2).sum() for j in rows))
        for rows in ([0, 1, 2], [3, 4, 5])
    ]
    assert medoids(points, labels).tolist() == brute
