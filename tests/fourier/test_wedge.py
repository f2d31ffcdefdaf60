import numpy as np
import pytest
import torch
from acryo.tilt import single_axis

from cryodc.fourier import apply_weight, wedge_from_tilt_range
from cryodc.geometry import random_rotations, resample


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("tilt_range", [(-60.0, 60.0), (-40.0, 55.0), (-70.0, 10.0)])
def test_wedge_agrees_with_acryo(axis: str, tilt_range: tuple[float, float]) -> None:
    box = 32
    ours = wedge_from_tilt_range(box, *tilt_range, axis).numpy().astype(bool)
    acryos = single_axis(tilt_range, axis=axis).create_mask(shape=(box, box, box))[..., : box // 2 + 1] > 0
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(box, 1 / box)] * 2, np.arange(box // 2 + 1), indexing="ij"))
    beam, across = k[0], k[2] if axis == "y" else k[1]
    # acryo drops the voxels that lie on the edge planes to rounding, and gives Nyquist voxels one sign only.
    on_edge = np.zeros(beam.shape, dtype=bool)
    for tilt in tilt_range:
        distance = beam * np.cos(np.radians(tilt)) - across * np.sin(np.radians(tilt))
        on_edge |= np.abs(distance) < 1e-5
    nyquist = (np.abs(beam) == box // 2) | (np.abs(across) == box // 2)
    compared = ~on_edge & ~nyquist
    np.testing.assert_array_equal(ours[compared], acryos[compared])
    assert compared.mean() > 0.85


@pytest.mark.parametrize("tilt_range", [(-60.0, 60.0), (-45.0, 45.0)])
def test_measured_share_is_that_of_the_planes_swept(tilt_range: tuple[float, float]) -> None:
    box = 64
    weight = wedge_from_tilt_range(box, *tilt_range)
    radius = np.sqrt(np.add.outer(np.fft.fftfreq(box, 1 / box) ** 2, np.arange(box // 2 + 1) ** 2))
    disc = np.broadcast_to((radius > 0) & (radius < box // 2)[...], (box, box // 2 + 1))
    share = weight[:, 0, :].numpy()[disc].mean()
    assert share == pytest.approx((tilt_range[1] - tilt_range[0]) / 180, abs=0.03)


def test_the_beam_direction_is_missing_and_the_tilt_axis_measured() -> None:
    weight = wedge_from_tilt_range(32, -60, 60)
    assert weight[5, 0, 0] == 0
    assert weight[0, 5, 0] == 1
    assert weight[0, 0, 0] == 1


def test_a_projection_within_the_range_is_kept_and_one_beyond_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    box = 32
    blob = torch.randn(box, box, box, generator=generator)
    blob = apply_weight(blob, (torch.fft.rfftn(torch.ones(box, box, box)).abs() * 0 + 1))
    for tilt, kept in ((50.0, True), (-50.0, True), (75.0, False), (-75.0, False)):
        tilted = torch.linspace(-8, 8, 33)
        direction = np.array([np.sin(np.radians(tilt)), 0.0, np.cos(np.radians(tilt))])
        frequencies = [np.rint(r.item() * direction).astype(int) for r in tilted if abs(r.item()) >= 4]
        values = [wedge_from_tilt_range(box, -60, 60)[tuple(k if k[2] >= 0 else -k)].item() for k in frequencies]
        assert all(value == kept for value in values), (tilt, values)


def test_applying_a_wedge_twice_changes_nothing_more() -> None:
    weight = wedge_from_tilt_range(16, -50, 60)
    volume = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    once = apply_weight(volume, weight)
    torch.testing.assert_close(apply_weight(once, weight), once, atol=1e-5, rtol=0)


def test_rotating_a_particle_rotates_its_wedge() -> None:
    from cryodc.dataset import rotate_weights

    generator = torch.Generator().manual_seed(3)
    box = 32
    weight = wedge_from_tilt_range(box, -60, 60)
    noise = apply_weight(torch.randn(40, box, box, box, generator=generator), weight)
    rotation = random_rotations(1, generator)
    turned = resample(noise, rotation.expand(40, -1, -1))
    power = torch.fft.rfftn(turned, dim=(1, 2, 3)).abs().square().mean(0)
    predicted = rotate_weights(weight[None], rotation)[0]
    shells = torch.fft.fftfreq(box, 1 / box)
    radius = (shells[:, None, None] ** 2 + shells[None, :, None] ** 2 + torch.arange(17)[None, None] ** 2).sqrt()
    ring = (radius > 4) & (radius < 10)
    inside, outside = power[ring & (predicted > 0.99)].mean(), power[ring & (predicted < 0.01)].mean()
    assert outside < 0.1 * inside


@pytest.mark.parametrize("bad", [(60.0, -60.0), (-100.0, 60.0), (10.0, 10.0)])
def test_an_impossible_range_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="tilt min"):
        wedge_from_tilt_range(16, *bad)
