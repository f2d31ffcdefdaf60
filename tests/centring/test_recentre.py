"""Particles that lie off the middle of their box are found and moved to it, and stay where they are in the tomogram."""

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch

from cryodc.centring import RecentreRequest, find_mass, recentre_particles
from cryodc.dataset import InputOptions, load_dataset
from cryodc.errors import InputError
from cryodc.fourier import ParticleStack, wedge_from_tilt_range
from cryodc.maps import average_particles
from cryodc.particles import read_particles, read_positions
from cryodc.simulation import SimulationConfig, phantom, write_simulation
from cryodc.star import particle_block, read_star
from tests.simulated import blobs

BOX, SPACING = 32, 10.0
FAR = [(7, 0, 0), (-4, 5, 3), (0, 0, 0), (2, -6, -4)]


@pytest.mark.parametrize("place", FAR)
def test_a_particle_up_to_a_quarter_of_the_box_off_is_found_in_noise(place: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    clean = blobs((BOX,) * 3, np.array(place) + BOX // 2 + 3.0 * rng.normal(size=(12, 3)), 2.0)
    noisy = torch.from_numpy(clean / clean.std() + rng.normal(size=clean.shape) / np.sqrt(0.1)).float()
    wedge = wedge_from_tilt_range(BOX, -60, 60)
    seen = torch.fft.irfftn(torch.fft.rfftn(noisy) * wedge, s=noisy.shape)
    mass = np.stack(np.indices(clean.shape), -1).reshape(-1, 3).T @ clean.ravel() / clean.sum() - BOX // 2
    assert np.linalg.norm(find_mass(seen, wedge, 200.0, SPACING) - mass) < 2


def test_a_neighbour_at_the_edge_of_the_box_is_not_taken_for_the_particle() -> None:
    both = blobs((BOX,) * 3, [(18, 15, 16), (16, 16, 31)], 3.0, [1.0, 3.0])
    weight = torch.ones(BOX, BOX, BOX // 2 + 1)
    assert np.abs(find_mass(torch.from_numpy(both).float(), weight, 100.0, SPACING) - (2, -1, 0)).max() <= 1


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Particles of one protein with poses, 3 voxels off along each axis at most."""
    folder = tmp_path_factory.mktemp("recentre") / "sim"
    config = SimulationConfig(n_per_map=24, snr=0.5, box_size=24, spacing_angstrom=13.0, max_shift_voxels=4.0, seed=2)
    write_simulation({"bilobe": phantom("bilobe")}, config, folder)
    return folder


def with_true_poses(folder: Path, path: Path) -> Path:
    """The STAR of a simulation with the poses it was made with."""
    blocks, truth = starfile.read(folder / "particles.star", always_dict=True), pd.read_csv(folder / "truth.csv")
    blocks["particles"][["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]] = truth[["rot", "tilt", "psi"]]
    for axis in "XYZ":
        blocks["particles"][f"rlnOrigin{axis}Angst"] = truth[f"shift_{axis.lower()}_angstrom"]
    starfile.write(blocks, path)
    return path


@pytest.fixture
def posed(simulated: Path) -> Path:
    """The STAR with true poses, beside the particles."""
    path = simulated / "posed.star"
    return path if path.exists() else with_true_poses(simulated, path)


@pytest.mark.parametrize("on", ["mass", "origins"])
def test_particles_stay_where_they_are_in_the_tomogram_and_average_to_the_same_map(
    on: str, posed: Path, tmp_path: Path
) -> None:
    made = recentre_particles(RecentreRequest(posed, tmp_path / "out", on))  # type: ignore[arg-type]
    before, after = (read_star(star) for star in (posed, made.star))
    places = [read_positions(document, particle_block(document)).angstrom(13.0) for document in (before, after)]
    np.testing.assert_allclose(places[1], places[0], atol=1e-4)
    corner = [document.block("particles").column("rlnCoordinateX") for document in (before, after)]
    assert corner[0] != corner[1]
    maps = []
    for star in (posed, made.star):
        particles = read_particles(star)
        assert particles.poses is not None
        data, n = load_dataset(particles), len(particles)
        found = average_particles(
            ParticleStack(data.volumes, data.weights, data.weight_index),
            torch.from_numpy(particles.poses.rotations).float(),
            torch.from_numpy(particles.poses.origins_angstrom / 13.0).float(),
            np.arange(n) % 2 + 1,
        )
        maps.append(found.average.numpy())
    inside = np.linalg.norm(np.indices((24,) * 3) - 12, axis=0) < 8
    assert np.corrcoef(maps[0][inside], maps[1][inside])[0, 1] > 0.98


def test_by_origins_at_most_half_a_voxel_is_left_along_each_axis(posed: Path, tmp_path: Path) -> None:
    made = recentre_particles(RecentreRequest(posed, tmp_path / "out", "origins"))
    before, after = read_particles(posed).poses, read_particles(made.star).poses
    assert before is not None
    assert after is not None
    assert np.abs(before.origins_angstrom).max() > 26
    assert np.abs(after.origins_angstrom).max() <= 6.5 + 1e-4
    np.testing.assert_allclose(after.rotations, before.rotations, atol=1e-6)


def test_by_mass_particles_lie_nearer_to_the_middle(posed: Path, tmp_path: Path) -> None:
    made = recentre_particles(RecentreRequest(posed, tmp_path / "out"))
    poses = read_particles(made.star).poses
    assert poses is not None
    assert np.median(np.linalg.norm(poses.origins_angstrom, axis=1)) < 20
    shifts = pd.read_csv(tmp_path / "out" / "shifts.csv")
    moved, found = (shifts[[f"{what}_x", f"{what}_y", f"{what}_z"]].to_numpy() for what in ("moved", "found"))
    np.testing.assert_allclose(moved, found * made.moved[:, None], atol=1e-3)


def test_a_particle_that_seems_to_lie_too_far_off_stays_and_is_told(posed: Path, tmp_path: Path) -> None:
    made = recentre_particles(RecentreRequest(posed, tmp_path / "out", farthest_angstrom=45.0))
    assert 0 < made.moved.sum() < 24
    left = int(np.flatnonzero(~made.moved)[0])
    before, after = read_particles(posed), read_particles(made.star)
    with mrcfile.open(before.images[left].path) as old, mrcfile.open(after.images[left].path) as new:
        np.testing.assert_array_equal(new.data, old.data)


def test_particles_without_poses_and_weights_need_only_a_tilt_range(simulated: Path, tmp_path: Path) -> None:
    blocks = starfile.read(simulated / "particles.star", always_dict=True)
    blocks["particles"] = blocks["particles"].drop(columns="rlnCtfImage")
    starfile.write(blocks, simulated / "bare.star")
    made = recentre_particles(
        RecentreRequest(simulated / "bare.star", tmp_path / "out", input=InputOptions(tilt_range=(-60, 60)))
    )
    places = [read_star(star).block("particles") for star in (simulated / "bare.star", made.star)]
    moved = pd.read_csv(tmp_path / "out" / "shifts.csv")
    for axis in "XYZ":
        old, new = (np.array(block.column(f"rlnCoordinate{axis}"), dtype=float) for block in places)
        np.testing.assert_allclose((new - old) * 13.0, moved[f"moved_{axis.lower()}"], atol=1e-3)
    assert "rlnOriginXAngst" not in places[1]
    with pytest.raises(InputError, match="tilt range"):
        recentre_particles(RecentreRequest(simulated / "bare.star", tmp_path / "other"))


def test_without_poses_there_is_nothing_to_recentre_by(simulated: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no poses"):
        recentre_particles(RecentreRequest(simulated / "particles.star", tmp_path / "out", "origins"))
    assert not (tmp_path / "out").exists()


def test_a_name_that_stands_for_two_files_is_refused(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run where another set has the same names, the particles of the other set would be read."""
    other = tmp_path / "subtomograms"
    other.mkdir()
    names = read_star(simulated / "particles.star").block("particles").column("rlnImageName")
    with mrcfile.new(tmp_path / names[0]) as file:
        file.set_data(np.zeros((24,) * 3, np.float32))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="two files have this name") as caught:
        read_particles(simulated / "particles.star")
    assert str(tmp_path / names[0]) in str(caught.value)
    monkeypatch.chdir(simulated)
    assert len(read_particles(simulated / "particles.star")) == 24
