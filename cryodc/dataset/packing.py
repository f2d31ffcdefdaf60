"""Pack: standardised particles in one file, from which training reads batches instead of holding all in memory."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryodc.dataset.dataset import SubtomogramDataset
from cryodc.dataset.pack_files import PackDtype, PackRecipe, find_problem, is_finished, read_recipe
from cryodc.dataset.pack_writer import write_pack
from cryodc.dataset.packed import PackedArray
from cryodc.dataset.reading import InputOptions, ParticleReader
from cryodc.dry_run import Forecast, declare, particle_bytes
from cryodc.errors import InputError
from cryodc.io import find_by_name
from cryodc.particles import ParticleSet

_WEIGHTS_IN_MEMORY_BYTES = 256 * 2**20
Progress = Callable[[int, int], None]
"""Called with the number of particles packed since the last call, and the number of all."""


def pack_particles(
    particles: ParticleSet,
    folder: Path,
    options: InputOptions | None = None,
    *,
    box_size: int | None = None,
    dtype: PackDtype = "float32",
    on_progress: Progress = lambda n_particles, n_total: None,
) -> PackRecipe:
    """Pack particles into a folder; go on with an interrupted packing, and leave a finished one as it is.

    Parameters
    ----------
    particles
        As in their STAR.
    folder
        New, empty, or what an earlier call with the same arguments has left.
    options
        Wedge and contrast.
    box_size
        Fourier-crop to this box, and so to a coarser spacing.
    dtype
        Of volumes and weights on disk.
    on_progress
        Called with the number of particles packed since the last call, and the number of all.

    Raises
    ------
    InputError
        If the folder holds anything else or a damaged pack, a file is bad, or the disk is too small.
    """
    reader = ParticleReader(particles, options, box_size)
    recipe = _recipe(particles, reader, options or InputOptions(), dtype)
    if is_finished(folder):
        if (problem := find_problem(folder, recipe)) is not None:
            raise problem
        return recipe
    n, box, told = len(particles), particles.box_size, f"{len(particles)} particles of box {particles.box_size}"
    packed = particle_bytes(n, recipe.box_size) / (2 if dtype == "float16" else 1)
    declare(Forecast(folder, told, particle_bytes(n, box), packed, (box,) * 3, {"packing": n}, 64))
    _write(folder, recipe, reader, on_progress)
    return recipe


def open_pack(
    folder: Path, particles: ParticleSet, options: InputOptions | None = None, *, verify: bool = True
) -> SubtomogramDataset:
    """Open a pack of these particles; nothing but the distinct weights, if they are few, is held in memory.

    Parameters
    ----------
    folder, particles, options
        As they were packed.
    verify
        Read everything once and compare checksums.

    Raises
    ------
    InputError
        If this is no pack, one of other particles or options, or damaged.
    """
    made = read_recipe(folder)
    # A pack of other particles may have a larger box than these.
    reader = ParticleReader(particles, options, min(made.box_size, particles.box_size))
    wanted = _recipe(particles, reader, options or InputOptions(), made.dtype)
    if (problem := find_problem(folder, wanted, verify=verify)) is not None:
        raise problem
    return _dataset(folder, wanted, reader)


def open_own_pack(
    folder: Path,
    particles: ParticleSet,
    options: InputOptions | None = None,
    *,
    verify: bool = True,
    on_progress: Progress = lambda n_particles, n_total: None,
) -> SubtomogramDataset:
    """Open the float32 pack of a run, making it anew if it is missing, stale or damaged.

    Parameters
    ----------
    folder
        The pack.
    particles
        Those it must be of.
    options
        How they were read.
    verify
        Whether check sums are read.
    on_progress
        Called with the number of particles packed since the last call, and the number of all.

    Raises
    ------
    InputError
        If a file is bad, or the disk is too small.
    """
    reader = ParticleReader(particles, options)
    recipe = _recipe(particles, reader, options or InputOptions(), "float32")
    if find_problem(folder, recipe, verify=verify) is not None:
        _write(folder, recipe, reader, on_progress, replace=True)
    return _dataset(folder, recipe, reader)


def box_of_spacing(particles: ParticleSet, spacing_angstrom: float) -> int:
    """The even box whose spacing, after Fourier cropping, is nearest to a wanted one.

    Raises
    ------
    InputError
        If the wanted spacing is finer than the particles', or leaves fewer than 8 voxels.
    """
    finest, coarsest = particles.spacing_angstrom, particles.spacing_angstrom * particles.box_size / 8
    if not finest <= spacing_angstrom <= coarsest:
        raise InputError(
            "particles cannot be cropped to this spacing",
            file=particles.source,
            expected=f"{finest:g} to {coarsest:g} Å",
            found=f"{spacing_angstrom:g} Å",
            remedy="choose another --spacing",
        )
    return 2 * round(finest * particles.box_size / spacing_angstrom / 2)


def _dataset(folder: Path, recipe: PackRecipe, reader: ParticleReader) -> SubtomogramDataset:
    weights = PackedArray(folder, "weights.npy", recipe)
    small = 4 * math.prod(weights.shape) <= _WEIGHTS_IN_MEMORY_BYTES
    return SubtomogramDataset(
        reader.particles,
        PackedArray(folder, "volumes.npy", recipe),
        weights[torch.arange(len(weights))] if small else weights,
        torch.from_numpy(reader.weight_index),
    )


def _write(
    folder: Path, recipe: PackRecipe, reader: ParticleReader, on_progress: Progress, *, replace: bool = False
) -> None:
    def produce(start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        volumes, weights = reader.read(start, stop)
        return volumes.numpy(), weights.numpy()

    def advance(n_particles: int) -> None:
        on_progress(n_particles, recipe.n_particles)

    write_pack(folder, recipe, reader.particles.names, reader.weight_index, produce, advance, replace=replace)


def _recipe(particles: ParticleSet, reader: ParticleReader, options: InputOptions, dtype: PackDtype) -> PackRecipe:
    wedge = particles.weight_images is None
    known = options.tilt_ranges or {}
    ranges = {
        name: list(pair) for name in sorted(set(particles.tomograms)) if (pair := find_by_name(known, name)) is not None
    }
    return PackRecipe(
        particles=_fingerprint(particles),
        n_particles=len(particles),
        n_weights=reader.n_weights,
        box_size=reader.particles.box_size,
        spacing_angstrom=reader.particles.spacing_angstrom,
        dtype=dtype,
        tilt_range=list(options.tilt_range) if wedge and options.tilt_range is not None else None,
        tilt_ranges=ranges if wedge and ranges else None,
        tilt_axis=options.tilt_axis if wedge else "y",
        invert=options.invert,
    )


def _fingerprint(particles: ParticleSet) -> str:
    """SHA-256 over names, and sections, sizes and times of the files: not over where they lie."""
    digest = hashlib.sha256(f"{particles.box_size} {particles.spacing_angstrom}\n".encode())
    states: dict[str, str] = {}
    for i, name in enumerate(particles.names):
        images = (
            [particles.images[i]]
            if particles.weight_images is None
            else [
                particles.images[i],
                particles.weight_images[i],
            ]
        )
        for image in images:
            if image.file not in states:
                state = image.path.stat()
                states[image.file] = f"{state.st_size} {state.st_mtime_ns}"
            digest.update(f"{name}\t{image.section}\t{states[image.file]}\n".encode())
    return digest.hexdigest()
