"""Benchmarks: what they read, and how they score phantoms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import adjusted_rand_score

from benchmarks import command
from benchmarks.images.bop import read_objects
from benchmarks.maps import align, import_tilt_stacks, real_ribosome, symmetry
from benchmarks.sets import ablation, floors, hard, recipes, supervised
from benchmarks.sets.recipes import SETS
from cryodc.dataset import at_box, random_view
from cryodc.errors import InputError
from cryodc.evaluation import pose_errors
from cryodc.fourier import view_mask
from cryodc.geometry import random_rotations, resample, symmetry_rotations
from cryodc.models import preset_config
from cryodc.particles import Poses
from cryodc.simulation import SimulationConfig, demo_phantoms, phantom, simulate_particles
from cryodc.templates import shapes
from cryodc.volumes import Volume
from tests.simulated import as_dataset


@pytest.fixture(scope="module")
def particles():
    config = SimulationConfig(n_per_map=12, box_size=16, spacing_angstrom=20.0, snr=float("inf"), max_shift_voxels=0.5)
    return simulate_particles(demo_phantoms(), config)


def test_clean_phantoms_are_told_apart_by_what_no_rotation_changes(particles):
    found = floors.invariant_mixture(particles, 4, seed=0)
    assert adjusted_rand_score(particles.labels, found) > 0.9


def test_clean_phantoms_are_told_apart_by_the_random_shapes_that_fit_them(particles, monkeypatch):
    monkeypatch.setattr(shapes, "N_SHAPES", 32)
    monkeypatch.setattr(shapes, "_N_SIMULATED", 40)
    found = floors.shape_mixture(particles, 4, seed=0)
    assert adjusted_rand_score(particles.labels, found) > 0.9


def test_clean_phantoms_are_told_apart_in_their_true_poses(particles):
    found = floors.oracle_mixture(particles, 4, seed=0, spacing_angstrom=20.0)
    assert adjusted_rand_score(particles.labels, found) > 0.9


def test_the_taught_classifier_tells_clean_phantoms_apart_and_never_saw_them(particles, monkeypatch):
    monkeypatch.setattr(supervised, "_FRESH_PER_MAP", 40)
    config = SimulationConfig(box_size=16, spacing_angstrom=20.0, snr=float("inf"), max_shift_voxels=0.5)
    fresh = supervised.fresh_particles({name: demo_phantoms()[name] for name in ("wheel", "clamp")}, config)
    seen = []

    def remembered(epoch):
        seen.append(fresh(epoch))
        return seen[-1]

    names = list(demo_phantoms())
    rows = np.flatnonzero(np.isin(particles.labels, [names.index("wheel"), names.index("clamp")]))
    fields = {**vars(particles), "volumes": particles.volumes[rows], "weight_index": particles.weight_index[rows]}
    some = type(particles)(**fields)
    spent = iter([0.0, 0.25, 0.5, 0.75, 1.0])
    found, epochs = supervised.supervised_labels(some, remembered, np.array([0, 1]), 0, lambda: next(spent))
    truth = particles.labels[rows] == names.index("clamp")
    assert np.mean(found == truth) > 0.9
    assert epochs == len(seen) == 4
    poses = np.concatenate([particles.poses.rotations, *(simulated.poses.rotations for simulated in seen)])
    assert len(np.unique(poses.round(6), axis=0)) == len(poses)


def test_the_taught_encoder_sees_views_as_training_draws_them():
    """Particles of box 32, of which the network sees box 20."""
    made = simulate_particles({"wheel": phantom("wheel")}, SimulationConfig(n_per_map=3, box_size=32, seed=2))
    config, rows = preset_config("default", 32), torch.tensor([2, 0])
    dataset, views = at_box(
        as_dataset(made.volumes, made.weights, torch.as_tensor(made.weight_index)), config.views, config.model.box_size
    )
    volumes, weights = next(iter(dataset.batches([rows])))
    expected = random_view(volumes, weights, view_mask(20), views, torch.Generator().manual_seed(4)).volumes
    found = supervised._views(made, rows, config, torch.Generator().manual_seed(4))
    torch.testing.assert_close(found, expected)


def test_invariant_features_do_not_change_with_a_quarter_turn(particles):
    fields = {**vars(particles), "weights": torch.ones_like(particles.weights)}
    # Index N // 2 is the centre, so that a quarter turn about z keeps it only for the odd box without the first slice.
    inner = particles.volumes.clone()
    inner[:, 0], inner[:, :, 0], inner[:, :, :, 0] = 0, 0, 0
    turned = inner.clone()
    turned[:, 1:, 1:, 1:] = inner[:, 1:, 1:, 1:].rot90(1, (2, 3))
    first = floors.invariant_features(type(particles)(**{**fields, "volumes": inner}))
    second = floors.invariant_features(type(particles)(**{**fields, "volumes": turned}))
    assert np.abs(first - second).max() < 1e-3
    assert first.std(axis=0).max() > 0.1


def test_the_wedge_shows_in_features_that_no_rotation_changes_and_the_pose_does_not():
    config = SimulationConfig(n_per_map=120, box_size=16, spacing_angstrom=20.0, snr=float("inf"), max_shift_voxels=0.0)
    bilobe = simulate_particles({"bilobe": demo_phantoms()["bilobe"]}, config)
    pose, wedge = (row["content"] for row in floors.feature_leakage(bilobe))
    assert wedge["value"] > 0.3
    assert pose["value"] < 0.05


def test_twist_turns_each_slice_by_its_height():
    voxels = np.zeros((32, 32, 32), dtype=np.float32)
    voxels[:, 16, 24] = 1
    twisted = recipes.twist(Volume(voxels, 10.0), 90.0).voxels
    assert np.unravel_index(twisted[16].argmax(), (32, 32)) == (16, 24)
    up, down = (np.unravel_index(twisted[z].argmax(), (32, 32)) for z in (26, 6))
    assert {up, down} == {(8, 16), (24, 16)}


def _changed(preset, settings, epochs):
    """The settings in which a row differs from its preset of as many epochs."""
    before, after = (
        preset_config(preset, 32, s).model_dump() for s in ({"optimisation": {"epochs": epochs}}, settings)
    )
    return {f"{s}.{k}" for s in before for k in before[s] if before[s][k] != after[s][k]}


def test_each_row_of_differences_changes_one_setting():
    for name, (preset, settings) in ablation.rows("differences", "default", 7).items():
        assert _changed(preset, settings, 7) == (set() if name in ("whole", "paper") else {name})


@pytest.mark.parametrize("preset", ["default", "digits"])
def test_each_row_of_removals_takes_something_from_the_preset(preset):
    table = ablation.rows("removals", preset, 7)
    changed = {name: frozenset(_changed(preset, settings, 7)) for name, (_, settings) in table.items()}
    assert changed.pop("whole") == frozenset()
    assert all(changed.values())
    assert len(set(changed.values())) == len(changed)
    weights = {"content_weight", "transformation_weight", "reconstruction_weight", "kl_weight"}
    assert {f"loss.{weight}" for weight in weights} <= set().union(*changed.values())
    assert not any("epochs" in setting for row in changed.values() for setting in row)


def test_rows_of_the_network_alone_have_no_templates():
    table = ablation.network_alone(ablation.rows("removals", "default", 7))
    configs = [preset_config(preset, 32, settings) for preset, settings in table.values()]
    assert {config.templates.n_templates for config in configs} == {0}
    assert {"whole", "without content contrast", "without wedge on views"} <= set(table)
    assert not {"without templates", "without wedge correction of scores"} & set(table)
    assert len({config.model_dump_json() for config in configs}) == len(configs)


def test_pose_errors_are_modulo_axes_wherever_they_lie():
    """A map of D2 turned and moved: a pose and its mates are the same, one that is 20° off is not."""
    half = phantom("bilobe").mean_map(24, 14.0)
    mates = torch.from_numpy(symmetry_rotations("D2")).float()
    upright = resample(half.expand(4, -1, -1, -1).contiguous(), mates).sum(dim=0)
    turn = random_rotations(1, torch.Generator().manual_seed(2))
    voxels = resample(upright[None], turn, torch.tensor([[0.6, -0.4, 0.3]]))[0]
    truth = Volume(voxels.numpy(), 14.0)
    generator = torch.Generator().manual_seed(3)
    rotations = random_rotations(30, generator).double().numpy()
    origins = torch.randn(30, 3, generator=generator).double().numpy()
    # truth(x) = upright(T x + s), so its mates are T⁻¹ g T about the point −T⁻¹ s.
    frame, centre = turn[0].double().numpy(), np.array([0.6, -0.4, 0.3]) * 14.0
    symmetric = frame.T @ mates.double().numpy()[np.arange(30) % 4] @ frame
    middle = -frame.T @ centre
    moved = origins + np.einsum("nij,nj->ni", rotations @ (symmetric - np.eye(3)), middle[None].repeat(30, axis=0))
    estimated = Poses(rotations @ symmetric, moved)
    on_axes = hard.poses_on_axes(Poses(rotations, origins), truth, "D2")
    errors = pose_errors(estimated, on_axes, "D2")
    assert errors.median_degrees < 2.0
    assert errors.median_shift_angstrom < 3.0
    assert pose_errors(estimated, Poses(rotations, origins), "C1").median_degrees > 20.0
    with pytest.raises(ValueError, match="not D7"):
        hard.poses_on_axes(Poses(rotations, origins), truth, "D7")


def test_a_tetrasome_is_a_state_of_the_nucleosome_in_the_published_set():
    paper, published = SETS["paper"], SETS["paper"].published_of_source()
    of_name = dict(zip((source.name for source in paper.sources), published.tolist(), strict=True))
    assert of_name["1kx5"] == of_name["1KX5_cryst_tetrasome_coiled_for_web_state3"]
    assert sorted(set(of_name.values())) == [0, 1, 2]
    assert of_name["6vxx"] == of_name["6xcm"] != of_name["2uv8_twist+15"]
    assert SETS["hard"].published_of_source() is None


def _scene(folder: Path, box: list[int]) -> None:
    (folder / "000002" / "rgb").mkdir(parents=True)
    picture = np.zeros((48, 60, 3), dtype=np.uint8)
    picture[10:30, 5:15] = (255, 128, 0)
    Image.fromarray(picture).save(folder / "000002" / "rgb" / "000007.png")
    pose = {"cam_R_m2c": [0, -1, 0, 1, 0, 0, 0, 0, 1], "cam_t_m2c": [0, 0, 400], "obj_id": 2}
    (folder / "000002" / "scene_gt.json").write_text(json.dumps({"7": [pose, pose]}))
    boxes = [{"bbox_visib": box}, {"bbox_visib": [-1, -1, -1, -1]}]
    (folder / "000002" / "scene_gt_info.json").write_text(json.dumps({"7": boxes}))


def test_objects_are_cut_by_their_bounding_box(tmp_path):
    _scene(tmp_path, [5, 10, 10, 20])
    objects = read_objects(tmp_path)
    assert objects.names == ("000002/000007/0",)
    assert objects.images.shape == (1, 3, 64, 64)
    assert np.allclose(objects.images[0].reshape(3, -1).T, [1, 128 / 255, 0])
    assert objects.labels.tolist() == [2]
    assert np.array_equal(objects.rotations[0] @ [1, 0, 0], [0, 1, 0])


def test_a_box_outside_its_picture_is_named(tmp_path):
    _scene(tmp_path, [55, 10, 10, 20])
    with pytest.raises(InputError, match=r"000007\.png"):
        read_objects(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    _scene(tmp_path, [5, 10, 10, 20])
    (tmp_path / "000002" / "scene_gt_info.json").unlink()
    with pytest.raises(InputError, match=r"scene_gt_info\.json"):
        read_objects(tmp_path)


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (align, ["--maps", "nowhere"]),
        (align, ["--only", "titin"]),
        (real_ribosome, ["--data", "nowhere"]),
        (import_tilt_stacks, ["--data", "nowhere"]),
        (symmetry, ["--data", "nowhere"]),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(module, options, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark", *options])
    with pytest.raises(SystemExit) as stopped:
        command.run(module.main)
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: ")
    assert len(told.splitlines()) == 1
