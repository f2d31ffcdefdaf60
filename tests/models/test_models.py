from typing import Any

import pytest
import torch

from cryodc.dataset import ViewConfig, add_noise, random_view, recorded_view, through_mask
from cryodc.fourier import view_mask, wedge_from_tilt_range
from cryodc.models import ModelConfig, preset_config
from cryodc.models.dualcontrast import DualContrast
from cryodc.models.presets import PAPER, Preset


@pytest.mark.parametrize("box", [16, 18, 22, 32, 34])
def test_any_even_box_is_encoded_and_decoded_to_itself(box: int) -> None:
    model = DualContrast(ModelConfig(box_size=box, content_dims=7, transformation_dims=3))
    posterior = model.encode(torch.randn(2, box, box, box))
    assert posterior.content.mean.shape == (2, 7)
    assert posterior.transformation.log_variance.shape == (2, 3)
    decoded = model.decode(posterior.content.mean, posterior.transformation.mean)
    assert decoded.shape == (2, box, box, box)
    # Every voxel can be reached by the codes: none of the box is a constant border.
    assert (decoded[0] - decoded[1]).abs().amin() > 0


@pytest.mark.parametrize("box", [64, 128])
def test_large_boxes_stay_under_twenty_million_parameters(box: int) -> None:
    with torch.device("meta"):
        model = DualContrast(ModelConfig(box_size=box))
    assert sum(parameter.numel() for parameter in model.parameters()) < 20e6


def test_each_code_has_its_own_projection() -> None:
    model = DualContrast(ModelConfig(box_size=16, content_dims=4, transformation_dims=4))
    a, b = torch.randn(1, 4), torch.randn(1, 4)
    assert (model.decode(a, b) - model.decode(b, a)).abs().max() > 1e-4


def test_odd_and_out_of_range_boxes_are_refused() -> None:
    for box in (14, 33, 130):
        with pytest.raises(ValueError, match="box_size"):
            ModelConfig(box_size=box)


def test_the_paper_preset_is_the_published_setting() -> None:
    config = preset_config("paper", 32)
    assert (config.model.content_dims, config.model.transformation_dims) == (50, 50)
    assert (config.optimisation.epochs, config.optimisation.batch_size) == (150, 50)
    assert config.optimisation.learning_rate == 1e-4
    assert config.optimisation.weight_decay == 0
    assert config.loss.content_loss == "cosine"
    assert config.loss.reconstruction_weight == 3
    assert config.loss.content_weight == config.loss.transformation_weight == pytest.approx(0.06)
    assert config.views.rotation == "vector"
    assert not config.views.rotate_both
    assert config.templates.n_templates == 0
    assert set(PAPER) == {"model", "loss", "views", "templates", "optimisation"}


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="temprature"):
        preset_config("default", 32, {"loss": {"temprature": 0.1}})


def test_a_view_has_nothing_in_the_wedge_and_nothing_outside_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    box = 32
    weight = wedge_from_tilt_range(box, -60, 60)
    weights = weight.expand(4, -1, -1, -1)
    volumes = torch.randn(4, box, box, box, generator=generator)
    # With a mask that is 1 everywhere the re-imposed wedge is seen as it is.
    everywhere = torch.ones(box, box, box)
    view = random_view(volumes, weights, everywhere, ViewConfig(), generator)
    spectrum = torch.fft.rfftn(view.volumes, dim=(1, 2, 3)).abs().square()
    assert spectrum[weights == 0].sum() < 1e-8 * spectrum.sum()
    assert (view.weights <= weights + 1e-6).all()
    mask = view_mask(box)
    masked = random_view(volumes, weights, mask, ViewConfig(), generator).volumes
    assert masked[:, mask == 0].abs().max() == 0
    assert mask[0].max() == mask[:, 0].max() == mask[:, :, 0].max() == 0


