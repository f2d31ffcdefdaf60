"""Simulated particles are what they claim: SNR, wedge, poses, maps, files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.simulate import simulate
from scipy.ndimage import affine_transform

from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, fourier_ball, fourier_crop, fourier_shell_correlation, volume_from_ball
from cryodc.geometry import geodesic_degrees
from cryodc.io import read_array, read_header, read_volume, read_weight, write_array
from cryodc.maps import average_sums
from cryodc.particles import read_particles
from cryodc.simulation import (
    SimulationConfig,
    choose_proteins,
    demo_phantoms,
    draw_truth,
    phantom,
    prepare_map,
    prepare_specimens,
    read_map,
    read_truth,
    simulate_particles,
    write_simulation,
)
from cryodc.simulation.scene import render
from cryodc.volumes import Volume

SMALL = SimulationConfig(n_per_map=3, box_size=24, spacing_angstrom=12.0)


def test_snr_is_clean_variance_over_noise_variance_before_the_wedge() -> None:
    config = SimulationConfig(n_per_map=4, snr=0.05, tilt_ranges=((-90.0, 90.0),))
    particles = simulate_particles(demo_phantoms(), config)
    specimens = prepare_specimens(demo_phantoms(), 32, 10.0)
    clean = render(specimens, particles.truth, slice(0, 16), config)
    noise = particles.volumes - clean
    ratios = clean.var(dim=(1, 2, 3)) / noise.var(dim=(1, 2, 3))
    assert ratios.numpy() == pytest.approx(0.05, rel=0.05)
    # White: as much in high shells as in low ones, and none of one particle in another.
    power = torch.fft.rfftn(noise).abs().square().mean(dim=0)
    assert float(power[:8, :8, :8].mean() / power[8:24, 8:24, 8:].mean()) == pytest.approx(1, abs=0.1)
    assert abs(float(torch.corrcoef(noise[:2].flatten(1))[0, 1])) < 0.03


def test_a_particle_holds_nothing_where_its_tilt_series_measured_nothing() -> None:
    config = SimulationConfig(n_per_map=3, tilt_ranges=((-60.0, 60.0), (-40.0, 50.0)), n_tomograms=3)
    particles = simulate_particles(demo_phantoms(), config)
    spectra = torch.fft.rfftn(particles.volumes, dim=(1, 2, 3)).abs()
    missing = particles.weights[particles.weight_index] == 0
    # The Nyquist planes stand for both signs of a frequency, so a real volume cannot show them apart.
    missing[:, 16], missing[:, :, 16], missing[..., 16] = False, False, False
    assert float((spectra * missing).max()) < 1e-3 * float(spectra.max())
    assert set(particles.weight_index.tolist()) == {0, 1}
    same_tomogram = {(t, int(i)) for t, i in zip(particles.truth.tomograms, particles.weight_index, strict=True)}
    assert len(same_tomogram) == 3


def test_rotations_are_uniform_and_shifts_fill_a_cube() -> None:
    config = SimulationConfig(n_per_map=2000, max_shift_voxels=1.5)
    truth = draw_truth(prepare_specimens({"barrel": phantom("barrel")}, 32, 10.0), config)
    angles = geodesic_degrees(truth.poses.rotations, np.eye(3))
    assert angles.mean() == pytest.approx(126.5, abs=2)
    assert np.linalg.norm(truth.poses.rotations.mean(axis=0)) < 0.08
    origins = truth.poses.origins_angstrom
    assert np.abs(origins).max() <= 15
    assert origins.std(axis=0) == pytest.approx(30 / 12**0.5, rel=0.05)


def test_proteins_come_in_equal_numbers_and_in_no_order() -> None:
    truth = simulate_particles(demo_phantoms(), SMALL).truth
    assert np.bincount(truth.labels).tolist() == [3, 3, 3, 3]
    assert (np.diff(truth.labels) != 0).sum() > 4
    rigid = np.array(["wheel" in truth.proteins[label] or "barrel" in truth.proteins[label] for label in truth.labels])
    assert (truth.states[rigid] == 0).all()
    assert (truth.states[~rigid] > 0).all()


def test_the_same_seed_gives_the_same_particles_and_another_does_not() -> None:
    first, again = (simulate_particles(demo_phantoms(), SMALL) for _ in range(2))
    other = simulate_particles(
        demo_phantoms(), SimulationConfig(n_per_map=3, box_size=24, spacing_angstrom=12.0, seed=1)
    )
    assert torch.equal(first.volumes, again.volumes)
    assert np.array_equal(first.poses.rotations, again.poses.rotations)
    assert not torch.allclose(first.volumes, other.volumes)
    assert not np.allclose(first.poses.rotations, other.poses.rotations)


def test_a_map_is_rotated_and_shifted_as_an_exact_rendering_is() -> None:
    """A phantom drawn off centre on another grid, read as a map, against the same phantom drawn in its poses."""
    barrel = phantom("barrel")
    off_centre = torch.tensor([[-21.0, 13.0, 32.0]])
    drawn = barrel.render(torch.eye(3)[None], off_centre, torch.zeros(1), 56, 7.3)[0]
    config = SimulationConfig(n_per_map=5)
    specimens = prepare_specimens({"barrel": Volume(40 * drawn.numpy() + 0, 7.3)}, 32, 10.0)
    truth = draw_truth(specimens, config)
    from_map = render(specimens, truth, slice(0, 5), config)
    exact = render(prepare_specimens({"barrel": barrel}, 32, 10.0), truth, slice(0, 5), config)
    for one, other in zip(from_map, exact, strict=True):
        # The grids differ, so the beads' blur does: shapes agree shell by shell, amplitudes need not.
        assert (fourier_shell_correlation(one, other)[1:9] > 0.99).all()


def test_a_map_is_interpolated_as_well_as_by_fifth_order_splines() -> None:
    drawn = phantom("bilobe").render(torch.eye(3)[None], torch.zeros(1, 3), torch.ones(1), 36, 9.0)[0]
    specimen = prepare_map("bilobe", Volume(drawn.numpy(), 9.0), 32, 10.0)
    config = SimulationConfig(n_per_map=3)
    truth = draw_truth({"bilobe": specimen}, config)
    for i in range(3):
        rotation, origin = truth.poses.rotations[i], truth.poses.origins_angstrom[i] / 5.0
        centre = np.full(3, 32.0)
        offset = rotation.T @ (origin - centre) + centre
        spline = affine_transform(specimen.fine.numpy(), rotation.T, offset, order=5)
        expected = fourier_crop(torch.from_numpy(spline), 32)
        rendered = specimen.render(
            torch.from_numpy(rotation)[None],
            torch.from_numpy(truth.poses.origins_angstrom[i])[None],
            torch.zeros(1),
            32,
            10.0,
        )[0]
        assert float((rendered - expected).std() / expected.std()) < 0.01


def test_maps_of_any_grey_scale_are_centred_and_have_variance_one() -> None:
    drawn = phantom("wheel").render(torch.eye(3)[None], torch.tensor([[30.0, -20.0, 10.0]]), torch.zeros(1), 40, 10.0)
    dim, bright = (Volume((scale * drawn[0]).numpy(), 10.0) for scale in (0.02, 300.0))
    maps = simulate_particles({"dim": dim, "bright": bright}, SimulationConfig(n_per_map=1)).maps
    assert torch.allclose(maps[0], maps[1], atol=1e-3)
    assert maps.var(dim=(1, 2, 3), correction=0).numpy() == pytest.approx(1)
    z = (maps[0].sum(dim=(1, 2)) * torch.arange(32)).sum() / maps[0].sum()
    assert float(z) == pytest.approx(16, abs=0.2)


def test_a_map_that_does_not_fit_the_box_is_refused_with_a_box_that_does() -> None:
    drawn = phantom("clamp").render(torch.eye(3)[None], torch.zeros(1, 3), torch.ones(1), 32, 10.0)[0]
    with pytest.raises(InputError, match="does not fit the box") as error:
        prepare_map("clamp", Volume(drawn.numpy(), 10.0), 16, 10.0)
    box = int(str(error.value.remedy).split("--box ")[1].split()[0])
    prepare_map("clamp", Volume(drawn.numpy(), 10.0), box, 10.0)
    with pytest.raises(InputError, match="does not fit the box"):
        prepare_specimens({"clamp": phantom("clamp")}, 16, 10.0)


def test_a_map_without_density_is_refused() -> None:
    with pytest.raises(InputError, match="no positive density"):
        prepare_map("black", Volume(-np.ones((16, 16, 16), np.float32), 10.0), 16, 10.0)


def test_maps_of_odd_or_unequal_edges_are_padded_to_an_even_cube(tmp_path: Path) -> None:
    write_array(tmp_path / "odd.mrc", np.ones((5, 7, 6), np.float32), 4.0)
    volume = read_map(tmp_path / "odd.mrc")
    assert volume.voxels.shape == (8, 8, 8)
    assert volume.voxels.sum() == 5 * 7 * 6
    assert volume.spacing_angstrom == pytest.approx(4.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_per_map": 0},
        {"box_size": 33},
        {"snr": 0.0},
        {"tilt_ranges": ((60.0, -60.0),)},
        {"max_shift_voxels": 20.0},
        {"spacing_angstrom": -1.0},
        {"n_tomograms": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="cannot simulate"):
        SimulationConfig(**wrong)


def test_files_hold_the_particles_in_memory_and_the_answer(tmp_path: Path) -> None:
    truth = write_simulation(demo_phantoms(), SMALL, tmp_path / "sim")
    memory = simulate_particles(demo_phantoms(), SMALL)
    particles = read_particles(tmp_path / "sim/particles.star")
    assert particles.names == truth.names
    assert particles.tomograms == truth.tomograms
    assert particles.poses is None
    assert (particles.box_size, particles.spacing_angstrom) == (24, 12.0)
    for image, volume in zip(particles.images, memory.volumes, strict=True):
        assert np.array_equal(read_volume(image).voxels, volume.numpy())
    assert particles.weight_images is not None
    assert len(set(particles.weight_images)) == 1
    assert torch.equal(torch.as_tensor(read_weight(particles.weight_images[0], 24).transfer), memory.weight)
    assert read_header(tmp_path / "sim/maps/wheel.mrc").spacing_angstrom == pytest.approx(12.0)
    assert np.array_equal(read_array(tmp_path / "sim/maps/bilobe.mrc"), memory.maps[0].numpy())

    answer = read_truth(tmp_path / "sim/truth.csv")
    assert (answer.names, answer.tomograms) == (truth.names, truth.tomograms)
    assert [answer.proteins[i] for i in answer.labels] == [truth.proteins[i] for i in truth.labels]
    assert answer.symmetries[answer.proteins.index("barrel")] == "D7"
    assert answer.states == pytest.approx(truth.states, abs=1e-6)
    assert geodesic_degrees(answer.poses.rotations, truth.poses.rotations).max() < 1e-4
    assert answer.poses.origins_angstrom == pytest.approx(truth.poses.origins_angstrom, abs=1e-6)


def test_poses_in_the_star_average_the_particles_to_the_clean_map(tmp_path: Path) -> None:
    """From RELION's angles on disk to a map: the whole chain of conventions."""
    config = SimulationConfig(n_per_map=60, snr=1.0, seed=3)
    write_simulation({"clamp": phantom("clamp")}, config, tmp_path / "sim", with_poses=True)
    particles = read_particles(tmp_path / "sim/particles.star")
    assert particles.poses is not None
    volumes = torch.stack([torch.from_numpy(read_volume(image).voxels) for image in particles.images])
    weight = simulate_particles({"clamp": phantom("clamp")}, SimulationConfig(n_per_map=1)).weights
    ball = fourier_ball(32, 12.0)
    numerator, denominator = average_sums(
        ParticleStack(volumes, weight, torch.zeros(60, dtype=torch.long)),
        torch.from_numpy(particles.poses.rotations).float(),
        torch.from_numpy(particles.poses.origins_angstrom / 10.0).float(),
        ball,
    )
    average = volume_from_ball(numerator / (denominator + 1), ball)
    clean = torch.from_numpy(read_volume(tmp_path / "sim/maps/clamp.mrc").voxels)
    assert (fourier_shell_correlation(average, clean)[1:8] > 0.95).all()


