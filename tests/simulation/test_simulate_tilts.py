"""Simulated tilt series: where the tilt, the CTF and the dose put things."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.simulate import simulate

from cryodc.dataset import load_dataset
from cryodc.fourier import (
    ParticleStack,
    backproject,
    fourier_ball,
    fourier_shell_correlation,
    frequency_grid,
    volume_from_ball,
    wedge_from_tilt_range,
)
from cryodc.io import read_array
from cryodc.maps import average_sums
from cryodc.particles import read_particles
from cryodc.simulation import (
    Crowding,
    SimulatedParticles,
    SimulatedTiltSeries,
    SimulationConfig,
    draw_truth,
    phantom,
    prepare_specimens,
    read_truth,
    simulate_particles,
)
from cryodc.simulation.beads import render_beads
from cryodc.simulation.scene import draw_coordinates
from cryodc.simulation.tilt_images import (
    image_noise_variance,
    project,
    simulate_tilt_batches,
    tilt_angles,
    tilt_optics,
    tilt_projections,
)
from tests.simulation.barrel import BARREL, SPACING, N


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_blob_lands_where_the_tilt_puts_it(axis: str) -> None:
    z, y, x = 5.0, -3.0, 4.0
    volume = render_beads(torch.tensor([[[z, y, x]]]), torch.ones(1), 1.5, N)
    angles = np.array([-40.0, 0.0, 25.0])
    images = project(volume, angles, "x" if axis == "x" else "y")[0]
    grid = torch.arange(2 * N) - N
    for angle, image in zip(np.radians(angles), images, strict=True):
        found = [float((image.sum(1) * grid).sum() / image.sum()), float((image.sum(0) * grid).sum() / image.sum())]
        if axis == "y":
            expected = [y, x * math.cos(angle) + z * math.sin(angle)]
        else:
            expected = [y * math.cos(angle) + z * math.sin(angle), x]
        assert found == pytest.approx(expected, abs=0.01)
        assert float(image.sum()) == pytest.approx(float(volume.sum()), rel=1e-3)
    # A Gaussian's shadow is a Gaussian.
    flat = torch.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / (2 * 1.5**2)) / (2 * math.pi * 1.5**2)
    assert float((images[1] - flat).abs().max()) < 0.01 * float(flat.max())


def test_measured_planes_are_those_of_the_wedge() -> None:
    for axis in ("x", "y"):
        config = SimulationConfig(
            n_per_map=1, tilt_ranges=((-20.0, 60.0),), tilt_axis="x" if axis == "x" else "y", tilt_series=_perfect()
        )
        weight = simulate_particles(BARREL, config).weights[0]
        wedge = wedge_from_tilt_range(N, -20.0, 60.0, config.tilt_axis)
        k = frequency_grid(N)
        shells = (k.norm(dim=-1) > 4) & (k.norm(dim=-1) < N / 2 - 1)
        inside, outside = weight[shells & (wedge == 1)], weight[shells & (wedge == 0)]
        assert float((inside > 0).float().mean()) > 0.97
        assert float(outside.square().mean()) < 0.1 * float(inside.square().mean())


def test_ctf_zeros_are_in_the_weights_where_the_defocus_puts_them() -> None:
    """At 4 Å per voxel the first zeros of 2 µm at 300 kV lie well within the box."""
    spacing, defocus = 4.0, 20000.0
    series = SimulatedTiltSeries(
        defocus_micrometres=(2.0, 2.0), amplitude_contrast=0.0, dose_per_tilt=0.0, step_degrees=60.0
    )
    optics = tilt_optics(series, np.array([-60.0, 0.0, 60.0]), 2.0)
    result = backproject(
        torch.zeros(1, 1, 64, 64), torch.ones(1, 1, dtype=torch.bool), torch.eye(3)[None],
        _only(optics, 1), torch.zeros(1, 1), spacing, 64,
    )  # fmt: skip
    row = result.weight[0, 0, 0].numpy()
    # Zeros of sin(πλ z k² − π/2 Cs λ³ k⁴): where the phase is a multiple of π. λ of 300 kV is 0.0196875 Å.
    k = np.linspace(0.001, 0.125, 20000)
    phase = np.pi * 0.0196875 * defocus * k**2 - np.pi / 2 * 2.7e7 * 0.0196875**3 * k**4
    zeros = k[1:][np.diff(np.floor(phase / np.pi)) > 0] * 64 * spacing
    assert len(zeros) >= 4
    minima = 1 + np.flatnonzero((row[1:-1] < row[:-2]) & (row[1:-1] <= row[2:]))
    for zero in zeros[:3]:
        assert np.abs(minima - zero).min() <= 1


def test_weight_is_the_loop_over_tilts_of_squared_transfer() -> None:
    """ΣCTF² over the images, against a loop over tilts and voxels in plain numpy, on slices one step wide."""
    config = SimulationConfig(
        n_per_map=1, n_tomograms=1, snr=math.inf, tilt_series=SimulatedTiltSeries(step_degrees=20.0)
    )
    specimens = prepare_specimens(BARREL, N, SPACING)
    truth = draw_truth(specimens, config)
    _, result = next(simulate_tilt_batches(specimens, truth, config))
    angles = np.arange(-60.0, 61.0, 20.0)
    point = (draw_coordinates(1, config)[0] - np.array([100.0, 480.0, 464.0])) * SPACING
    fine = 2 * N
    expected = np.zeros((fine, fine, fine))
    order = sorted(range(len(angles)), key=lambda t: abs(angles[t]))
    f = np.fft.fftfreq(fine, 1 / fine) / 2
    kz, ky, kx = np.meshgrid(f, f, f, indexing="ij")
    for t, angle in enumerate(np.radians(angles)):
        depth = point[0] * math.cos(angle) - point[2] * math.sin(angle)
        defocus = 1e4 * truth.extra["defocus_micrometres"][0] - depth
        across, along = kz * math.cos(angle) - kx * math.sin(angle), kz * math.sin(angle) + kx * math.cos(angle)
        square = (along**2 + ky**2) / (N * SPACING) ** 2
        phase = np.pi * 0.0196875 * defocus * square - np.pi / 2 * 2.7e7 * 0.0196875**3 * square**2
        with np.errstate(divide="ignore"):
            damage = np.exp(-0.5 * 3.0 * order.index(t) / (0.245 * square ** (-1.665 / 2) + 2.81))
        transfer = np.sin(phase + np.arcsin(0.1)) * damage * math.cos(angle)
        expected += transfer**2 * 2 * np.clip(1 - 2 * np.abs(across), 0, None)
    radius = np.sqrt(kz**2 + ky**2 + kx**2)
    expected *= (radius <= N / 2) & (np.max(np.abs([kz, ky, kx]), axis=0) < N / 2)
    # Back on the grid of the box: the point spread function within a soft sphere.
    spread = np.fft.fftshift(np.fft.ifftn(expected).real)[N // 2 : -N // 2, N // 2 : -N // 2, N // 2 : -N // 2]
    axis = np.arange(N) - N // 2
    r = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    rim = 0.1 * N
    sphere = 0.5 + 0.5 * np.cos(np.pi * np.clip((r - (N / 2 - rim)) / rim, 0, 1))
    weight = np.fft.rfftn(np.fft.ifftshift(spread * sphere)).real
    found = result.weight[0].numpy()
    measured = found > 0
    assert measured.mean() > 0.2
    assert np.abs(found - weight)[measured].max() < 2e-3 * weight.max()


def test_damage_is_that_of_grant_and_grigorieff() -> None:
    """Their critical exposure at 300 kV: 4.3 e/Å² at 3 Å, 14.1 at 10 Å, 38.7 at 20 Å leave 1/e of the power."""
    series = SimulatedTiltSeries(dose_per_tilt=1.0)
    angles = np.arange(-60.0, 61.0, 3.0)
    optics = tilt_optics(series, angles, 3.0)
    assert float(optics.dose[angles == 0]) == 0
    assert sorted(optics.dose.tolist()) == list(range(41))
    assert float(optics.dose[angles == 60]) in (39, 40)
    for angstrom, critical in ((3.0, 4.34), (10.0, 14.13), (20.0, 38.73)):
        for tilt in (5, 20, 33):
            amplitude = float(optics.envelope(tilt, torch.tensor([0.0, 1 / angstrom])))
            expected = math.cos(math.radians(angles[tilt])) * math.exp(-float(optics.dose[tilt]) / (2 * critical))
            assert amplitude == pytest.approx(expected, rel=5e-3)


def test_a_perfect_microscope_makes_the_noise_that_the_snr_says() -> None:
    """Noise alone, projected nowhere: its power per measured voxel is that of white noise before a wedge."""
    angles = tilt_angles((-60.0, 60.0), 3.0)
    projections = tilt_projections(angles, "y")
    sigma = float(image_noise_variance(torch.tensor([2.0]), 3.0)[0]) ** 0.5
    images = torch.randn(6, len(angles), N, N, generator=torch.Generator().manual_seed(0)) * sigma
    visible = torch.ones(6, len(angles), dtype=torch.bool)
    optics = tilt_optics(_perfect(), angles * 0, 0.0)
    result = backproject(images, visible, projections, optics, torch.zeros(6, len(angles)), SPACING, N)
    k = frequency_grid(N)
    ball = (k.norm(dim=-1) < N / 2 - 1) & (wedge_from_tilt_range(N, -60, 60) == 1) & (k.norm(dim=-1) >= 1)
    normalised = torch.fft.rfftn(result.data, dim=(1, 2, 3)) / result.weight.clamp_min(1e-3)
    power = normalised.abs().square()[:, ball].mean() / N**3
    # The soft sphere that cuts the box takes a third of the noise, and of the particle's box where nothing is.
    axis = torch.arange(N) - N // 2
    inside = ((axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() < N / 2 - 1.6).float().mean()
    assert float(power / inside) == pytest.approx(2.0, rel=0.2)


def test_averages_of_tilt_series_are_better_than_a_wedge_at_low_and_worse_at_high_frequency() -> None:
    """At the same SNR: slices crowd at low frequency, while damage, CTF and sparse slices take the high ones."""
    base = {"n_per_map": 40, "snr": 0.03, "seed": 3}
    tilted = _fsc_of_average(simulate_particles(BARREL, SimulationConfig(**base, tilt_series=SimulatedTiltSeries())))
    wedged = _fsc_of_average(simulate_particles(BARREL, SimulationConfig(**base)))
    assert (tilted[1:8] > 0.85).all()
    assert tilted[5:9].mean() > wedged[5:9].mean() > 0.7
    assert tilted[11:14].mean() < wedged[11:14].mean() - 0.05


def test_files_of_tilt_series_are_what_training_reads(tmp_path: Path) -> None:
    arguments = ["--n", "3", "--phantoms", "bar,clamp", "--tilt-series", "--defocus", "1.5", "2.5", "--tilt-step", "6"]
    ranges = ["--tilt-range", "-60", "60", "--tilt-range", "-48", "54", "--tomograms", "2", "--crowded", "20000"]
    result = CliRunner().invoke(simulate, [*arguments, *ranges, "--out", str(tmp_path / "sim")])
    assert result.exit_code == 0, result.output
    particles = read_particles(tmp_path / "sim/particles.star")
    assert particles.weight_images is not None
    assert read_array(particles.weight_images[0]).shape == (64, 32, 17)
    truth = read_truth(tmp_path / "sim/truth.csv")
    rows = [line.split(",") for line in (tmp_path / "sim/truth.csv").read_text().splitlines()]
    columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
    assert {float(value) for value in columns["tilt_min"]} <= {-60.0, -48.0}
    for tomogram in set(truth.tomograms):
        mine = {d for d, t in zip(columns["defocus_micrometres"], truth.tomograms, strict=True) if t == tomogram}
        assert len(mine) == 1
        assert 1.5 <= float(mine.pop()) <= 2.5
    # In the STAR each particle's own: its depth, at most 0.1 µm, changes it.
    text = (tmp_path / "sim/particles.star").read_text()
    assert "rlnCtfDataAreCtfPremultiplied" in text
    assert "rlnDefocusU" in text
    assert all(count.isdigit() for count in columns["n_neighbours"])
    dataset = load_dataset(particles)
    config = SimulationConfig(
        n_per_map=3, n_tomograms=2, tilt_ranges=((-60.0, 60.0), (-48.0, 54.0)), crowding=Crowding(20000, 160.0),
        tilt_series=SimulatedTiltSeries(step_degrees=6.0, defocus_micrometres=(1.5, 2.5)),
    )  # fmt: skip
    memory = simulate_particles({"bar": phantom("bar"), "clamp": phantom("clamp")}, config)
    for i in range(len(dataset)):
        pair = torch.stack([torch.as_tensor(dataset.volumes[i]).flatten(), memory.volumes[i].flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.9999


def _perfect() -> SimulatedTiltSeries:
    return SimulatedTiltSeries(defocus_micrometres=(0.0, 0.0), amplitude_contrast=1.0, dose_per_tilt=0.0)


def _only(optics: object, tilt: int) -> object:
    from dataclasses import fields, replace

    values = {field.name: getattr(optics, field.name) for field in fields(optics)}  # type: ignore[arg-type]
    return replace(optics, **{k: v[tilt : tilt + 1] for k, v in values.items() if isinstance(v, torch.Tensor)})  # type: ignore[type-var]


def _fsc_of_average(particles: SimulatedParticles) -> np.ndarray:
    ball = fourier_ball(N, 13.0)
    weights = particles.weights[particles.weight_index]
    n = len(particles.volumes)
    numerator, denominator = average_sums(
        ParticleStack(particles.volumes, weights, torch.arange(n)),
        torch.from_numpy(particles.poses.rotations).float(),
        torch.from_numpy(particles.poses.origins_angstrom / SPACING).float(),
        ball,
    )
    average = volume_from_ball(numerator / (denominator + 0.02 * denominator.max()), ball)
    return np.asarray(fourier_shell_correlation(average, particles.maps[0]))
