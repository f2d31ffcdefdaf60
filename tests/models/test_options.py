from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryodc.dataset import View, ViewConfig, image_dataset, mask_of_views, random_view, through_mask
from cryodc.dataset.views import cut_out, draw_elastic_fields
from cryodc.errors import InputError
from cryodc.fourier import standardise, view_mask
from cryodc.geometry import resample
from cryodc.models import Batch, Gaussian, ModelConfig, beta, preset_config
from cryodc.models.dualcontrast import DualContrast, step_a_terms, steps
from cryodc.models.losses import content_infonce
from cryodc.models.networks import BlurPool, Upsampling, make_trunk, make_upsampling
from cryodc.runs import RunFolder
from cryodc.training import encode_particles, load_model, start_state, train

BOX = 16
SMALL = {"dims": 2, "width": 8, "max_channels": 16, "hidden": 16}


def noise_images(n: int = 9, seed: int = 0, channels: int | None = None) -> torch.Tensor:
    shape = [n, *([] if channels is None else [channels]), BOX, BOX]
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", [2, 3])
def test_blur_pool_is_a_binomial_filter_before_every_second_voxel(dims: int) -> None:
    features = torch.randn(2, 3, *[9] * dims, generator=torch.Generator().manual_seed(0))
    found = BlurPool(3, dims)(features).numpy()
    padded = np.pad(features.numpy(), [(0, 0), (0, 0), *[(1, 1)] * dims])
    for axis in range(2, 2 + dims):
        n = padded.shape[axis]
        before, at, after = (padded.take(range(s, n - 2 + s), axis=axis) for s in range(3))
        padded = (before + 2 * at + after) / 4
    np.testing.assert_allclose(found, padded[(..., *[slice(None, None, 2)] * dims)], atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_upsampling_repeats_voxels_and_convolves(dims: int) -> None:
    layer = Upsampling(3, 5, dims)
    features = torch.randn(2, 3, *[5] * dims, generator=torch.Generator().manual_seed(0))
    convolve = torch.nn.functional.conv2d if dims == 2 else torch.nn.functional.conv3d
    repeated = torch.nn.functional.interpolate(features, scale_factor=2, mode="nearest")
    expected = convolve(repeated, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(features), expected, atol=1e-5, rtol=1e-5)


def test_even_and_odd_voxels_of_what_is_flat_are_decoded_alike_unless_a_preset_is_published() -> None:
    flat = torch.ones(1, 8, 6, 6, 6)
    spread = {}
    for preset in ("default", "paper"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layer = make_upsampling(8, 1, preset_config(preset, 16).model)
        spread[preset] = float(layer(flat)[..., 2:-2, 2:-2, 2:-2].detach().std())
    assert spread["default"] < 1e-5
    assert spread["paper"] > 0.01


def test_blurred_features_move_less_under_a_shift() -> None:
    wave = torch.cos(torch.arange(16) * torch.pi)[None, None, None].expand(1, 8, 16, -1)
    inner = (..., slice(1, -1), slice(1, -1))
    strided = wave[..., ::2, ::2] - wave.roll(1, -1)[..., ::2, ::2]
    blurred = (BlurPool(8, 2)(wave) - BlurPool(8, 2)(wave.roll(1, -1)))[inner]
    assert strided.abs().max() == 2
    assert blurred.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "n_convolutions"),
    [({}, 4), ({"first_stride": 1}, 5), ({"blocks_per_level": 2}, 7), ({"downsampling": "blur"}, 4)],
)
@pytest.mark.parametrize("dims", [2, 3])
def test_an_encoder_variant_keeps_the_size_of_its_features(
    dims: int, options: dict[str, object], n_convolutions: int
) -> None:
    trunk = make_trunk(ModelConfig(box_size=18, **{**SMALL, "dims": dims}, **options))
    # 18 → 9 → 5 → 3 takes three halvings, and one convolution follows.
    found = trunk(torch.randn(2, 1, *[18] * dims, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (2, 16, *[3] * dims)
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d)
    assert sum(isinstance(layer, kinds) for layer in trunk.modules()) == n_convolutions


def test_kl_warms_up() -> None:
    config = preset_config("default", BOX, {"loss": {"kl_warm_up_epochs": 4, "kl_weight": 2.0}})
    risen = [beta(config, epoch) * BOX**3 / 2 for epoch in range(6)]
    assert risen == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert beta(preset_config("default", BOX), 0) == pytest.approx(0.1 / BOX**3)


def test_averaged_weights_are_the_running_mean(tmp_path: Path) -> None:
    config = preset_config("default", BOX, {"model": SMALL, "optimisation": {"ema_decay": 0.9}})
    state = start_state(config, 1, 0, torch.device("cpu"))
    assert state.average is not None
    first = next(state.model.parameters()).detach().clone()
    expected = first.clone()
    for step in range(3):
        with torch.no_grad():
            next(state.model.parameters()).fill_(step)
        state.update_average()
        expected = 0.9 * expected + 0.1 * step
    torch.testing.assert_close(next(state.encoding_model.parameters()).detach(), expected)


def test_particles_are_encoded_with_averaged_weights_and_resuming_keeps_them(tmp_path: Path) -> None:
    dataset = image_dataset(noise_images())
    settings = {"epochs": 3, "batch_size": 4, "ema_decay": 0.5}
    configs = [
        preset_config("default", BOX, {"model": SMALL, "optimisation": {**settings, "epochs": epochs}})
        for epochs in (3, 1)
    ]
    # The default schedule depends on the number of epochs; a constant one does not.
    configs = [
        c.model_copy(update={"optimisation": c.optimisation.model_copy(update={"schedule": "constant"})})
        for c in configs
    ]
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    averaged = train(dataset, configs[0], whole)
    train(dataset, configs[1], broken)
    resumed = train(dataset, configs[0], broken, resume=True)
    loaded, _ = load_model(whole.checkpoints / "last.pt")
    saved = torch.load(whole.checkpoints / "last.pt", weights_only=True)["model"]
    for name, value in averaged.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
        assert torch.equal(value, loaded.state_dict()[name])
    assert any(not torch.equal(value, saved[name]) for name, value in averaged.named_parameters())


def test_a_hidden_block_has_its_share_and_its_place_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    images = noise_images(40, channels=3)
    mask = torch.ones(BOX, BOX)
    seen = cut_out(images, mask, ViewConfig(cutout_share=0.25), generator)
    hidden = (seen != images).all(dim=1)
    assert (hidden.sum(dim=(1, 2)) == BOX**2 // 4).all()
    assert len({tuple(block.nonzero()[0].tolist()) for block in hidden}) > 5
    for block, image, original in zip(hidden, seen, images, strict=True):
        rows, columns = block.any(dim=1), block.any(dim=0)
        assert torch.equal(block, rows[:, None] & columns)
        torch.testing.assert_close(image[:, block], original.mean().expand(3, int(block.sum())))


def test_fresh_noise_is_another_in_each_view_and_not_in_the_target() -> None:
    config = ViewConfig(rotation="vector", max_shift_voxels=0, low_pass_shells=None, fresh_noise=2.0)
    flat = torch.ones(BOX, BOX)
    y = torch.arange(BOX) - BOX // 2
    ball = torch.exp(-(y[:, None] ** 2 + y**2) / 30.0).expand(50, -1, -1)
    view = random_view(ball, None, flat, config, torch.Generator().manual_seed(0))
    clean = view.target
    # Noise of twice the signal's spread: their share of the variance is 1 / (1 + 4).
    correlations = torch.stack([(a * b).mean() for a, b in zip(view.volumes, clean, strict=True)])
    assert float(correlations.mean()) == pytest.approx(1 / 5**0.5, abs=0.05)
    residual = view.volumes - view.volumes.mean(0)
    assert float((residual[0] * residual[1]).mean()) == pytest.approx(0, abs=0.15)


def test_a_stretched_view_keeps_a_blob_in_place_and_changes_its_axes() -> None:
    y = torch.arange(32) - 16
    disc = torch.exp(-(y[:, None] ** 2 + y**2) / 18.0).expand(60, -1, -1)
    settings = {"rotation": "vector", "max_shift_voxels": 0, "low_pass_shells": None}
    ratios = []
    for stretch in (0.0, 0.3):
        config = ViewConfig(stretch=stretch, **settings)
        view = random_view(disc, None, torch.ones(32, 32), config, torch.Generator().manual_seed(0))
        mass = view.target - view.target.amin(dim=(1, 2), keepdim=True)
        mass = mass / mass.sum(dim=(1, 2), keepdim=True)
        points = torch.stack(torch.meshgrid(y, y, indexing="ij")).float().reshape(2, -1)
        assert (mass.flatten(1) @ points.T).abs().amax() < 0.1
        widths = torch.linalg.eigvalsh(torch.einsum("bn,in,jn->bij", mass.flatten(1), points, points))
        ratios.append((widths[:, 1] / widths[:, 0]).sqrt())
    assert ratios[0].amax() < 1.03
    # A matrix exponential with entries up to 0.3 stretches one axis against the other by at most exp(1.2).
    assert 1.1 < ratios[1].mean() < ratios[1].amax() < 3.33


def test_a_bent_view_moves_points_by_the_asked_distance_and_neighbours_together() -> None:
    coordinates = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 2, indexing="ij"))
    images = coordinates.expand(200, -1, -1, -1).reshape(400, 32, 32)
    bends = torch.stack([torch.zeros(32, 32), torch.ones(32, 32)], dim=-1).expand(400, -1, -1, -1)
    eye = torch.eye(2).expand(400, -1, -1)
    inside = (..., slice(2, -2), slice(2, -2))
    moved = resample(images, eye, displacements_voxels=bends)[inside] - images[inside]
    torch.testing.assert_close(moved[0::2], torch.zeros_like(moved[0::2]), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[1::2], torch.ones_like(moved[1::2]), atol=1e-4, rtol=0)
    config = ViewConfig(elastic_voxels=1.5)
    drawn = draw_elastic_fields(200, config, torch.Generator().manual_seed(0), torch.ones(32, 32))
    nodes = drawn[:, [0, -1]][:, :, [0, -1]]
    assert float(nodes.std()) == pytest.approx(1.5, rel=0.08)
    steps = (drawn[:, 1:] - drawn[:, :-1]).abs()
    assert float(steps.mean()) < 0.3