def test_a_folder_that_holds_anything_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="refusing to overwrite"):
        write_simulation(demo_phantoms(), SMALL, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_truth_is_refused_with_its_line(tmp_path: Path) -> None:
    write_simulation({"wheel": phantom("wheel")}, SMALL, tmp_path / "sim")
    path = tmp_path / "sim/truth.csv"
    lines = path.read_text().splitlines()
    for wrong, problem in (
        ([*lines, lines[-1]], "twice"),
        ([*lines[:-1], lines[-1].replace("C6", "C2")], "two symmetries"),
        ([lines[0], lines[1].replace(lines[1].split(",")[3], "left")], "numbers"),
        (["name,protein"], "lacks columns"),
    ):
        path.write_text("\n".join(wrong))
        with pytest.raises(InputError, match=problem):
            read_truth(path)


def test_proteins_are_phantoms_by_name_and_maps_by_file(tmp_path: Path) -> None:
    assert list(choose_proteins(None, [])) == ["bilobe", "barrel", "wheel", "clamp"]
    assert len(choose_proteins(["all"], [])) == 6
    write_array(tmp_path / "a.mrc", np.ones((8, 8, 8), np.float32), 4.0)
    assert list(choose_proteins(["bar"], [tmp_path / "a.mrc"])) == ["bar", "a"]
    with pytest.raises(InputError, match="same name"):
        choose_proteins(None, [tmp_path / "a.mrc", tmp_path / "a.mrc"])


def test_the_command_writes_what_it_is_asked_for(tmp_path: Path) -> None:
    arguments = ["--n", "2", "--phantoms", "bar,tripod", "--box", "24", "--spacing", "12", "--snr", "inf"]
    wedges = ["--tilt-range", "-50", "50", "--tilt-range", "-60", "45", "--tomograms", "2"]
    result = CliRunner().invoke(simulate, [*arguments, *wedges, "--out", str(tmp_path / "sim")])
    assert result.exit_code == 0, result.output
    assert len(read_truth(tmp_path / "sim/truth.csv")) == 4
    assert {file.name for file in (tmp_path / "sim/weights").iterdir()} == {"wedge-50+50.mrc", "wedge-60+45.mrc"}


def test_shared_maps_fit_the_default_box(shared_data: Path) -> None:
    maps = {name: read_map(shared_data / f"maps/{name}.mrc.gz") for name in ("3j9i", "4cr2", "4v4r", "1bxn", "1f4a")}
    particles = simulate_particles(maps, SimulationConfig(n_per_map=1))
    assert particles.maps.std(dim=(1, 2, 3), correction=0).numpy() == pytest.approx(1)
