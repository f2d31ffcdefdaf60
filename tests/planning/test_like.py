"""Practice particles made like others have their wedge, noise, SNR, box, number and tomograms."""

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.simulate import simulate

from cryodc.averaging.files import CURVE_COLUMNS
from cryodc.dataset import InputOptions, ParticleReader
from cryodc.errors import InputError
from cryodc.fourier import (
    ParticleStack,
    fine_spectrum,
    fourier_ball,
    fourier_shell_correlation,
    hermitian_count,
    predict,
    shell_radius,
    stack_spectra,
    volume_from_ball,
    wedge_from_tilt_range,
)
from cryodc.io import read_array, read_volume, write_array, write_volume
from cryodc.maps import average_sums
from cryodc.particles import ParticleSet, read_particles
from cryodc.planning import LikeRequest, MeasureRequest, Recorded, measure_particles, write_like
from cryodc.runs import RunFolder
from cryodc.simulation import (
    SimulatedTiltSeries,
    SimulationConfig,
    choose_proteins,
    phantom,
    simulate_particles,
    write_particles,
    write_simulation,
    write_truth,
)
from cryodc.volumes import Volume
from tests.made_runs import make_averages, make_clusters, make_config

BOX, SPACING, N = 24, 14.0, 48
BARREL = {"barrel": phantom("barrel")}
LEVELS = {"quiet": 4.0, "loud": 12.0}


def transfer() -> torch.Tensor:
    """A CTF behind a wedge of ±60°: it falls to nothing and comes back, so a shell has many weights."""
    k = shell_radius(BOX)
    envelope = torch.exp(-((k / 14) ** 2))
    return (0.05 + 0.95 * torch.sin(0.9 + k**2 / 40).abs()) * envelope * wedge_from_tilt_range(BOX, -60, 60)


def noise_power(weight: torch.Tensor, level: float) -> torch.Tensor:
    """Red, and a hundred times weaker where the weight is small."""
    return level * 40 / (1 + shell_radius(BOX) / 3) ** 2 * (0.01 + (weight / weight.max()) ** 2) * (weight > 0)


@pytest.fixture(scope="module")
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


def measured_noise(recorded: Recorded, weight: torch.Tensor, tomogram: str) -> torch.Tensor:
    power = recorded.noise.at(weight, tomogram)
    return power / power.mean()


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


def renumbered(lines: list[str]) -> list[str]:
    """Column numbers after a label are comments; here they go."""
    return [re.sub(r"^(_rln\w+)\s+#\d+", r"\1", line) for line in lines]


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


