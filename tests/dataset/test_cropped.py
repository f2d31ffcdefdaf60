"""A network at a smaller box than the particles': what it is shown, and what it decodes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import shift as scipy_shift

from cryodc.dataset import SubtomogramDataset, ViewConfig, at_box, load_dataset
from cryodc.errors import InputError
from cryodc.fourier import crop_weights, fourier_crop, fourier_pad
from cryodc.generate.decode import AtBox
from cryodc.models import build_model, preset_config
from cryodc.models.presets import network_box
from cryodc.particles import read_particles
from cryodc.runs import RunFolder
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
from cryodc.training import encode_particles, train
from tests.simulated import centred_blobs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SubtomogramDataset:
    """Six particles of box 32."""
    folder = tmp_path_factory.mktemp("particles")
    config = SimulationConfig(n_per_map=3, box_size=32, spacing_angstrom=10.0)
    write_simulation(choose_proteins(["bilobe", "clamp"], []), config, folder)
    return load_dataset(read_particles(folder / "particles.star"))


def blob(box: int, width: float) -> torch.Tensor:
    return centred_blobs(torch.zeros(1, 3), box, width)


def test_padding_interpolates_between_the_voxels() -> None:
    coarse = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    fine = fourier_pad(coarse, 16)
    torch.testing.assert_close(fine[:, ::2, ::2, ::2], coarse)
    assert fourier_pad(coarse, 8) is coarse


@pytest.mark.parametrize("box", [22, 24, 32])
def test_padding_keeps_the_centre_and_the_grey_values_of_a_smooth_blob(box: int) -> None:
    torch.testing.assert_close(fourier_pad(blob(20, 2.0), box), blob(box, 2.0 * box / 20), atol=1e-3, rtol=0)


def test_padding_undoes_cropping_below_nyquist() -> None:
    moved = torch.from_numpy(scipy_shift(blob(32, 4.0).numpy(), (1.3, -0.7, 0.4)))
    torch.testing.assert_close(fourier_pad(fourier_crop(moved, 20), 32), moved, atol=2e-3, rtol=0)


def test_a_dataset_at_a_smaller_box_is_its_particles_cropped_with_their_weights(dataset: SubtomogramDataset) -> None:
    small, views = at_box(dataset, ViewConfig(max_shift_voxels=2.0), 12)
    assert (small.box_size, len(small), small.names) == (12, len(dataset), dataset.names)
    assert views.max_shift_voxels == 2.0 * 12 / dataset.box_size
    rows = torch.tensor([4, 1])
    (whole, weights), (volumes, cropped) = dataset.batch(rows), next(small.batches([rows]))
    assert cropped is not None
    torch.testing.assert_close(cropped, crop_weights(weights, 12))
    for given, seen in zip(whole, volumes, strict=True):
        expected = fourier_crop(given, 12).numpy()
        assert np.corrcoef(expected.ravel(), seen.numpy().ravel())[0, 1] == pytest.approx(1, abs=1e-6)
        assert (float(seen.mean()), float(seen.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)
    assert at_box(dataset, views, dataset.box_size) == (dataset, views)


@pytest.mark.parametrize("shells", [(3.0, 9.0), (2.0, 7.5), (3.0, 11.0)])
def test_the_network_holds_every_shell_that_views_show(shells: tuple[float, float]) -> None:
    box = network_box(64, ViewConfig(low_pass_shells=shells))
    assert box % 2 == 0
    assert shells[1] <= box // 2 - 1 < shells[1] + 1


def test_box_of_the_network_follows_from_the_views_unless_it_is_given() -> None:
    assert preset_config("default", 64).model.box_size == 20
    assert preset_config("default", 18).model.box_size == 18
    assert preset_config("default", 64, {"model": {"box_size": 32}}).model.box_size == 32
    assert preset_config("default", 64, {"views": {"low_pass_shells": None}}).model.box_size == 64
    assert preset_config("default", 28, {"model": {"dims": 2}}).model.box_size == 28
    assert preset_config("paper", 32).model.box_size == 32


def test_what_is_beyond_the_box_of_the_network_changes_no_code(dataset: SubtomogramDataset, tmp_path: Path) -> None:
    config = preset_config("default", 32, {"model": {"width": 8, "max_channels": 16}, "optimisation": {"epochs": 1}})
    model = train(dataset, config, RunFolder(tmp_path))
    assert model.config.box_size == 20
    checkered = torch.tensor([1.0, -1.0]).repeat(16)
    other = 0.5 * checkered[:, None, None] * checkered[None, :, None] * checkered
    spoiled = type(dataset)(dataset.particles, dataset.volumes[:] + other, dataset.weights, dataset.weight_index)
    before, after = (encode_particles(model, given, config.views, n_views=2) for given in (dataset, spoiled))
    np.testing.assert_allclose(after.content, before.content, atol=1e-4)
    np.testing.assert_allclose(after.transformation, before.transformation, atol=1e-4)


def test_a_network_larger_than_the_particles_is_an_error(dataset: SubtomogramDataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not of the shape"):
        train(dataset, preset_config("paper", 64), RunFolder(tmp_path))


def test_decoded_volumes_have_the_box_of_the_particles() -> None:
    torch.manual_seed(0)
    model = build_model(preset_config("default", 32, {"model": {"width": 8, "max_channels": 16}}).model).eval()
    content, transformation = torch.randn(2, 32), torch.randn(2, 16)
    decoded = AtBox(model, 32).decode(content, transformation)
    assert decoded.shape == (2, 32, 32, 32)
    torch.testing.assert_close(fourier_pad(model.decode(content, transformation), 32), decoded)
