import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from acryo import Molecules, SubtomogramLoader
from acryo.tilt import single_axis
from click.testing import CliRunner
from cryodc_cli.learn.average import _symmetries
from cryodc_cli.learn.average import average as average_command
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from cryodc.alignment import balanced_halves
from cryodc.averaging import AverageRequest, average_run
from cryodc.averaging.place import symmetry_of
from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.evaluation import evaluate_run
from cryodc.fourier import (
    ParticleStack,
    apply_weight,
    crop_weights,
    density_mask,
    fourier_ball,
    fourier_shell_correlation,
    low_pass,
    shell_index,
    soft_sphere,
    volume_from_ball,
    wedge_from_tilt_range,
)
from cryodc.geometry import matrices_from_euler, random_rotations
from cryodc.io import read_volume, write_volume
from cryodc.maps import average_particles, average_sums, half_maps
from cryodc.models import preset_config
from cryodc.particles import read_particles, with_poses
from cryodc.runs import RunFolder, current_classes, load_run_particles, save_codes, save_config
from cryodc.simulation import SimulationConfig, phantom, read_truth, write_simulation
from cryodc.star import particle_block, read_star, write_star
from cryodc.training import TrainRequest, describe_run
from cryodc.volumes import Volume
from tests.made_runs import make_clusters
from tests.simulated import centred_blobs

BOX = 32
CENTRES = torch.tensor([[0.0, 1.0, -5.0], [4.0, -2.0, 1.0], [-2.0, 4.5, 2.0], [1.0, 5.0, -1.0], [-6.0, -1.0, 0.5]])


def blobs(centres: torch.Tensor) -> torch.Tensor:
    return centred_blobs(centres, BOX, 1.3)


