from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryodc.fourier import hermitian_count
from cryodc.io import write_array, write_volume
from cryodc.simulation import SimulationConfig, simulate_particles, write_particles, write_truth
from cryodc.volumes import Volume
from tests.planning.recorded import BARREL, BOX, LEVELS, SPACING, N, noise_power, transfer


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Particles of two tomograms, of which one is three times as noisy; and the SNR they have."""
    folder = tmp_path_factory.mktemp("known")
    config = SimulationConfig(N, BOX, SPACING, float("inf"), ((-90.0, 90.0),), n_tomograms=2, seed=5)
    clean = simulate_particles(BARREL, config)
    named = dict(zip(sorted(set(clean.truth.tomograms)), LEVELS, strict=True))
    truth = replace(clean.truth, tomograms=tuple(named[name] for name in clean.truth.tomograms))
    weight = transfer()
    write_array(folder / "ctf.mrc", weight.numpy(), SPACING)
    count = hermitian_count(BOX)
    generator = torch.Generator().manual_seed(1)
    ratios = []
    for i, volume in enumerate(clean.volumes):
        protein = torch.fft.rfftn(volume) * weight
        protein[0, 0, 0] = 0
        white = torch.fft.rfftn(torch.randn(volume.shape, generator=generator))
        noise = white * noise_power(weight, LEVELS[truth.tomograms[i]]).sqrt()
        noise[0, 0, 0] = 0
        ratios.append([float((part.abs().square() * count).sum()) for part in (protein, noise)])
        # Whatever the grey scale.
        voxels = 7 * torch.fft.irfftn(protein + noise, s=volume.shape) + 3
        write_volume(folder / truth.names[i], Volume(voxels.numpy(), SPACING))
    write_truth(folder / "truth.csv", truth)
    write_particles(
        folder / "particles.star",
        truth,
        ["ctf.mrc"] * N,
        np.zeros((N, 3)),
        BOX,
        SPACING,
        with_poses=True,
        microscope={"rlnVoltage": "200.000000"},
    )
    # As read, every particle has variance 1: particles count alike.
    shares = np.array(ratios) / np.sum(ratios, axis=1, keepdims=True)
    return folder / "particles.star", float(shares[:, 0].sum() / shares[:, 1].sum())
