"""Particles that all lie with one axis along the beam: large parts of Fourier space are measured by none of them."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score

from cryodc.clustering import cluster_codes
from cryodc.codes import Codes
from cryodc.fourier import apply_weight, wedge_from_tilt_range
from cryodc.geometry import resample
from cryodc.models import TemplateConfig
from cryodc.simulation import phantom
from cryodc.templates.learn import learn_templates
from tests.simulated import as_dataset
from tests.templates.small import make_small

BOX, SPACING, EACH = 16, 20.0, 40


def test_particles_turned_about_z_only_get_finite_codes_that_tell_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned about the beam by up to 60 degrees, and all behind the same wedge."""
    make_small(monkeypatch)
    generator, rng = torch.Generator().manual_seed(3), np.random.default_rng(3)
    clean = []
    for name in ("wheel", "barrel"):
        turns = Rotation.from_euler("z", rng.uniform(-60, 60, (EACH, 1)), degrees=True).as_matrix()
        rotations = torch.from_numpy(turns[:, ::-1, ::-1].copy()).float()
        body = phantom(name).mean_map(BOX, SPACING)
        clean.append(torch.stack([resample((body / body.std())[None], turn[None])[0] for turn in rotations]))
    volumes = torch.cat(clean)
    noisy = volumes + torch.randn(volumes.shape, generator=generator) / 0.3**0.5
    weight = wedge_from_tilt_range(BOX, -60.0, 60.0)
    seen = apply_weight(noisy, weight.expand(len(noisy), -1, -1, -1))
    labels = np.repeat([0, 1], EACH)
    order = rng.permutation(len(labels))
    dataset = as_dataset(seen[torch.from_numpy(order)], weight[None], torch.zeros(len(labels), dtype=torch.long))
    learned = learn_templates(dataset, TemplateConfig(n_templates=2, particles_per_template=20), seed=1)
    assert learned is not None
    for values in (learned.points, learned.placed, learned.templates, learned.groups.axes, learned.groups.maps):
        assert np.isfinite(values).all()
    # A difference within a group is no larger than its map.
    assert np.abs(learned.groups.axes).max(initial=0) < 1.5 * np.abs(learned.groups.maps).max()
    nothing = np.zeros((len(labels), 1), np.float32)
    codes = Codes(dataset.names, nothing, nothing, nothing, nothing, template_content=learned.points)
    assert adjusted_rand_score(labels[order], cluster_codes(codes, 2, seed=0).labels) > 0.9
