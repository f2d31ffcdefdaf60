"""Weight volumes: each layout against the transfer function it was written from."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryodc.errors import InputError
from cryodc.fourier import TiltAxis, shell_radius, wedge_from_tilt_range
from cryodc.io import read_weight

BOX = 8


def _full_transfer() -> np.ndarray:
    """A signed function of |kx|, |ky|, |kz| that no permutation or flip of axes keeps, on the full FFT grid."""
    k = np.fft.fftfreq(BOX, 1 / BOX)
    z, y, x = np.meshgrid(np.abs(k), np.abs(k), np.abs(k), indexing="ij")
    return np.cos(0.3 * x + 0.7 * y + 1.1 * z).astype(np.float32)


def _write(path: Path, array: np.ndarray) -> Path:
    mrcfile.write(path, array, overwrite=True)
    return path


def test_the_full_cube_and_the_half_fourier_layout_say_the_same(tmp_path: Path) -> None:
    full = _full_transfer()
    expected = full[:, :, : BOX // 2 + 1]
    cube = read_weight(_write(tmp_path / "cube.mrc", np.fft.fftshift(full)), BOX)
    half = read_weight(_write(tmp_path / "half.mrc", expected.astype(np.float16)), BOX)
    np.testing.assert_array_equal(cube.transfer, expected)
    np.testing.assert_allclose(half.transfer, expected, atol=1e-3)
    assert not cube.whitening
    assert not half.whitening
    assert cube.transfer[0, 0, 0] == 1.0


@pytest.mark.parametrize("layout", [1, 2])
def test_a_transfer_applied_to_a_volume_gives_the_filtered_volume(tmp_path: Path, layout: int) -> None:
    full = _full_transfer()
    array = np.fft.fftshift(full) if layout == 1 else full[:, :, : BOX // 2 + 1]
    weight = read_weight(_write(tmp_path / "w.mrc", np.ascontiguousarray(array)), BOX)
    volume = np.random.default_rng(0).standard_normal((BOX, BOX, BOX))
    expected = np.fft.ifftn(np.fft.fftn(volume) * full).real
    found = np.fft.irfftn(np.fft.rfftn(volume) * weight.transfer, s=volume.shape, axes=(0, 1, 2))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_relion_4_weights_are_scaled_and_zero_where_no_tilt_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (BOX, BOX, BOX // 2 + 1)
    squared = rng.uniform(0.5, 40, shape).astype(np.float32)
    multiplicity = rng.integers(0, 3, shape).astype(np.float32)
    multiplicity[0, 0, 0] = 1
    path = _write(tmp_path / "w.mrc", np.concatenate([squared, multiplicity]))
    weight = read_weight(path, BOX)
    assert weight.whitening
    measured = multiplicity > 0
    assert (weight.transfer[~measured] == 0).all()
    np.testing.assert_allclose(weight.transfer[measured], squared[measured] / squared[measured].max(), rtol=1e-6)
    assert weight.transfer.max() == 1


@pytest.mark.parametrize("shape", [(8, 8, 4), (8, 5, 8), (16, 8, 8), (10, 10, 6), (16, 16, 16)])
def test_any_other_shape_is_refused_with_the_three_accepted(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = _write(tmp_path / "w.mrc", np.ones(shape, np.float32))
    with pytest.raises(InputError) as caught:
        read_weight(path, BOX)
    assert caught.value.file == path
    for accepted in ("(8, 8, 8)", "(8, 8, 5)", "(16, 8, 5)"):
        assert accepted in str(caught.value)
    assert str(shape) in str(caught.value)


def test_a_weight_that_measured_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="zero everywhere"):
        read_weight(_write(tmp_path / "w.mrc", np.zeros((8, 8, 5), np.float32)), BOX)
    path = _write(tmp_path / "w.mrc", np.ones((8, 8, 5), np.float32))
    path.write_bytes(path.read_bytes()[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(InputError, match="NaN"):
        read_weight(path, BOX)


def test_real_weights_are_missing_where_the_tilts_did_not_reach(shared_data: Path) -> None:
    folder = shared_data / "real" / "ribosome70s" / "subtomograms"
    transfer = read_weight(folder / "Unt_050_1_ctf_12.00A.mrc", 32).transfer
    radius = shell_radius(32).numpy()
    ball = (radius > 3) & (radius < 14)

    def share_measured(tilt_degrees: float, axis: TiltAxis, *, inside: bool) -> float:
        wedge = wedge_from_tilt_range(32, -tilt_degrees, tilt_degrees, axis).numpy() > 0
        return float((transfer[ball & (wedge == inside)] > 0.01).mean())

    # A series of about ±55° around y, in a few large steps: thin slabs, some reaching beyond.
    assert share_measured(40, "y", inside=True) > 0.99
    assert share_measured(65, "y", inside=False) < 0.2
    assert share_measured(65, "x", inside=False) > 0.4
