"""The codes of a run that are made of templates, and the templates it keeps."""

from collections.abc import Callable
from dataclasses import replace

import torch

from cryodc.codes import Codes
from cryodc.data.dataset import Dataset, SubtomogramDataset
from cryodc.io.mrc import write_volume
from cryodc.io.run import RunFolder
from cryodc.models.config import TemplateConfig
from cryodc.templates.learn import learn_templates
from cryodc.volumes import Volume


def add_template_code(
    run: RunFolder,
    dataset: Dataset,
    codes: Codes,
    config: TemplateConfig,
    seed: int,
    device: torch.device,
    progress: Callable[[str], None] | None = None,
) -> Codes:
    """Codes with ``matched`` and ``placed``, where templates can be learned from these particles.

    Templates are written to templates/; those of an earlier attempt are removed.

    Parameters
    ----------
    run
        Where templates are written.
    dataset, codes
        Particles and what the network says of each, in the same order. Images have no templates.
    config, seed, device, progress
        See :func:`cryodc.templates.learn.learn_templates`.
    """
    if not isinstance(dataset, SubtomogramDataset) or config.n_templates == 0:
        return codes
    found = learn_templates(dataset, config, seed=seed, device=device, progress=progress)
    if found is None:
        return codes
    for stale in run.templates.glob("template*.mrc"):
        stale.unlink()
    spacing = dataset.particles.spacing_angstrom * dataset.box_size / found.templates.shape[-1]
    for number, template in enumerate(found.templates, 1):
        write_volume(run.templates / f"template{number:03d}.mrc", Volume(template, spacing))
    return replace(codes, matched=found.points, placed=found.placed)