@pytest.mark.parametrize("changed", [{}, {"reimpose_weight": False}, {"fresh_noise": 0.5, "cutout_share": 0.1}])
def test_what_is_seen_alone_is_what_is_seen(changed: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = wedge_from_tilt_range(16, -40, 40).expand(4, -1, -1, -1)
    given = torch.randn(4, 16, 16, 16, generator=generator), weights, view_mask(16), ViewConfig(**changed)
    view, seen = (random_view(*given, torch.Generator().manual_seed(1), seen_alone=alone) for alone in (False, True))
    torch.testing.assert_close(seen.volumes, view.volumes, atol=0, rtol=0)
    torch.testing.assert_close(seen.turns, view.turns)


def test_a_view_is_cut_at_a_shell_of_its_own_and_its_target_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    box = 32
    radius = torch.fft.fftfreq(box, 1 / box)
    z, y, x = torch.meshgrid(radius, radius, torch.fft.rfftfreq(box, 1 / box), indexing="ij")
    shell = (z**2 + y**2 + x**2).sqrt()
    whole, everywhere = torch.ones(64, box, box, box // 2 + 1), torch.ones(box, box, box)
    config = ViewConfig(low_pass_shells=(4.0, 8.0))
    view = random_view(torch.randn(64, box, box, box, generator=generator), whole, everywhere, config, generator)
    power = torch.fft.rfftn(view.volumes, dim=(1, 2, 3)).abs().square()
    highest = torch.where(power > 1e-6 * power.amax((1, 2, 3), keepdim=True), shell, 0).amax((1, 2, 3))
    # The edge of the filter is two shells wide.
    assert 5 < highest.min() < 7
    assert 9 < highest.max() <= 10
    assert torch.fft.rfftn(view.target, dim=(1, 2, 3)).abs().square()[:, shell > 10].mean() > 0.1 * power.mean()
    recorded = recorded_view(torch.randn(2, box, box, box, generator=generator), whole[:2], everywhere, config)
    assert torch.fft.rfftn(recorded.volumes, dim=(1, 2, 3)).abs()[:, shell > 8.1].max() < 1e-2
    uncut = ViewConfig(low_pass_shells=None)
    view = random_view(recorded.target, whole[:2], everywhere, uncut, generator)
    torch.testing.assert_close(view.volumes, view.target)
    with pytest.raises(ValueError, match="low_pass_shells"):
        ViewConfig(low_pass_shells=(9.0, 3.0))


def test_ablated_views_do_not_reimpose_the_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = wedge_from_tilt_range(16, -40, 40).expand(4, -1, -1, -1)
    volumes = torch.randn(4, 16, 16, 16, generator=generator)
    view = random_view(volumes, weights, torch.ones(16, 16, 16), ViewConfig(reimpose_weight=False), generator)
    spectrum = torch.fft.rfftn(view.volumes, dim=(1, 2, 3)).abs().square()
    assert spectrum[weights == 0].sum() > 0.1 * spectrum.sum()


def test_views_are_standardised_under_the_mask() -> None:
    mask = view_mask(16)
    seen = through_mask(5 + 3 * torch.randn(3, 16, 16, 16, generator=torch.Generator().manual_seed(0)), mask)
    torch.testing.assert_close((seen**2).sum((1, 2, 3)) / (mask**2).sum(), torch.ones(3))
    torch.testing.assert_close(
        recorded_view(seen, torch.ones(3, 16, 16, 9), mask, ViewConfig()).weights, torch.ones(3, 16, 16, 9)
    )


def test_shifts_stay_within_their_bound() -> None:
    generator = torch.Generator().manual_seed(0)
    blob = torch.zeros(64, 32, 32, 32)
    blob[:, 15:18, 15:18, 15:18] = 1
    whole = torch.ones(64, 32, 32, 17)
    view = random_view(blob, whole, torch.ones(32, 32, 32), ViewConfig(max_shift_voxels=3.0), generator)
    density = (view.target - view.target.amin((1, 2, 3), keepdim=True)).clamp_min(0)
    axis = torch.arange(32.0) - 16
    centre = (
        torch.stack(
            [(density * axis.reshape([-1 if a == d else 1 for a in range(3)])).sum((1, 2, 3)) for d in range(3)], 1
        )
        / density.sum((1, 2, 3))[:, None]
    )
    # A rotated cube of ±3: no farther than its corners, and it is used in full.
    assert centre.norm(dim=1).max() < 3 * 3**0.5 + 0.1
    assert centre.norm(dim=1).mean() > 2


def test_decoded_volumes_get_the_noise_of_recorded_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = wedge_from_tilt_range(16, -60, 60).expand(8, -1, -1, -1)
    noisy = add_noise(0.3 * torch.randn(8, 16, 16, 16, generator=generator), weight, generator)
    torch.testing.assert_close(noisy.var(dim=(1, 2, 3)), torch.ones(8), atol=0.1, rtol=0)
    spectrum = torch.fft.rfftn(noisy, dim=(1, 2, 3)).abs().square()
    assert spectrum[weight == 0].sum() < 1e-8 * spectrum.sum()


def test_beside_templates_the_network_has_few_epochs_and_by_itself_those_of_its_preset() -> None:
    def of(n_particles: int | None, preset: Preset = "default", **sections: dict[str, Any]) -> tuple[int, int]:
        optimisation = preset_config(preset, 32, sections, n_particles).optimisation
        return optimisation.epochs, optimisation.encoding_views

    assert of(1800) == (4, 4)
    assert of(100_000) == (1, 4)
    # Too few for two templates, images, published settings, other models, no templates: the network alone.
    assert of(119) == of(None) == of(1800, model={"dims": 2}) == of(1800, templates={"n_templates": 0}) == (20, 16)
    assert of(1800, "paper") == (150, 1)
    assert of(1800, model={"name": "harmony"}) == (200, 1)
    # What is asked for stays, and with one of the two asked for the other still follows.
    assert of(1800, optimisation={"epochs": 20}) == (20, 4)
    assert of(1800, optimisation={"epochs": 20, "encoding_views": 16}) == (20, 16)
