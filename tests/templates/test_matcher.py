"""What a run learned is kept: other particles get codes as its own did, and learning goes on after a kill."""

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
from cryodc.templates.groups import N_PLACE
from cryodc.templates.learn import learn_templates
from tests.kills import Killed, at_every_operation, hidden
from tests.simulated import as_dataset
from tests.templates.small import CPU, codes_of, make_small

CONFIG = TemplateConfig(n_templates=3, particles_per_template=30, n_axes=2)


def phantoms(n_per_map: int, seed: int) -> tuple[SubtomogramDataset, np.ndarray]:
    config = SimulationConfig(
        n_per_map=n_per_map, box_size=20, spacing_angstrom=16.0, snr=0.3, max_shift_voxels=0.5, seed=seed
    )
    known = demo_phantoms()
    particles = simulate_particles({name: known[name] for name in ("wheel", "clamp")}, config)
    return as_dataset(particles.volumes, particles.weights, torch.as_tensor(particles.weight_index)), particles.labels


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


STAGES = ("2 of 3", "averaged anew", "placing all", "one group placed")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, SubtomogramDataset, Codes]:
    """A run; beside it what a kill would have left of its learning at each stage."""
    dataset, _ = phantoms(50, 1)
    run = RunFolder(tmp_path_factory.mktemp("matcher") / "run")

    def copy(stage: str) -> None:
        if not run.path.with_name(stage).exists():
            shutil.copytree(run.templates, run.path.with_name(stage))

    def keep(said: str) -> None:
        for stage in STAGES:
            if stage in said:
                copy(stage)

    def look() -> None:
        if any(run.templates.glob(".learning.*/placed.pt")):
            copy("one group placed")

    with pytest.MonkeyPatch.context() as patch, at_every_operation(run.path, look):
        make_small(patch)
        codes = add_template_code(run, dataset, codes_of(dataset.names, None), CONFIG, 2, CPU, keep)
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


def test_particles_of_the_run_get_the_codes_they_have(learned: tuple[RunFolder, SubtomogramDataset, Codes]) -> None:
    run, dataset, codes = learned
    again = with_templates_of(run, dataset, codes_of(dataset.names, None), 5, CPU)
    assert again.template_content is not None
    assert again.template_pose is not None
    assert codes.template_pose is not None
    # 1 is the spread within a protein, so a particle that is encoded again stays where it is among those like it.
    moved = np.sqrt(np.square(again.template_content - codes.content_points).mean(axis=0))
    assert np.all(moved < 0.8), moved
    told = codes.template_pose[:, N_PLACE:].std(axis=0) > 0
    alike = [
        np.corrcoef(again.template_pose[:, q], codes.template_pose[:, q])[0, 1] for q in np.flatnonzero(told) + N_PLACE
    ]
    assert alike
    assert min(alike) > 0.9, alike


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
    ("stage", "first"),
    [
        ("2 of 3", "template 2 of 3"),
        ("averaged anew", "templates averaged anew"),
        ("placing all", "placing all particles"),
        ("one group placed", "placing all particles"),
    ],
)
def test_learning_goes_on_after_a_kill_to_the_same_codes(
    stage: str, first: str, learned: tuple[RunFolder, SubtomogramDataset, Codes], tmp_path: Path
) -> None:
    run, dataset, codes = learned
    templates, told = Path(shutil.copytree(run.path.with_name(stage), tmp_path / "templates")), []
    found = learn_templates(dataset, CONFIG, seed=2, progress=told.append, kept=templates / "learning.pt")
    assert found is not None
    np.testing.assert_array_equal(found.points, codes.content_points)
    np.testing.assert_array_equal(found.placed, codes.template_pose)
    # Of what was done before, nothing is done again.
    begun = [said for said in told if "done before" not in said and "going on" not in said]
    assert first in begun[0]
    assert len(begun) < len(told)
    assert ("going on after group 1" in told) == (stage == "one group placed")


def test_what_learning_had_come_to_goes_when_codes_are_written(
    learned: tuple[RunFolder, SubtomogramDataset, Codes], tmp_path: Path
) -> None:
    run, _, _ = learned
    other = RunFolder(tmp_path / "run")
    shutil.copytree(run.templates, other.templates)
    assert hidden(other.path) != []
    forget_steps(other)
    assert hidden(other.path) == []
    assert (other.templates / "learning.pt").exists()


def test_another_seed_begins_anew(learned: tuple[RunFolder, SubtomogramDataset, Codes], tmp_path: Path) -> None:
    run, dataset, _ = learned
    kept, told = tmp_path / "learning.pt", []
    kept.write_bytes((run.templates / "learning.pt").read_bytes())

    def begin(said: str) -> None:
        told.append(said)
        if said == "matching random shapes":
            raise Killed(said)

    with pytest.raises(Killed):
        learn_templates(dataset, CONFIG, seed=3, progress=begin, kept=kept)
    assert told == ["matching random shapes"]
