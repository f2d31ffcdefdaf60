"""Templates learned from particles without labels or poses, and the content code that is made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from cryodc.clustering import cluster_codes, cluster_run
from cryodc.codes import Codes
from cryodc.dataset import SubtomogramDataset
from cryodc.errors import InputError
from cryodc.fourier import apply_weight, wedge_from_tilt_range
from cryodc.io import read_volume
from cryodc.models import TemplateConfig, preset_config
from cryodc.runs import RunFolder, load_codes, save_codes
from cryodc.simulation import SimulationConfig, demo_phantoms, simulate_particles
from cryodc.templates import (
    BOX,
    add_template_code,
    codes_of_templates,
    conformation_axes,
    load_template_decoder,
    shapes,
)
from cryodc.templates.decoder import TemplateDecoder
from cryodc.templates.groups import N_PLACE
from cryodc.templates.learn import learn_templates
from cryodc.templates.match import particle_spectra
from cryodc.templates.spread import spread_within
from tests.simulated import as_dataset
from tests.templates.small import CPU, codes_of, make_small


@pytest.fixture(scope="module")
def two_phantoms() -> tuple[SubtomogramDataset, np.ndarray]:
    config = SimulationConfig(n_per_map=50, box_size=20, spacing_angstrom=16.0, snr=0.3, max_shift_voxels=0.5, seed=1)
    phantoms = demo_phantoms()
    chosen = {name: phantoms[name] for name in ("wheel", "barrel")}
    particles = simulate_particles(chosen, config)
    order = torch.randperm(len(particles.volumes), generator=torch.Generator().manual_seed(0))
    weight_index = torch.as_tensor(particles.weight_index)[order]
    return as_dataset(particles.volumes[order], particles.weights, weight_index), particles.labels[order.numpy()]


@pytest.fixture
def small_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def learned(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, Codes]:
    """A run folder with templates, a stale one removed, and codes made of them."""
    dataset, _ = two_phantoms
    run = RunFolder(tmp_path_factory.mktemp("templates") / "run")
    stale = run.templates / "template099.mrc"
    stale.parent.mkdir(parents=True)
    stale.touch()
    config = TemplateConfig(n_templates=3, particles_per_template=30)
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        return run, add_template_code(run, dataset, codes_of(dataset.names, None), config, 2, CPU)


def test_templates_tell_two_phantoms_apart_without_poses(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], learned: tuple[RunFolder, Codes]
) -> None:
    labels, points = two_phantoms[1], learned[1].content_points
    assert len(points) == len(labels)
    clusters = cluster_codes(learned[1], 2, seed=0)
    assert adjusted_rand_score(labels, clusters.labels) > 0.9
    # Particles of one phantom lie about 1 from one another on each axis, as was simulated.
    spread = np.sqrt(np.diag(spread_within(points.astype(np.float64), labels)))
    assert np.all((spread > 0.5) & (spread < 2.0))


def test_a_run_keeps_its_templates_and_clusters_by_them(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], learned: tuple[RunFolder, Codes]
) -> None:
    (dataset, labels), (run, codes) = two_phantoms, learned
    files = sorted(run.templates.glob("*.mrc"))
    assert [file.name for file in files] == [f"template{k + 1:03d}.mrc" for k in range(len(files))]
    template = read_volume(files[0])
    assert template.box_size == BOX
    # The box is as wide as the particles' own.
    assert template.spacing_angstrom * BOX == pytest.approx(dataset.box_size * 20.0)
    save_codes(run, codes)
    loaded = load_codes(run)
    assert loaded.template_content is not None
    decoder = load_template_decoder(run, CPU)
    assert decoder is not None
    own = codes_of_templates(loaded)
    decoded = decoder.decode(torch.from_numpy(own.content), torch.from_numpy(own.transformation))
    assert decoded.shape == (len(labels), BOX, BOX, BOX)
    (run.templates / "groups.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="damaged"):
        load_template_decoder(run, CPU)
    np.testing.assert_array_equal(loaded.template_content, codes.content_points)
    np.testing.assert_array_equal(loaded.transformation_told, codes.transformation_told)
    rows = "".join(f"{name} 1\n" for name in dataset.names)
    run.particles.write_text(f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n{rows}")
    assert adjusted_rand_score(labels, cluster_run(run, 2).labels) > 0.9
    chosen = codes.select(codes.names[::-1])
    np.testing.assert_array_equal(chosen.content_points, codes.content_points[::-1])
    np.testing.assert_array_equal(chosen.transformation_points, codes.transformation_points[::-1])


def test_without_axes_particles_of_a_group_in_one_pose_are_decoded_alike(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], small_bank: None
) -> None:
    dataset, labels = two_phantoms
    found = learn_templates(dataset, TemplateConfig(n_templates=2, particles_per_template=20, n_axes=0), seed=0)
    assert found is not None
    assert conformation_axes(found.placed, 2)[0].shape == (0, N_PLACE)
    content, first_pose = torch.from_numpy(found.points), torch.from_numpy(found.placed[:1]).expand(len(labels), -1)
    decoded = TemplateDecoder(found.groups).decode(content, first_pose).flatten(1)
    alike = np.corrcoef(decoded.numpy()) > 0.9999
    # No more volumes than groups, and the groups are the phantoms.
    assert len(np.unique(alike, axis=0)) == 2
    assert (alike == (labels[:, None] == labels)).mean() > 0.95


def test_the_same_seed_gives_the_same_points(
    two_phantoms: tuple[SubtomogramDataset, np.ndarray], small_bank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "_STEP_DEGREES", 60.0)
    monkeypatch.setattr(shapes, "_N_CALIBRATING", 20)
    particles = particle_spectra(two_phantoms[0], CPU)
    first, second, other = (shapes.shape_points(particles, 4, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_noise_has_no_templates(small_bank: None) -> None:
    weight = wedge_from_tilt_range(16, -60, 60)[None]
    noise = torch.randn(40, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    dataset = as_dataset(apply_weight(noise, weight.expand(40, -1, -1, -1)), weight, torch.zeros(40, dtype=torch.long))
    said: list[str] = []
    config = TemplateConfig(n_templates=2, particles_per_template=20)
    assert learn_templates(dataset, config, progress=said.append) is None
    assert sum("not aligned" in line for line in said) >= 1


def test_codes_without_templates_are_those_of_the_network(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    codes = codes_of(("a", "b"), None)
    save_codes(run, codes)
    loaded = load_codes(run)
    assert loaded.template_content is None
    np.testing.assert_array_equal(loaded.content_points, codes.content_points)
    assert loaded.template_pose is None
    np.testing.assert_array_equal(loaded.transformation_told, codes.transformation)
    with pytest.raises(ValueError, match="template_content: expected 2 rows of finite values"):
        codes_of(("a", "b"), np.full((2, 1), np.nan, dtype=np.float32))


def test_too_few_particles_have_no_templates(two_phantoms: tuple[SubtomogramDataset, np.ndarray]) -> None:
    dataset, _ = two_phantoms
    assert learn_templates(dataset, TemplateConfig()) is None
    assert learn_templates(dataset, TemplateConfig(n_templates=1, particles_per_template=10)) is None


def test_only_our_own_preset_has_templates() -> None:
    assert preset_config("default", 32).templates.n_templates > 0
    assert preset_config("paper", 32).templates.n_templates == 0
    assert preset_config("digits", 28).templates.n_templates == 0
    assert preset_config("default", 32, {"model": {"name": "vae"}}).templates.n_templates == 0