@pytest.mark.parametrize("exchanged", [False, True])
def test_exchanged_contents_leave_the_pose_to_the_transformation_code(
    exchanged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = preset_config("default", BOX, {"model": SMALL, "loss": {"exchange_contents": exchanged}})
    model = DualContrast(config.model).eval()
    views = [View(image, image, None) for image in noise_images(8).split(4)]
    codes = [model.encode(view.volumes) for view in views]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def decode(content: torch.Tensor, transformation: torch.Tensor) -> torch.Tensor:
        seen.append((content, transformation))
        return DualContrast.decode(model, content, transformation)

    monkeypatch.setattr(Gaussian, "sample", lambda self, generator=None: self.mean)
    monkeypatch.setattr(model, "decode", decode)
    batch = Batch(noise_images(4), None, torch.ones(BOX, BOX), 0, 0)
    step_a_terms(model, batch, (views[0], views[1]), config, torch.Generator())
    contents = codes[::-1] if exchanged else codes
    for (content, transformation), wanted, own in zip(seen, contents, codes, strict=True):
        torch.testing.assert_close(content, wanted.content.mean)
        torch.testing.assert_close(transformation, own.transformation.mean)


def test_views_contrasted_apart_are_the_only_ones_that_are_bent(monkeypatch: pytest.MonkeyPatch) -> None:
    views = {"stretch": 0.3, "elastic_voxels": 1.0, "rotation": "vector", "low_pass_shells": None}
    overrides = {"model": {**SMALL, "dims": 2}, "views": views, "loss": {"contrast_apart": True, "temperature": 0.3}}
    config = preset_config("default", BOX, overrides)
    model = DualContrast(config.model).eval()
    batch = Batch(noise_images(4), None, torch.ones(BOX, BOX), 0, 0)
    drawn: list[tuple[float, float, View]] = []

    def draw(*arguments: Any) -> View:
        view = random_view(*arguments)
        drawn.append((arguments[3].stretch, arguments[3].elastic_voxels, view))
        return view

    monkeypatch.setattr("cryodc.models.steps.random_view", draw)
    terms = next(steps(model, batch, config, torch.Generator().manual_seed(0))).terms
    assert sorted((stretch, bend) for stretch, bend, _ in drawn) == [(0.0, 0.0)] * 2 + [(0.3, 1.0)] * 2
    bent = [model.encode(view.volumes).content.mean for stretch, _, view in drawn if stretch > 0]
    expected = content_infonce(*bent, 0.3)
    torch.testing.assert_close(terms["content"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("joint_units", [0, 24])
def test_joint_layers_let_one_code_turn_what_the_other_says(joint_units: int) -> None:
    """Projections that are added move features by the same vector whatever the content; joint layers do not."""
    torch.manual_seed(0)
    config = preset_config("default", BOX, {"model": {**SMALL, "joint_units": joint_units}}).model
    decoder = DualContrast(config).decoder
    c, z = torch.randn(2, 1, config.content_dims), torch.randn(2, 1, config.transformation_dims)
    features = [[decoder.joint(decoder.from_content(a) + decoder.from_transformation(b)) for b in z] for a in c]
    moved = [of_content[1] - of_content[0] for of_content in features]
    assert torch.allclose(*moved, atol=1e-5) == (joint_units == 0)
    assert decoder(c[0], z[0]).shape[-1] == BOX


@pytest.mark.parametrize("dims", [2, 3])
def test_a_view_that_is_neither_turned_nor_moved_is_the_particle(dims: int) -> None:
    images = torch.randn(3, *[BOX] * dims, generator=torch.Generator().manual_seed(0))
    config = ViewConfig(rotation="none", max_shift_voxels=0.0, low_pass_shells=None, masked=False)
    mask = mask_of_views(config, BOX, dims=dims)
    view = random_view(images, None, mask, config, torch.Generator().manual_seed(1))
    torch.testing.assert_close(view.volumes, standardise(images, dims=dims), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_without_a_mask_views_show_their_corners(dims: int) -> None:
    images = torch.randn(4, *[BOX] * dims, generator=torch.Generator().manual_seed(0))
    corners = []
    for masked in (True, False):
        config = ViewConfig(rotation="none", max_shift_voxels=0.0, low_pass_shells=None, masked=masked)
        seen = random_view(images, None, mask_of_views(config, BOX, dims=dims), config, torch.Generator()).volumes
        corners.append(float(seen[(..., *[-1] * dims)].abs().max()))
    assert corners[0] == 0
    assert corners[1] > 0.1


@pytest.mark.parametrize("setting", [{"stretch": 0.1}, {"elastic_voxels": 1.0}])
def test_volumes_are_neither_stretched_nor_bent(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="only images"):
        preset_config("default", 32, {"views": setting})


def test_the_preset_for_digits_is_of_images_for_every_model() -> None:
    for name in ("dualcontrast", "harmony", "vitae", "vae"):
        assert preset_config("digits", 28, {"model": {"name": name}}).model.dims == 2


def test_a_view_in_the_plane_turns_every_colour_alike() -> None:
    images = noise_images(5)[:, None] * torch.tensor([1.0, 0.5, -2.0]).reshape(3, 1, 1)
    mask = view_mask(BOX, dims=2)
    view = random_view(images, None, torch.ones(BOX, BOX), ViewConfig(low_pass_shells=None), torch.Generator())
    red, green, blue = (c - c.mean((1, 2), keepdim=True) for c in view.target.unbind(1))
    torch.testing.assert_close(green, 0.5 * red, atol=1e-4, rtol=0)
    torch.testing.assert_close(blue, -2 * red, atol=1e-4, rtol=0)
    assert view.weights is None
    seen = through_mask(images, mask)
    torch.testing.assert_close((seen**2).sum((1, 2, 3)) / (3 * (mask**2).sum()), torch.ones(5))


def test_colour_images_train_and_come_back_in_colour(tmp_path: Path) -> None:
    dataset = image_dataset(noise_images(channels=3), names=[f"view{i}" for i in range(9)])
    overrides = {"model": {**SMALL, "channels": 3}, "optimisation": {"epochs": 1, "batch_size": 4}}
    config = preset_config("default", BOX, overrides)
    model = train(dataset, config, RunFolder(tmp_path))
    codes = encode_particles(model, dataset, config.views)
    assert codes.names[-1] == "view8"
    decoded = model.decode(torch.from_numpy(codes.content), torch.from_numpy(codes.transformation))
    assert decoded.shape == (9, 3, BOX, BOX)


def test_particles_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not of the shape the model takes"):
        train(image_dataset(noise_images()), preset_config("default", BOX), RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        (np.zeros((3, 16, 18)), None, "square"),
        (np.zeros((3, 15, 15)), None, "square"),
        (np.zeros((3, 2, 16, 16)), None, "square"),
        (np.zeros((3, 16, 16)), None, "constant"),
        (np.full((3, 16, 16), np.nan), None, "finite"),
        (np.eye(16)[None].repeat(3, 0), ["a", "b"], "name of its own"),
        (np.eye(16)[None].repeat(3, 0), ["a", "b", "a"], "name of its own"),
    ],
)
def test_bad_images_are_refused(images: np.ndarray, names: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        image_dataset(images, names)


def test_images_of_any_scale_are_the_same_particles() -> None:
    images = noise_images().numpy()
    first, second = image_dataset(images), image_dataset((images * 40 + 100)[:, None])
    torch.testing.assert_close(first.images, second.images, atol=1e-4, rtol=0)
    torch.testing.assert_close(first.images.std(dim=(1, 2), correction=0), torch.ones(9))
