"""Particles of a run as pictures show them: a few, read one at a time, and left out where their image has moved."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.dataset import fit_volume
from cryodc.errors import InputError
from cryodc.figures.volumes import read_particle
from cryodc.fourier import low_pass, standardise
from cryodc.io import ImageFinder, ImageReference, split_image_name
from cryodc.particles import ParticleSet, read_metadata
from cryodc.runs import RunFolder, load_config
from cryodc.star import find_particle_block, read_star


@dataclass(frozen=True)
class ShownParticle:
    """One particle as recorded and low-passed, ``(d, h, w)`` or ``(h, w)`` each, or why it cannot be shown."""

    raw: Float[NDArray[np.float32], "*image"] | None
    filtered: Float[NDArray[np.float32], "*image"] | None
    problem: str = ""


@dataclass(frozen=True)
class ParticlePreviews:
    """The particles of a run, whether or not their images are still there.

    Parameters
    ----------
    particles
        In the order of the run's STAR; where their images are is not known.
    image_names
        rlnImageName of each.
    folders
        Where images were when the run began.
    invert
        Whether files hold protein black.
    dims
        3 for subtomograms, 2 for images.
    low_pass_voxels
        Finest wavelength of the filtered copy.
    """

    particles: ParticleSet
    image_names: tuple[str, ...]
    folders: tuple[Path, ...]
    invert: bool
    dims: int = 3
    low_pass_voxels: float = 6

    @property
    def low_pass_angstrom(self) -> float:
        """Finest wavelength of the filtered copy."""
        return self.low_pass_voxels * self.particles.spacing_angstrom

    def show(self, row: int) -> ShownParticle:
        """Read one particle of the STAR; a file that has moved or cannot be read is told, not raised."""
        section, file = split_image_name(self.image_names[row])
        path = ImageFinder.within(self.folders).find(file)
        if path is None:
            return ShownParticle(None, None, "the image is no longer where it was")
        try:
            raw = read_particle(ImageReference(path, section), invert=self.invert, dims=self.dims)
        except InputError as error:
            return ShownParticle(None, None, error.problem)
        voxels = torch.from_numpy(raw)
        if self.dims == 3:
            voxels = fit_volume(self.particles, row, voxels)
            raw = voxels.numpy()
        filtered = standardise(
            low_pass(voxels, voxels.shape[-1] / self.low_pass_voxels, dims=self.dims), dims=self.dims
        )
        return ShownParticle(raw, filtered.numpy())


def missing_notice(shown: Sequence[ShownParticle]) -> str:
    """One sentence on the particles that are not shown and why; empty where all are."""
    problems = Counter(particle.problem for particle in shown if particle.problem)
    if not problems:
        return ""
    reasons = ", ".join(f"{problem} ({count})" for problem, count in problems.items())
    return f"{problems.total()} of {len(shown)} particles are not shown: {reasons}"


def load_previews(run: RunFolder) -> ParticlePreviews:
    """The particles of a trained run, from its copy of the STAR and its settings; no image needs to exist.

    Raises
    ------
    InputError
        If the STAR or config.yaml is damaged.
    """
    config = load_config(run)
    folders = tuple(Path(folder) for folder in config["image_folders"])
    unchecked, dims = read_metadata(run.particles)
    names = tuple(find_particle_block(read_star(run.particles)).column("rlnImageName"))
    described = config["dataset"]
    particles = replace(
        unchecked,
        box_size=int(described["box_size"]),
        spacing_angstrom=float(described["spacing_angstrom"]),
    )
    return ParticlePreviews(particles, names, folders, bool(config["input"]["invert"]), dims)