def seen_in_poses(
    particles: ParticleSet, reference: torch.Tensor, rotations: torch.Tensor, shifts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Squared amplitude of a map in particles in their poses, and power of the map and of the particles, by shell."""
    reader = ParticleReader(particles)
    volumes, weights = reader.read(0, len(particles))
    ball = fourier_ball(particles.box_size, particles.box_size / 2 - 1)
    stack = ParticleStack(volumes, weights, torch.from_numpy(reader.weight_index))
    spectra = stack_spectra(stack, ball)
    model = predict(fine_spectrum(reference[None])[0], ball, spectra.own_weights, rotations, shifts)
    power = ball.shell_mean(model.abs().square().mean(dim=0))
    along = ball.shell_mean((spectra.spectra * model.conj()).real.mean(dim=0)) / power.clamp_min(1e-12)
    count = torch.bincount(ball.shells, minlength=len(power))
    return along.square(), power * count, ball.shell_mean(spectra.spectra.abs().square().mean(dim=0)) * count


def test_the_strength_of_proteins_in_tilt_series_is_what_their_true_poses_show(tmp_path: Path) -> None:
    config = SimulationConfig(40, BOX, SPACING, 0.1, tilt_series=SimulatedTiltSeries(), seed=4)
    truth = write_simulation(BARREL, config, tmp_path / "sim")
    star = tmp_path / "sim" / "particles.star"
    rotations = torch.from_numpy(truth.poses.rotations).float()
    shifts = torch.from_numpy(truth.poses.origins_angstrom / SPACING).float()
    clean = simulate_particles(BARREL, SimulationConfig(1, BOX, SPACING)).maps[0]
    seen, power, _ = seen_in_poses(read_particles(star), clean, rotations, shifts)
    expected = float((seen * power)[1:].sum() / power[1:].sum())
    recorded = measure_particles(MeasureRequest(star), BARREL)
    assert recorded.squared_amplitudes.mean() == pytest.approx(expected, rel=0.5)


def test_the_snr_of_real_ribosomes_is_what_their_published_average_explains(shared_data: Path) -> None:
    """Noise is stronger in the middle of these boxes than near their faces; that is no protein (SNR 0.19)."""
    star = shared_data / "real" / "ribosome70s" / "particles.star"
    particles = read_particles(star)
    assert particles.poses is not None
    # The published average is mirrored in z.
    published = read_volume(shared_data / "real" / "ribosome70s" / "published_average.mrc").voxels
    reference = torch.from_numpy(np.roll(published[::-1], 1, axis=0).copy())
    rotations = torch.from_numpy(particles.poses.rotations).float()
    seen, power, total = seen_in_poses(particles, reference - reference.mean(), rotations, torch.zeros(40, 3))
    protein = float((seen * power)[1:].sum())
    explained = protein / (float(total[1:].sum()) - protein)
    ribosome = choose_proteins(None, [shared_data / "maps" / "4v4r.mrc.gz"])
    assert explained / 2 < measure_particles(MeasureRequest(star), ribosome).snr < 2 * explained


def power_by_kind(particles: ParticleSet) -> dict[tuple[int, int], tuple[float, int]]:
    """Mean power of particles as they are read, and number of voxels, by shell and octave of the weight."""
    reader = ParticleReader(particles)
    volumes, weights = reader.read(0, len(particles))
    power = torch.fft.rfftn(volumes, dim=(1, 2, 3)).abs().square().numpy() / volumes[0].numel()
    weight = weights[torch.from_numpy(reader.weight_index)].abs()
    share = (weight / weight.amax(dim=(1, 2, 3), keepdim=True)).numpy().clip(1e-4)
    octaves = np.floor(np.log2(share)).astype(int)
    shells = np.broadcast_to(np.rint(shell_radius(particles.box_size).numpy()).astype(int), octaves.shape)
    found = {}
    for shell in range(1, particles.box_size // 2):
        for octave in range(-6, 1):
            kind = (shells == shell) & (octaves == octave)
            if kind.any():
                found[shell, octave] = (float(power[kind].mean()), int(kind.sum()))
    return found


def test_made_ribosomes_have_the_power_of_real_ones_in_every_shell_at_every_weight(
    shared_data: Path, tmp_path: Path
) -> None:
    star = shared_data / "real" / "ribosome70s" / "particles.star"
    ribosome = choose_proteins(None, [shared_data / "maps" / "4v4r.mrc.gz"])
    recorded = measure_particles(MeasureRequest(star), ribosome)
    assert set(recorded.noise.groups) == {f"Unt_{name}.tomostar" for name in ("050", "076", "083", "088")}
    write_like(recorded, tmp_path / "like")
    real, made = (power_by_kind(read_particles(path)) for path in (star, tmp_path / "like" / "particles.star"))
    populated = [kind for kind, (_, n) in real.items() if n >= 300]
    ratios = np.array([made[kind][0] / real[kind][0] for kind in populated])
    assert np.median(np.abs(np.log(ratios))) < math.log(1.1)
    assert np.abs(np.log(ratios)).max() < math.log(2)
    # Within one shell power falls a hundredfold with the weight, in both.
    for found in (real, made):
        strongest, weakest = (max(found[10, o][0] for o in (-1, -2)), min(found[10, o][0] for o in (-5, -6)))
        assert strongest > 50 * weakest


@pytest.mark.parametrize("name", ["hiv_vlp", "microtubule"])
def test_real_boxes_without_weights_are_measured(shared_data: Path, tmp_path: Path, name: str) -> None:
    star = shared_data / "real" / name / "particles.star"
    given = read_particles(star)
    ball = np.zeros((given.box_size,) * 3, np.float32)
    ball[6:11, 6:11, 6:11] = 1
    recorded = measure_particles(MeasureRequest(star, snr=0.1), {"ball": Volume(ball, given.spacing_angstrom)})
    assert recorded.wedge is not None
    assert "tilt axis y, beam z" in recorded.wedge
    assert recorded.options.tilt_range == pytest.approx((-60, 60), abs=12)
    truth = write_like(recorded, tmp_path / "like", LikeRequest(40))
    assert set(truth.tomograms) == set(given.tomograms)


def noise_only(folder: Path, n: int) -> Path:
    """Particles without protein, with a wedge."""
    config = SimulationConfig(n, BOX, SPACING, 1e-9)
    write_simulation(BARREL, config, folder)
    return folder / "particles.star"


def test_an_snr_that_cannot_be_told_from_nothing_must_be_given(tmp_path: Path) -> None:
    star = noise_only(tmp_path / "sim", 20)
    recorded = measure_particles(MeasureRequest(star), BARREL)
    assert recorded.snr < 0.005
    assert recorded.snr_interval[0] <= 0
    with pytest.raises(InputError, match="cannot be told from 0") as error:
        write_like(recorded, tmp_path / "like")
    assert "--snr" in str(error.value.remedy)
    assert not (tmp_path / "like").exists()
    assert len(write_like(measure_particles(MeasureRequest(star, snr=0.1), BARREL), tmp_path / "like")) == 20


def test_boxes_with_nothing_beyond_the_particle_are_refused(tmp_path: Path) -> None:
    star = noise_only(tmp_path / "sim", 6)
    axis = np.arange(BOX) - BOX // 2
    ball = sum(np.square(x) for x in np.meshgrid(axis, axis, axis)) <= (0.3 * BOX) ** 2
    for image in read_particles(star).images:
        write_volume(image.path, Volume(read_volume(image).voxels * ball.astype(np.float32), SPACING))
    with pytest.raises(InputError, match="nothing beyond the particle"):
        measure_particles(MeasureRequest(star), BARREL)


def test_too_few_particles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few particles"):
        measure_particles(MeasureRequest(noise_only(tmp_path / "sim", 4)), BARREL)


def test_the_command_tells_what_was_measured(known: tuple[Path, float], tmp_path: Path) -> None:
    star, _ = known
    out = tmp_path / "like"
    words = ["--like", str(star), "--phantoms", "barrel", "--out", str(out)]
    result = CliRunner().invoke(simulate, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "2 tomograms" in result.output
    assert re.search(r"SNR +0\.\d+: 0\.\d+ to 0\.\d+ \(95 %\), of 48 particles", result.output)
    assert len((out / "noise.csv").read_text().splitlines()) > 100
    assert "snr_interval" in (out / "simulation.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--like", "p.star", "--box", "16"], "--box is measured by --like"),
        (["--like", "p.star", "--tilt-series"], "--tilt-series is measured by --like"),
        (["--data-dir", "."], "--data-dir is only for --like"),
    ],
)
def test_options_that_contradict_like_are_refused(words: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(simulate, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_no_wedge_to_be_seen_and_none_given_is_refused(tmp_path: Path) -> None:
    config = SimulationConfig(20, BOX, SPACING, 0.1, ((-90.0, 90.0),))
    write_simulation(BARREL, config, tmp_path / "sim")
    star = tmp_path / "sim" / "particles.star"
    kept = [line for line in star.read_text().splitlines() if "rlnCtfImage" not in line]
    star.write_text("\n".join(re.sub(r"\S*weights/\S+", "", line) for line in renumbered(kept)) + "\n")
    with pytest.raises(InputError, match="the missing wedge is not known"):
        measure_particles(MeasureRequest(star), BARREL)
    assert measure_particles(MeasureRequest(star, options=InputOptions((-60, 60))), BARREL).wedge is None
