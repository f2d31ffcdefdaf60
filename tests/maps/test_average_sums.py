"""Sums of turned particles are those of a direct sum over voxels, which interpolates nothing."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.fourier import ParticleStack, fourier_ball, wedge_from_tilt_range
from cryodc.maps import average_sums

BOX, N = 16, 4


def spectrum_at(volume: NDArray[np.float64], frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Fourier sum over every voxel at any frequencies, the box centre at the phase origin."""
    found = np.zeros(len(frequencies), complex)
    for z, y, x in np.ndindex(volume.shape):
        place = np.array([z, y, x]) - BOX // 2
        found += volume[z, y, x] * np.exp(-2j * np.pi / BOX * (frequencies @ place))
    return found


def test_sums_of_turned_particles_are_those_of_a_direct_sum() -> None:
    generator = np.random.default_rng(0)
    weight = wedge_from_tilt_range(BOX, -50, 60).double()
    distance = np.linalg.norm(np.indices((BOX,) * 3) - BOX // 2, axis=0)
    volumes = generator.normal(size=(N, BOX, BOX, BOX)) * np.exp(-0.5 * (distance / 2) ** 2)
    rotations = Rotation.random(N, random_state=0).as_matrix()
    origins = generator.uniform(-1, 1, (N, 3))
    ball = fourier_ball(BOX, BOX / 2 - 1)
    stack = ParticleStack(torch.tensor(volumes).float(), weight.float()[None], torch.zeros(N, dtype=torch.int64))
    top, bottom = average_sums(stack, torch.tensor(rotations).float(), torch.tensor(origins).float(), ball)

    k = ball.frequencies.double().numpy()
    expected, power = np.zeros(len(k), complex), np.zeros(len(k))
    measured = np.fft.fftshift(np.fft.irfftn(weight.numpy() ** 2, s=(BOX,) * 3, axes=(0, 1, 2)))
    for volume, rotation, origin in zip(volumes, rotations, origins, strict=True):
        spectrum = np.fft.rfftn(np.fft.ifftshift(volume)) * weight.numpy()
        weighted = np.fft.fftshift(np.fft.irfftn(spectrum, s=(BOX,) * 3, axes=(0, 1, 2)))
        turned = k @ rotation.T
        expected += spectrum_at(weighted, turned) * np.exp(-2j * np.pi / BOX * (turned @ origin))
        power += np.maximum(spectrum_at(measured, turned).real, 0)

    for shell in range(1, BOX // 2):
        at = ball.shells.numpy() == shell
        error = np.linalg.norm(top.numpy()[at] - expected[at]) / np.linalg.norm(expected[at])
        assert error < 0.04, (shell, error)
        assert abs(bottom.numpy()[at] - power[at]).max() < 0.04 * N, shell
