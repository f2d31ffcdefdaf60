import numpy as np
import pytest
import torch

from cryodc.fourier import (
    fourier_crop,
    fourier_shell_correlation,
    low_pass,
    resolution_angstrom,
    shell_frequencies,
    soft_sphere,
    standardise,
)
from cryodc.fourier.filters import pad_box


def loop_fsc(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """FSC by its definition: one shell at a time over the full complex transform."""
    n = a.shape[0]
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    k = np.fft.fftfreq(n, 1 / n)
    radius = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2))
    curve = []
    for shell in range(n // 2 + 1):
        inside = radius == shell
        cross = np.sum(fa[inside] * np.conj(fb[inside])).real
        curve.append(cross / np.sqrt(np.sum(np.abs(fa[inside]) ** 2) * np.sum(np.abs(fb[inside]) ** 2)))
    return np.array(curve)


def test_fsc_is_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(16, 16, 16, generator=generator)
    b = a + torch.randn(16, 16, 16, generator=generator)
    np.testing.assert_allclose(fourier_shell_correlation(a, b), loop_fsc(a.numpy(), b.numpy()), atol=1e-6)


def test_signal_to_noise_sets_the_fsc() -> None:
    generator = torch.Generator().manual_seed(1)
    signal = torch.randn(48, 48, 48, generator=generator)
    halves = [signal + torch.randn(48, 48, 48, generator=generator) for _ in range(2)]
    # Two halves of SNR 1 correlate by SNR / (SNR + 1).
    assert fourier_shell_correlation(*halves)[10:].mean() == pytest.approx(0.5, abs=0.02)


def test_an_empty_shell_has_no_correlation() -> None:
    volume = low_pass(torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0)), 3, edge_shells=0.5)
    fsc = fourier_shell_correlation(volume, volume)
    np.testing.assert_allclose(fsc[:4], 1)
    np.testing.assert_allclose(fsc[5:], 0)


def test_resolution_is_where_the_curve_falls() -> None:
    assert resolution_angstrom(np.array([1.0, 1.0, 0.5, 0.0, 0.0]), 10.0, 0.25) == pytest.approx(80 / 2.5)
    assert resolution_angstrom(np.ones(5), 10.0) == 20.0
    assert resolution_angstrom(np.array([1.0, 0.0, 0.9, 0.9, 0.9]), 10.0) == float("inf")
    np.testing.assert_allclose(1 / shell_frequencies(32, 10.0)[16], 20.0)


def test_fourier_crop_keeps_a_wave_and_the_centre() -> None:
    x = torch.arange(32) - 16
    wave = torch.cos(2 * torch.pi * 3 * x / 32).expand(32, 32, 32)
    cropped = fourier_crop(wave, 16)
    expected = torch.cos(2 * torch.pi * 3 * (torch.arange(16) - 8) / 16).expand(16, 16, 16)
    torch.testing.assert_close(cropped, expected, atol=1e-5, rtol=0)
    dot = torch.zeros(32, 32, 32)
    dot[16, 16, 16] = 1
    assert fourier_crop(dot, 16).argmax() == (8 * 16 + 8) * 16 + 8
    assert pad_box(dot, 40).nonzero().tolist() == [[20, 20, 20]]


def test_sphere_and_standardise() -> None:
    sphere = soft_sphere(32, 8, 4)
    assert sphere[16, 16, 16] == 1
    assert sphere[16, 16, 16 + 8] == 1
    assert sphere[16, 16, 16 + 10] == pytest.approx(0.5)
    assert sphere[16, 16, 16 + 12] == pytest.approx(0, abs=1e-6)
    volume = standardise(3 + 2 * torch.randn(2, 16, 16, 16))
    torch.testing.assert_close(volume.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(volume.square().mean((1, 2, 3)), torch.ones(2))
    assert standardise(torch.ones(8, 8, 8)).abs().max() == 0