def particles(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Exact phantoms in exact poses: a point c of the reference lies at A c − o in the particle."""
    generator = torch.Generator().manual_seed(seed)
    rotations, origins = random_rotations(n, generator), torch.randn(n, 3, generator=generator)
    volumes = torch.stack([blobs(CENTRES @ a.T - o) for a, o in zip(rotations, origins, strict=True)])
    return volumes, rotations, origins


def test_no_shell_of_an_average_is_lost_and_none_pulled_towards_zero_by_wedges() -> None:
    volumes, rotations, origins = particles(30)
    weights = torch.stack([wedge_from_tilt_range(BOX, -60, 60), wedge_from_tilt_range(BOX, -45, 50, "x")])
    index = torch.arange(30) % 2
    seen = apply_weight(volumes, weights[index])
    ball = fourier_ball(BOX, BOX / 2)
    top, bottom = average_sums(ParticleStack(seen, weights, index), rotations, origins, ball)
    average = volume_from_ball(top / (bottom + 1e-3), ball)
    truth = blobs(CENTRES)
    fsc = fourier_shell_correlation(average, truth)
    assert fsc[1:12].min() > 0.99
    assert fsc[12] > 0.95
    power = [float(torch.fft.rfftn(v).abs()[shell_index(BOX) == 8].square().sum().sqrt()) for v in (average, truth)]
    assert power[0] / power[1] == pytest.approx(1, abs=0.03)


def test_an_average_agrees_with_one_written_with_scipy() -> None:
    """RELION: shift by +origin, then rotate by A; weights turn with the particles."""
    rng = np.random.default_rng(0)
    angles = rng.uniform(-180, 180, (6, 3))
    origins = rng.normal(size=(6, 3))
    rotations = matrices_from_euler(angles)
    volumes = torch.stack(
        [
            blobs(CENTRES @ torch.tensor(a).float().T - torch.tensor(o).float())
            for a, o in zip(rotations, origins, strict=True)
        ]
    )
    weight = wedge_from_tilt_range(BOX, -60, 60)
    seen = apply_weight(volumes, weight)
    centre = np.full(3, BOX // 2)
    full = np.fft.fftshift(
        np.abs(np.fft.fftn(np.fft.irfftn(weight.numpy(), s=(BOX,) * 3, axes=(0, 1, 2)))) > 0.5
    ).astype(float)
    numerator, denominator = np.zeros((BOX,) * 3, complex), np.zeros((BOX,) * 3)
    reverse = np.eye(3)[::-1]
    for volume, (rot, tilt, psi), origin in zip(seen.numpy(), angles, origins, strict=True):
        a, b, c = np.radians([rot, tilt, psi])

        def about_z(t: float) -> np.ndarray:
            return np.array([[np.cos(t), np.sin(t), 0], [-np.sin(t), np.cos(t), 0], [0, 0, 1]])

        about_y = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
        matrix = reverse @ (about_z(c) @ about_y @ about_z(a)) @ reverse
        turned = affine_transform(volume, matrix, centre - origin - matrix @ centre, order=3)
        numerator += np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(turned)))
        denominator += affine_transform(full, matrix, centre - matrix @ centre, order=1)
    twin = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(numerator / (denominator + 0.3))).real)
    ball = fourier_ball(BOX, BOX / 2)
    top, bottom = average_sums(
        ParticleStack(seen, weight[None], torch.zeros(6, dtype=torch.long)), torch.tensor(rotations).float(),
        torch.tensor(origins).float(), ball,
    )  # fmt: skip
    ours = volume_from_ball(top / (bottom + 0.3), ball)
    assert fourier_shell_correlation(ours, torch.tensor(twin).float())[1:10].min() > 0.98


def test_an_average_agrees_with_acryos() -> None:
    """acryo's wedge-weighted average, ``ΣWF / (ΣW + c·n)``, of the same particles laid side by side."""
    n, constant = 8, 0.1
    volumes, rotations, origins = particles(n)
    weight = wedge_from_tilt_range(BOX, -60, 60)
    seen = apply_weight(volumes, weight)
    matrices = rotations.double().numpy()
    # acryo's box centre is (N − 1) / 2: half a voxel, turned with the particle, before ours.
    positions = np.full((n, 3), BOX / 2) - origins.numpy() - matrices.sum(axis=2) / 2
    positions[:, 0] += BOX * np.arange(n)
    molecules = Molecules(positions, Rotation.from_matrix(matrices))
    loader = SubtomogramLoader(
        np.concatenate(list(seen.numpy())),
        molecules,
        order=3,
        output_shape=(BOX,) * 3,
        tilt_model=single_axis((-60, 60), axis="y"),
    )
    acryos = torch.tensor(np.asarray(loader.average(wedge_weighting=True, wiener_constant=constant))).float()
    ball = fourier_ball(BOX, BOX / 2)
    top, bottom = average_sums(
        ParticleStack(seen, weight[None], torch.zeros(n, dtype=torch.long)), rotations, origins, ball
    )
    ours = volume_from_ball(top / (bottom + constant * n), ball)
    assert fourier_shell_correlation(ours, acryos)[1:10].min() > 0.98


def test_batches_do_not_change_an_average(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes, rotations, origins = particles(7)
    weight, index = wedge_from_tilt_range(BOX, -60, 60)[None], torch.zeros(7, dtype=torch.long)
    ball = fourier_ball(BOX, 8.0)
    one, all_at_once = [], []
    for size, found in ((1, one), (7, all_at_once)):
        monkeypatch.setattr(half_maps, "_AT_ONCE", size)
        found += average_sums(ParticleStack(volumes, weight, index), rotations, origins, ball)
    for a, b in zip(one, all_at_once, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_halves_of_noise_have_no_resolution_and_halves_of_signal_do() -> None:
    volumes, rotations, origins = particles(40)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(volumes.shape, generator=generator)
    weight, index = wedge_from_tilt_range(BOX, -60, 60)[None], torch.zeros(40, dtype=torch.long)
    halves = balanced_halves(40, 0)
    empty = average_particles(ParticleStack(apply_weight(noise, weight), weight, index), rotations, origins, halves)
    assert np.abs(empty.fsc[2:]).max() < 0.35
    seen = apply_weight(volumes + 0.3 * noise, weight)
    maps = average_particles(ParticleStack(seen, weight, index), rotations, origins, halves)
    assert maps.fsc[1:7].min() > 0.5
    truth = blobs(CENTRES)
    inside = soft_sphere(BOX, 11, 3)
    joint, single = (
        fourier_shell_correlation(v * inside, truth * inside)[4:8].mean() for v in (maps.average, maps.halves[0])
    )
    assert joint > single
    assert maps.score > 5 * abs(empty.score)


def test_a_mask_holds_the_density_and_leaves_the_corners() -> None:
    truth = blobs(CENTRES)
    mask = density_mask(truth)
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1
    assert float((truth * mask).sum() / truth.sum()) > 0.97
    assert 0.02 < float(mask.mean()) < 0.5
    assert float(mask[0].max()) == 0


def test_weights_are_cropped_as_volumes_are() -> None:
    weight = wedge_from_tilt_range(32, -50, 60)
    expected = wedge_from_tilt_range(16, -50, 60)
    ball = fourier_ball(16, 7.0)
    assert crop_weights(weight, 16).shape == expected.shape
    torch.testing.assert_close(crop_weights(weight, 16).flatten()[ball.index], expected.flatten()[ball.index])


@pytest.mark.parametrize("n", [1, 7, 40])
def test_halves_are_balanced_and_follow_the_seed(n: int) -> None:
    halves = balanced_halves(n, 3)
    assert set(halves.tolist()) <= {1, 2}
    assert abs(int((halves == 1).sum()) - int((halves == 2).sum())) <= 1
    np.testing.assert_array_equal(halves, balanced_halves(n, 3))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A clustered run: 24 particles with their true poses, and a third class of two particles."""
    proteins = {name: phantom(name) for name in ("wheel", "clamp")}
    write_simulation(proteins, SimulationConfig(n_per_map=12, snr=1.0), tmp_path / "sim")
    truth = read_truth(tmp_path / "sim/truth.csv")
    star = tmp_path / "sim/particles.star"
    table = read_particles(star)
    posed = tmp_path / "sim/posed.star"
    write_star(with_poses(read_star(star), truth.poses, table), posed)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    request = TrainRequest(star=posed, out=folder.path, tilt_range=(-60.0, 60.0))
    save_config(folder, describe_run(request, read_particles(posed), preset_config("default", 32)))
    folder.particles.write_bytes(posed.read_bytes())
    labels = truth.labels.copy()
    labels[:2] = 2
    save_codes(folder, Codes(table.names, *[np.zeros((len(labels), 2), np.float32)] * 4))
    make_clusters(folder, table.names, labels.tolist())
    return folder


def test_averages_in_the_poses_of_the_star_leave_poses_as_written(run: RunFolder) -> None:
    results = average_run(run)
    before, after = (particle_block(read_star(path)) for path in (run.particles, run.averages / "particles.star"))
    for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnImageName"):
        assert before.column(label) == after.column(label)
    labels = json.loads((run.clusters / "summary.json").read_text())["labels"]
    assert after.column("rlnClassNumber") == [str(label + 1) for label in labels]
    assert set(after.column("rlnRandomSubset")) == {"1", "2"}
    summary = json.loads((run.averages / "summary.json").read_text())
    assert summary["poses"] == "star"
    assert "not gold standard" in summary["half_sets"]
    assert [entry["class"] for entry in summary["classes"]] == [1, 2, 3]
    assert [result.n_particles for result in results] == np.bincount(labels).tolist()
    spacing = load_run_particles(run).spacing_angstrom
    for suffix in ("", "_half1", "_half2", "_mask"):
        volume = read_volume(run.averages / f"class001{suffix}.mrc")
        assert volume.box_size == 32
        assert volume.spacing_angstrom == pytest.approx(spacing)
    lines = (run.averages / "fsc.csv").read_text().splitlines()
    assert lines[0].startswith("class,shell,frequency_inverse_angstrom,fsc,fsc_unmasked,fsc_masked,fsc_randomised")
    assert len(lines) == 1 + 3 * 17
    truth = read_truth(run.path.parent / "sim/truth.csv")
    name = truth.proteins[0]
    expected = low_pass(phantom(name).mean_map(32, spacing), 8.0)
    average = torch.from_numpy(read_volume(run.averages / "class001.mrc").voxels)
    assert fourier_shell_correlation(average, expected)[1:6].min() > 0.9


@pytest.mark.parametrize("spelling", ["{}", "{}.0", "{}.000000", "+{}"])
def test_particles_keep_their_half_sets_however_these_are_written(run: RunFolder, spelling: str) -> None:
    document = read_star(run.particles)
    block = particle_block(document)
    halves = [1 + (i % 3 == 0) for i in range(block.n_rows)]
    texts = [spelling.format(half) for half in halves]
    run.particles.unlink()
    run.particles.write_text(document.with_column(block.name, "rlnRandomSubset", texts).text())
    average_run(run)
    assert particle_block(read_star(run.averages / "particles.star")).column("rlnRandomSubset") == texts
    assert "rlnRandomSubset of the STAR" in json.loads((run.averages / "summary.json").read_text())["half_sets"]


def test_ignored_poses_are_not_averaged_in_and_tiny_classes_say_so(run: RunFolder) -> None:
    told: list[str] = []
    results = average_run(
        run, AverageRequest(ignore_poses=True, classify=False, n_starts=1, low_pass_angstrom=80.0), told.append
    )
    assert not results[2].aligned
    assert "too few particles" in results[2].note
    assert results[2].resolution_angstrom is None
    assert any(line.startswith("class 1 of 3") for line in told)
    verdicts = [result.verdict.kind for result in results]
    assert verdicts[2] == "no-common-structure"
    block = particle_block(read_star(run.averages / "particles.star"))
    assert block.column("cdcVerdict") == [verdicts[int(number) - 1] for number in block.column("rlnClassNumber")]
    summary = json.loads((run.averages / "summary.json").read_text())
    assert summary["poses"] == "aligned"
    assert "up to shell 4;" in summary["half_sets"]
    assert read_particles(run.averages / "particles.star", check_images=False).poses is not None


def test_the_command_prints_size_resolution_and_alignment_of_every_class(run: RunFolder) -> None:
    done = CliRunner().invoke(average_command, [str(run.path), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    lines = [line.replace("│", " ").split() for line in done.output.splitlines()]
    printed = {words[0]: words[1:4] for words in lines if len(words) > 3 and words[0].isdigit() and words[1].isdigit()}
    classes = json.loads((run.averages / "summary.json").read_text())["classes"]
    assert list(printed) == [str(found["class"]) for found in classes]
    for found in classes:
        size, resolution, *_ = printed[str(found["class"])]
        assert int(size) == found["n_particles"]
        known = found["resolution_angstrom"]
        assert resolution == ("–" if known is None else f"{known:.1f}")


def test_classified_averages_lose_no_particle_and_say_where_each_came_from(run: RunFolder) -> None:
    results = average_run(run, AverageRequest(ignore_poses=True, n_starts=1, classify=True))
    rows = list(csv.DictReader((run.averages / "assignments.csv").read_text().splitlines()))
    block = particle_block(read_star(run.averages / "particles.star"))
    assert block.column("rlnClassNumber") == [row["class"] for row in rows]
    assert [row["particle"] for row in rows] == block.column("rlnImageName")
    sizes = np.bincount([int(row["class"]) for row in rows], minlength=len(results) + 1)
    assert [result.n_particles for result in results] == sizes[1:].tolist()
    stated = json.loads((run.averages / "summary.json").read_text())["classification"]
    labels = json.loads((run.clusters / "summary.json").read_text())["labels"]
    for cluster in range(3):
        ends = [int(row["class"]) for row in rows if int(row["cluster"]) == cluster + 1]
        assert len(ends) == labels.count(cluster)
        assert stated["cluster_to_class"][cluster] == [ends.count(k + 1) for k in range(len(results))]
    # Two particles make no reference: they go to the classes of their proteins.
    scores = evaluate_run(run, run.path.parent / "sim/truth.csv").final_classes
    assert scores is not None
    assert scores.ari == 1.0
    classes = current_classes(run)
    assert (classes.labels + 1).tolist() == [int(row["class"]) for row in rows]


def test_the_mask_of_a_class_takes_the_place_of_its_automatic_one(run: RunFolder, tmp_path: Path) -> None:
    average_run(run)
    automatic = [read_volume(run.averages / f"class00{k}_mask.mrc").voxels for k in (1, 2)]
    given = (1 - torch.linspace(0, 1, BOX)[:, None, None].expand(BOX, BOX, BOX)) * soft_sphere(BOX, 9, 4)
    path = tmp_path / "half.mrc"
    write_volume(path, Volume(given.contiguous().numpy(), load_run_particles(run).spacing_angstrom))
    average_run(run, AverageRequest(masks={1: path}))
    np.testing.assert_allclose(read_volume(run.averages / "class001_mask.mrc").voxels, given, atol=1e-6)
    np.testing.assert_array_equal(read_volume(run.averages / "class002_mask.mrc").voxels, automatic[1])
    assert json.loads((run.averages / "summary.json").read_text())["masks"] == {"1": str(path)}


def test_a_low_pass_that_nothing_can_start_at_is_refused(run: RunFolder) -> None:
    """Box 32 at 10 Å: halves are judged by shells 10 to 12, the last before 0.8 of Nyquist, if not before."""
    for coarse_or_fine in (110.0, 31.9, 15.0):
        with pytest.raises(InputError, match=r"Nyquist is 20 Å"):
            average_run(run, AverageRequest(ignore_poses=True, low_pass_angstrom=coarse_or_fine))
    with pytest.raises(InputError, match="taken as they are"):
        average_run(run, AverageRequest(low_pass_angstrom=60.0))
    assert not run.averages.exists()


def test_symmetry_of_a_class_that_is_not_there_is_refused(run: RunFolder) -> None:
    with pytest.raises(InputError, match="not there"):
        average_run(run, AverageRequest(symmetries={4: "C2"}))
    assert not run.averages.exists()


def test_symmetry_is_by_class_or_for_all() -> None:
    given = _symmetries(("d2", "1:D7"))
    assert [symmetry_of(number, given) for number in (1, 2, 3)] == ["D7", "D2", "D2"]
    assert symmetry_of(1, None) == "C1"
    for wrong in ("Q3", "x:C2", "0:C2"):
        with pytest.raises(InputError):
            _symmetries((wrong,))
