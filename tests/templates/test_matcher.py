"""What a run learned is kept: other particles get codes as its own did, and learning goes on after a kill."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryodc.clustering import cluster_codes, clusters_of_new
from cryodc.codes import Codes
from cryodc.dataset import SubtomogramDataset
from cryodc.errors import InputError
from cryodc.models import TemplateConfig
from cryodc.runs import RunFolder
from cryodc.simulation import SimulationConfig, demo_phantoms, simulate_particles
from cryodc.templates import add_template_code, forget_steps, with_templates_of
from cryodc.templates.learn import learn_templates
from tests.kills import Killed, at_every_operation, content, hidden, killed_at
from tests.simulated import as_dataset
from tests.templates.test_templates import CPU, codes_of, make_small

CONFIG = TemplateConfig(n_templates=3, particles_per_template=30, n_axes=2)


def phantoms(n_per_map: int, seed: int) -> tuple[SubtomogramDataset, np.ndarray]:
    config = SimulationConfig(
        n_per_map=n_per_map, box_size=20, spacing_angstrom=16.0, snr=0.3, max_shift_voxels=0.5, seed=seed
    )
    known = demo_phantoms()
    particles = simulate_particles({name: known[name] for name in ("wheel", "barrel")}, config)
    return as_dataset(particles.volumes, particles.weights, torch.as_tensor(particles.weight_index)), particles.labels


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, SubtomogramDataset, Codes]:
    dataset, _ = phantoms(50, 1)
    run = RunFolder(tmp_path_factory.mktemp("matcher") / "run")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        codes = add_template_code(run, dataset, codes_of(dataset.names, None), CONFIG, 2, CPU)
    return run, dataset, codes


def test_new_particles_fall_into_the_clusters_of_their_proteins(
    learned: tuple[RunFolder, SubtomogramDataset, Codes],
) -> None:
    run, _, codes = learned
    new, labels = phantoms(30, 7)
    found = with_templates_of(run, new, codes_of(new.names, None), 0, CPU)
    clusters = cluster_codes(codes, 2)
    classes, confidence = clusters_of_new(codes, clusters, found)
    assert adjusted_rand_score(labels, classes) > 0.85
    assert np.all((confidence >= 0.5) & (confidence <= 1.0))


def test_a_damaged_matcher_is_one_error(learned: tuple[RunFolder, SubtomogramDataset, Codes], tmp_path: Path) -> None:
    run, dataset, _ = learned
    other = RunFolder(tmp_path)
    other.templates.mkdir()
    for name in ("groups.npz", "matcher.pt"):
        (other.templates / name).write_bytes((run.templates / name).read_bytes())
    (other.templates / "matcher.pt").write_bytes(b"no archive")
    with pytest.raises(InputError, match="damaged"):
        with_templates_of(other, dataset, codes_of(dataset.names, None), 0, CPU)


@pytest.mark.parametrize(
    ("text", "once"),
    [("2 of 3", "template 1 of 3"), ("averaged anew", "3 of 3"), ("placing all", "matching all particles")],
)
def test_learning_goes_on_after_a_kill_to_the_same_codes(
    text: str, once: str, learned: tuple[RunFolder, SubtomogramDataset, Codes], tmp_path: Path
) -> None:
    _, dataset, codes = learned
    kept, told = tmp_path / "learning.pt", []

    def kill(said: str) -> None:
        told.append(said)
        if text in said:
            raise Killed(said)

    with pytest.raises(Killed):
        learn_templates(dataset, CONFIG, seed=2, progress=kill, kept=kept)
    assert any(once in said for said in told)
    told.clear()
    found = learn_templates(dataset, CONFIG, seed=2, progress=told.append, kept=kept)
    assert found is not None
    np.testing.assert_array_equal(found.points, codes.content_points)
    np.testing.assert_array_equal(found.placed, codes.template_pose)
    # Of what was done before, nothing is done again.
    assert not any(once in said or "random shapes" in said for said in told)
    assert any("done before" in said or "going on" in said for said in told)


def test_learning_that_is_killed_while_it_writes_goes_on_to_the_same_codes(
    learned: tuple[RunFolder, SubtomogramDataset, Codes], tmp_path: Path
) -> None:
    _, dataset, codes = learned
    run, told = RunFolder(tmp_path / "run"), []
    with at_every_operation(tmp_path, lambda: None) as operations:
        add_template_code(run, dataset, codes_of(dataset.names, None), CONFIG, 2, CPU)
    whole = content(run.path)
    # The last states are those of the groups, one of them placed.
    groups = [k for k, operation in enumerate(operations) if "placed" in operation]
    for k in (groups[len(groups) // 2], random.Random(7).randrange(len(operations))):
        shutil.rmtree(run.path)
        with killed_at(tmp_path, k + 1):
            add_template_code(run, dataset, codes_of(dataset.names, None), CONFIG, 2, CPU)
        found = add_template_code(run, dataset, codes_of(dataset.names, None), CONFIG, 2, CPU, told.append)
        np.testing.assert_array_equal(found.content_points, codes.content_points)
        assert {name for name in content(run.path) if "learning" not in name} == {
            name for name in whole if "learning" not in name
        }
        forget_steps(run)
        assert hidden(run.path) == []
    assert "going on after group 1" in told


def test_another_seed_begins_anew(learned: tuple[RunFolder, SubtomogramDataset, Codes], tmp_path: Path) -> None:
    run, dataset, _ = learned
    kept, told = tmp_path / "learning.pt", []
    kept.write_bytes((run.templates / "learning.pt").read_bytes())
    learn_templates(dataset, CONFIG, seed=3, progress=told.append, kept=kept)
    assert "matching random shapes" in told
