"""What is told of particles that are like no template: numbers that no pose changes, and axes of all together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score

from cryodc.clustering import cluster_codes, clusters_of_new
from cryodc.geometry import resample
from cryodc.runs import RunFolder
from cryodc.simulation import phantom
from cryodc.templates import add_template_code, with_templates_of
from cryodc.templates.learn import _Learner
from cryodc.templates.match import particle_spectra
from cryodc.templates.matcher import load_matcher
from cryodc.templates.run import _load_groups
from cryodc.templates.shapes import particle_moments
from cryodc.templates.spread import joint_axes, spread_within
from tests.simulated import as_dataset
from tests.templates.small import CPU, codes_of, make_small
from tests.templates.test_matcher import CONFIG, phantoms

BOX = 16


def test_moments_hardly_change_when_a_particle_is_turned() -> None:
    turns = torch.from_numpy(Rotation.random(20, random_state=1).as_matrix()).float()
    volumes = torch.cat(
        [resample(phantom(name).mean_map(BOX, 20.0).expand(20, -1, -1, -1), turns) for name in ("wheel", "bilobe")]
    )
    volumes = (volumes - volumes.mean(dim=(1, 2, 3), keepdim=True)) / volumes.std(dim=(1, 2, 3), keepdim=True)
    dataset = as_dataset(volumes, torch.ones(1, BOX, BOX, BOX // 2 + 1), torch.zeros(40, dtype=torch.long))
    moments = particle_moments(dataset, particle_spectra(dataset, CPU))
    wheel, bilobe = moments[:20], moments[20:]
    assert moments.shape == (40, 21)
    turned = np.maximum(wheel.std(axis=0), bilobe.std(axis=0))
    apart = abs(wheel.mean(axis=0) - bilobe.mean(axis=0))
    assert np.median(apart / turned) > 5
    # The mean density of a ring is the same whatever the pose; only interpolation changes it.
    assert turned[6:12].max() < 0.1


def test_one_is_the_spread_within_groups_however_many_there_are() -> None:
    generator = np.random.default_rng(0)
    for n_groups in (1, 3):
        centres = generator.normal(scale=6.0, size=(n_groups, 8))
        labels = np.repeat(np.arange(n_groups), 150)
        numbers = (centres[labels] + generator.normal(size=(len(labels), 8))) * generator.uniform(0.1, 10.0, 8)
        points = joint_axes(numbers, 1.1, seed=0).apply(numbers)
        spread = np.sqrt(np.diag(spread_within(points, labels)))
        assert points.shape[1] == max(1, n_groups - 1)
        assert np.all((spread > 0.85) & (spread < 1.15)), spread


def test_new_particles_get_moments_where_the_run_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if one group had given no template."""
    make_small(monkeypatch)
    start = _Learner.start

    def with_a_group_that_is_like_none(learner: _Learner, n_templates: int) -> bool:
        found = start(learner, n_templates)
        learner.n_unaligned = 1
        return found

    monkeypatch.setattr(_Learner, "start", with_a_group_that_is_like_none)
    dataset, labels = phantoms(50, 1)
    run = RunFolder(tmp_path / "run")
    codes = add_template_code(run, dataset, codes_of(dataset.names, None), CONFIG, 2, CPU)
    matcher = load_matcher(run.templates / "matcher.pt", _load_groups(run), CPU)
    assert matcher is not None
    assert matcher.joint is not None
    clusters = cluster_codes(codes, 2)
    assert adjusted_rand_score(labels, clusters.labels) > 0.9
    new, known = phantoms(30, 7)
    found = with_templates_of(run, new, codes_of(new.names, None), 0, CPU)
    assert adjusted_rand_score(known, clusters_of_new(codes, clusters, found)[0]) > 0.85
