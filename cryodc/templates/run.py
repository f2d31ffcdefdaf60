"""Codes of a run that are made of templates, and the files of its templates."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from cryodc.codes import Codes
from cryodc.dataset import Dataset, SubtomogramDataset
from cryodc.device import by_leader
from cryodc.io import atomic_path, read_text, write_text, write_volume
from cryodc.models import TemplateConfig
from cryodc.runs import RunFolder, damaged, read_arrays, require
from cryodc.templates.decoder import TemplateDecoder, groups_of
from cryodc.templates.groups import TemplateGroups
from cryodc.templates.learn import learn_templates
from cryodc.templates.match import particle_spectra
from cryodc.templates.matcher import TemplateCode, load_matcher, save_matcher
from cryodc.volumes import Volume

_GROUPS, _MATCHER, _LEARNING, _LEFT_OUT = "groups.npz", "matcher.pt", "learning.pt", "left_out.txt"


def add_template_code(
    run: RunFolder,
    dataset: Dataset,
    codes: Codes,
    config: TemplateConfig,
    seed: int,
    device: torch.device,
    progress: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Codes:
    """Codes with ``template_content`` and ``template_pose``, where templates can be learned from these particles.

    Templates are written to templates/; those of an earlier attempt are removed, but what it had learned under the same
    settings is gone on from. Where none can be learned, codes are
    those of the network alone. Processes that share particles all come here, and the leader writes.

    Parameters
    ----------
    run
        Where templates are written.
    dataset, codes
        Particles and what the network says of each, in the same order. Images have no templates.
    config, seed, device, progress
        See :func:`cryodc.templates.learn.learn_templates`.
    warn
        Called with the reason if templates are left out; :func:`templates_left_out` tells it later.
    """
    by_leader(lambda: _remove_files(run))
    if not isinstance(dataset, SubtomogramDataset) or config.n_templates == 0:
        return codes
    try:
        kept = run.templates / _LEARNING
        found = learn_templates(dataset, config, seed=seed, device=device, progress=progress, kept=kept)
        why = _why_none(found, len(dataset), config)
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        found, why = None, f"they do not hold a fit ({str(error).splitlines()[0]})"
    if found is None or why is not None:
        told = f"templates were left out because {why}: codes are those of the network, which tell less apart"
        by_leader(lambda: write_text(run.templates / _LEFT_OUT, told + "\n"))
        if warn is not None:
            warn(told)
        return codes
    spacing = dataset.particles.spacing_angstrom * dataset.box_size / found.templates.shape[-1]
    by_leader(partial(_write_files, run, found, spacing))
    return replace(codes, template_content=found.points, template_pose=found.placed)


def _remove_files(run: RunFolder) -> None:
    made = [run.templates / name for name in (_GROUPS, _MATCHER, _LEFT_OUT)]
    for stale in (*run.templates.glob("template*.mrc"), *made):
        stale.unlink(missing_ok=True)


def _write_files(run: RunFolder, found: TemplateCode, spacing_angstrom: float) -> None:
    for number, template in enumerate(found.templates, 1):
        write_volume(run.templates / f"template{number:03d}.mrc", Volume(template, spacing_angstrom))
    with atomic_path(run.templates / _GROUPS) as temporary, temporary.open("wb") as file:
        np.savez(file, **vars(found.groups))
    save_matcher(run.templates / _MATCHER, found.matcher)


def templates_left_out(run: RunFolder) -> str:
    """Why the codes of a run are not made of templates although they were to be; empty if they are, or were not to be.

    Raises
    ------
    InputError
        If the file that says it is damaged.
    """
    path = run.templates / _LEFT_OUT
    return read_text(path, "why templates were left out").strip() if path.exists() else ""


def forget_steps(run: RunFolder) -> None:
    """Remove what rounds of learning had come to; called when the codes are written."""
    for folder in run.templates.glob(".learning.*"):
        shutil.rmtree(folder, ignore_errors=True)


def _why_none(found: TemplateCode | None, n_particles: int, config: TemplateConfig) -> str | None:
    fewest = 2 * config.particles_per_template
    if found is None and min(n_particles, config.n_particles) < fewest:
        return f"{n_particles} particles are fewer than {fewest}"
    if found is None:
        return "no two groups of particles could be aligned"
    return None if np.isfinite(found.points).all() and np.isfinite(found.placed).all() else "they do not hold a fit"


def load_template_decoder(run: RunFolder, device: torch.device) -> TemplateDecoder | None:
    """The decoder of a run's codes made of templates; None if it has no such codes.

    Raises
    ------
    InputError
        If the file of its groups is damaged.
    """
    return TemplateDecoder(_load_groups(run)).to(device) if (run.templates / _GROUPS).exists() else None


def with_templates_of(
    run: RunFolder, dataset: SubtomogramDataset, codes: Codes, seed: int, device: torch.device
) -> Codes:
    """Codes of particles that the run does not hold, with those that its templates make of them.

    Parameters
    ----------
    run
        Has templates.
    dataset, codes
        Particles, with the voxel spacing of the run's at its box, and what the network says of each.
    seed, device
        Of the searches; and where to compute.

    Raises
    ------
    InputError
        If the files of the templates are missing or damaged.
    """
    path = require(run.templates / _MATCHER, "cryodc train --resume")
    matcher = load_matcher(path, _load_groups(run), device)
    if matcher is None:
        raise damaged(path, "cryodc train --resume", "no state of templates")
    points, placed = matcher.encode(particle_spectra(dataset, device), dataset, seed)
    return replace(codes, template_content=points, template_pose=placed)


def _load_groups(run: RunFolder) -> TemplateGroups:
    path = require(run.templates / _GROUPS, "cryodc train --resume")
    try:
        return groups_of(read_arrays(path, "cryodc train --resume"))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "cryodc train --resume", str(error)) from error
