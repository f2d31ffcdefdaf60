"""Practice particles like others: noise and SNR that were put in are measured, and made again."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from cryodc.averaging.files import CURVE_COLUMNS
from cryodc.dataset import ParticleReader
from cryodc.errors import InputError
from cryodc.fourier import (
    ParticleStack,
    fourier_ball,
    fourier_shell_correlation,
    shell_radius,
    volume_from_ball,
    wedge_from_tilt_range,
)
from cryodc.io import read_array, read_volume
from cryodc.maps import average_sums
from cryodc.particles import read_particles
from cryodc.planning import LikeRequest, MeasureRequest, Recorded, measure_particles, write_like
from cryodc.runs import RunFolder
from cryodc.simulation import SimulatedTiltSeries, SimulationConfig, write_simulation
from tests.made_runs import make_averages, make_clusters, make_config
from tests.planning.recorded import BARREL, BOX, LEVELS, SPACING, N, noise_power, power_by_kind, renumbered, transfer


def require_truth(recorded: Recorded, snr: float) -> None:
    """Noise within 15 % in every coarse kind of voxel, SNR within 15 %."""
    assert recorded.snr == pytest.approx(snr, rel=0.15)
    low, high = recorded.snr_interval
    assert low < recorded.snr < high < 1.5 * recorded.snr
    weight, radius = transfer(), shell_radius(BOX)
    for tomogram, level in LEVELS.items():
        found, truth = recorded.noise.at(weight, tomogram).double(), noise_power(weight, level).double()
        # The grey scale is not known: both are compared with their sum.
        for low_shell, high_shell in ((2, 4), (4, 6), (6, 8), (8, 12)):
            inside = (radius >= low_shell) & (radius < high_shell)
            share = weight / weight.max()
            for lightest, heaviest in ((0.02, 0.1), (0.1, 0.3), (0.3, 1.01)):
                kind = inside & (share >= lightest) & (share < heaviest)
                if int(kind.sum()) >= 20:
                    ratio = float(found[kind].sum() / found.sum() / (truth[kind].sum() / truth.sum()))
                    assert ratio == pytest.approx(1, abs=0.2), (tomogram, low_shell, lightest)


def test_noise_by_shell_weight_and_tomogram_and_the_snr_are_those_that_were_put_in(known: tuple[Path, float]) -> None:
    star, snr = known
    require_truth(measure_particles(MeasureRequest(star), BARREL), snr)


def test_particles_made_like_others_have_their_noise_and_snr(known: tuple[Path, float], tmp_path: Path) -> None:
    star, snr = known
    write_like(measure_particles(MeasureRequest(star), BARREL), tmp_path / "like")
    again = measure_particles(MeasureRequest(tmp_path / "like" / "particles.star"), BARREL)
    require_truth(again, snr)
    given, made = read_particles(star), read_particles(tmp_path / "like" / "particles.star")
    assert Counter(made.tomograms) == Counter(given.tomograms)
    assert (made.box_size, made.spacing_angstrom, made.poses) == (BOX, SPACING, None)
    assert "200.000000" in (tmp_path / "like" / "particles.star").read_text()
    # The weights are the files of the set themselves.
    assert made.weight_images is not None
    assert {image.path for image in made.weight_images} == {(star.parent / "ctf.mrc").resolve()}


def test_the_number_and_the_snr_that_are_asked_for_hold(known: tuple[Path, float], tmp_path: Path) -> None:
    star, _ = known
    recorded = measure_particles(MeasureRequest(star, snr=0.5), BARREL)
    truth = write_like(recorded, tmp_path / "like", LikeRequest(3 * N, with_poses=True))
    counts, shares = Counter(truth.tomograms), Counter(read_particles(star).tomograms)
    assert counts == {name: 3 * n for name, n in shares.items()}
    assert len(write_like(recorded, tmp_path / "few", LikeRequest(20))) == 20
    again = measure_particles(MeasureRequest(tmp_path / "like" / "particles.star"), BARREL)
    assert again.snr == pytest.approx(0.5, rel=0.15)
    assert read_particles(tmp_path / "like" / "particles.star").poses is not None


def test_the_agreement_of_half_maps_gives_the_same_snr(known: tuple[Path, float], tmp_path: Path) -> None:
    star, snr = known
    particles = read_particles(star)
    reader = ParticleReader(particles)
    volumes, weights = reader.read(0, N)
    assert particles.poses is not None
    rotations = torch.from_numpy(particles.poses.rotations).float()
    shifts = torch.from_numpy(particles.poses.origins_angstrom / SPACING).float()
    halves = []
    for rows in (torch.arange(0, N, 2), torch.arange(1, N, 2)):
        stack = ParticleStack(volumes[rows], weights, torch.from_numpy(reader.weight_index[rows.numpy()]))
        halves.append(half_map(stack, rotations[rows], shifts[rows]))
    fsc = fourier_shell_correlation(*halves)
    run = RunFolder(tmp_path)
    make_config(run)
    make_clusters(run, particles.names, [0] * N)
    make_averages(run, {1: 40.0})
    summary = run.averages / "summary.json"
    summary.write_text(summary.read_text().replace('"n_particles": 1', f'"n_particles": {N}'))
    lines = [f"1,{s},{s / (BOX * SPACING):.6f},{value:.6f},{value:.6f},0,0,1,1,1" for s, value in enumerate(fsc)]
    (run.averages / "fsc.csv").write_text("\n".join([CURVE_COLUMNS, *lines]) + "\n")
    recorded = measure_particles(MeasureRequest(star, run=run), BARREL)
    assert recorded.snr == pytest.approx(snr, rel=0.3)
    summary.write_text(summary.read_text().replace('"aligned": true', '"aligned": false'))
    with pytest.raises(InputError, match="no average of this run tells the SNR"):
        measure_particles(MeasureRequest(star, run=run), BARREL)


def half_map(stack: ParticleStack, rotations: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    ball = fourier_ball(BOX, BOX / 2 - 1)
    numerator, denominator = average_sums(stack, rotations, shifts, ball)
    return volume_from_ball(numerator / (denominator + 1e-3 * denominator.mean()), ball)


def test_a_wedge_that_no_file_names_is_measured_and_made_again(tmp_path: Path) -> None:
    config = SimulationConfig(60, BOX, SPACING, 0.1, ((-60.0, 45.0),))
    write_simulation(BARREL, config, tmp_path / "sim")
    star = tmp_path / "sim" / "particles.star"
    text = star.read_text()
    kept = [line for line in text.splitlines() if "rlnCtfImage" not in line]
    star.write_text("\n".join(re.sub(r"\S*weights/\S+", "", line) for line in renumbered(kept)) + "\n")
    recorded = measure_particles(MeasureRequest(star), BARREL)
    assert recorded.options.tilt_range == pytest.approx((-60, 45), abs=2)
    assert recorded.snr == pytest.approx(0.1, rel=0.15)
    write_like(recorded, tmp_path / "like")
    made = read_particles(tmp_path / "like" / "particles.star")
    assert made.weight_images is not None
    weight = torch.from_numpy(read_array(made.weight_images[0]))
    assert float((weight - wedge_from_tilt_range(BOX, -60, 45)).abs().mean()) < 0.03
    spectra = [torch.fft.rfftn(torch.from_numpy(read_volume(image).voxels)).abs().square() for image in made.images]
    power = torch.stack(spectra).mean(dim=0)
    missing = weight == 0
    missing[BOX // 2], missing[:, BOX // 2], missing[..., -1] = False, False, False
    assert float(power[missing].mean()) < 0.05 * float(power[weight == 1].mean())


def test_particles_of_tilt_series_stay_sums_of_ctf_and_image(tmp_path: Path) -> None:
    config = SimulationConfig(24, BOX, SPACING, 0.1, tilt_series=SimulatedTiltSeries(step_degrees=6))
    write_simulation(BARREL, config, tmp_path / "sim")
    recorded = measure_particles(MeasureRequest(tmp_path / "sim" / "particles.star"), BARREL)
    write_like(recorded, tmp_path / "like")
    star = tmp_path / "like" / "particles.star"
    assert "rlnCtfDataAreCtfPremultiplied" in star.read_text()
    assert measure_particles(MeasureRequest(star), BARREL).snr == pytest.approx(recorded.snr, rel=0.25)
    # Read as every command reads them, their noise is white: as strong in light voxels as in heavy ones.
    given, made = (power_by_kind(read_particles(path)) for path in (tmp_path / "sim" / "particles.star", star))
    kinds = [kind for kind in given if kind in made and kind[0] >= 5 and min(given[kind][1], made[kind][1]) > 3000]
    assert len(kinds) >= 6
    for kind in kinds:
        assert made[kind][0] == pytest.approx(given[kind][0], rel=0.25), kind
