"""Simulated neighbours, and settings that no microscope has."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.simulate import simulate

from cryodc.errors import InputError
from cryodc.io import read_volume
from cryodc.simulation import (
    Crowding,
    SimulatedTiltSeries,
    SimulationConfig,
    demo_phantoms,
    draw_truth,
    prepare_specimens,
    simulate_particles,
)
from cryodc.simulation.scene import map_scales, neighbours_of, render
from cryodc.simulation.tilt_images import (
    project,
    project_scene,
)
from tests.simulation.barrel import BARREL, SPACING, N


def test_neighbours_keep_their_distance_and_come_in_the_number_asked_for() -> None:
    density, distance = 40000.0, 150.0
    config = SimulationConfig(n_per_map=100, crowding=Crowding(density, distance))
    specimens = prepare_specimens(demo_phantoms(), N, SPACING)
    truth = draw_truth(specimens, config)
    assert truth.extra["n_neighbours"].mean() == pytest.approx(
        density * 1e-12 * 4 / 3 * math.pi * (320.0**3 - 150.0**3), rel=0.06
    )
    for row in range(0, 400, 10):
        n = neighbours_of(row, truth, config)
        assert len(n) == truth.extra["n_neighbours"][row]
        points = np.vstack([-truth.poses.origins_angstrom[row], n.centres_angstrom.numpy()])
        gaps = np.linalg.norm(points[:, None] - points, axis=-1)[np.triu_indices(len(points), 1)]
        assert (gaps >= distance).all()
        assert np.linalg.norm(points - points[0], axis=1).max() <= 320.0


def test_neighbours_are_in_the_box_and_the_particle_and_its_noise_as_they_were() -> None:
    plain = SimulationConfig(n_per_map=4, tilt_ranges=((-90.0, 90.0),), snr=1.0)
    crowded = SimulationConfig(n_per_map=4, tilt_ranges=((-90.0, 90.0),), snr=1.0, crowding=Crowding(40000, 150.0))
    one, other = (simulate_particles(demo_phantoms(), config) for config in (plain, crowded))
    assert np.array_equal(one.poses.rotations, other.poses.rotations)
    specimens = prepare_specimens(demo_phantoms(), N, SPACING)
    difference = other.volumes - one.volumes
    for row in range(len(one.truth)):
        n = neighbours_of(row, other.truth, crowded)
        size = float(render(specimens, one.truth, slice(row, row + 1), plain).abs().max())
        reaching = n.centres_angstrom.abs().amax(dim=1) < 110.0
        if bool(reaching.any()):
            assert float(difference[row].max()) > 0.1 * size
            centre = (n.centres_angstrom[reaching][0] / SPACING).round().long() + N // 2
            around = difference[row][tuple(slice(int(c) - 4, int(c) + 5) for c in centre)]
            assert float(around.mean()) > 2 * float(difference[row].mean())
        if len(n) == 0:
            assert float(difference[row].abs().max()) < 1e-4 * size


def test_neighbours_project_to_where_they_stand() -> None:
    """Against the shadow of the whole crowd, drawn in one box three times as wide."""
    config = SimulationConfig(n_per_map=3, seed=2, crowding=Crowding(40000, 150.0), tilt_series=SimulatedTiltSeries())
    specimens = prepare_specimens(BARREL, N, SPACING)
    truth = draw_truth(specimens, config)
    scales = map_scales(specimens, config)
    angles = np.array([-50.0, 0.0, 36.0])
    clean, images = project_scene(specimens, truth, [0, 1, 2], angles, config, scales)
    wide = 3 * N
    for row in range(3):
        n = neighbours_of(row, truth, config)
        assert len(n) >= 2
        rotations = torch.cat([torch.from_numpy(truth.poses.rotations[row : row + 1]), n.rotations.double()])
        origins = torch.cat([torch.from_numpy(truth.poses.origins_angstrom[row : row + 1]), -n.centres_angstrom])
        crowd = specimens["barrel"].render(rotations, origins, torch.zeros(len(origins)), wide, SPACING).sum(dim=0)
        shadow = project((crowd / scales["barrel"])[None], angles, "y")[0]
        middle, box = slice(wide - N // 2, wide + N // 2), slice(N // 2, N + N // 2)
        expected, found = shadow[:, middle, middle], images[row, :, box, box]
        alone = project(clean[row : row + 1], angles, "y")[0, :, box, box]
        assert float((expected - alone).std()) > 0.1 * float(expected.std())
        assert float((expected - found).std()) < 0.02 * float(expected.std())


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"tilt_series": {"step_degrees": 0.0}}, "tilt step"),
        ({"tilt_series": {"defocus_micrometres": (4.0, 2.0)}}, "defocus"),
        ({"tilt_series": {"amplitude_contrast": 2.0}}, "amplitude contrast"),
        ({"tilt_series": {"dose_per_tilt": -1.0}}, "dose per tilt"),
        ({"crowding": {"per_cubic_micrometre": 1e6, "min_distance_angstrom": 200.0}}, "crowd"),
    ],
)
def test_settings_no_microscope_has_are_refused(wrong: dict[str, dict[str, float]], problem: str) -> None:
    kinds = {"tilt_series": SimulatedTiltSeries, "crowding": Crowding}
    with pytest.raises(InputError, match=problem):
        SimulationConfig(**{key: kinds[key](**value) for key, value in wrong.items()})


def test_without_the_new_options_nothing_new_is_written(tmp_path: Path) -> None:
    """The default's files, as they were before there were tilt series, and a few voxels of them."""
    result = CliRunner().invoke(simulate, ["--n", "3", "--out", str(tmp_path / "sim")])
    assert result.exit_code == 0, result.output
    header = (tmp_path / "sim/truth.csv").read_text().splitlines()[0]
    assert header == (
        "name,protein,state,rot,tilt,psi,shift_x_angstrom,shift_y_angstrom,shift_z_angstrom,tomogram,symmetry"
    )
    assert "tilt_series" not in (tmp_path / "sim/simulation.yaml").read_text()
    assert "rlnDefocusU" not in (tmp_path / "sim/particles.star").read_text()
    voxels = read_volume(tmp_path / "sim/subtomograms/particle000001.mrc").voxels
    assert voxels[16, 16, 14:18] == pytest.approx(VOXELS, rel=1e-4)


VOXELS = [2.0904775, 1.2294528, 5.5265265, 2.0022459]
