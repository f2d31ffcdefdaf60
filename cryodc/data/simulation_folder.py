"""A simulation on disk: particles.star, subtomograms, weights, clean maps and the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from cryodc.data.maps import read_map
from cryodc.data.phantoms import DEMO_PHANTOMS, PHANTOMS, Phantom, phantom
from cryodc.data.simulate import (
    SimulationConfig,
    clean_maps,
    draw_truth,
    simulate_batches,
    tilt_weights,
    weight_index,
)
from cryodc.data.specimens import prepare_specimens
from cryodc.errors import InputError
from cryodc.io.mrc import write_array, write_volume
from cryodc.io.run import require_empty, write_text
from cryodc.io.simulation import Truth, write_particles, write_truth
from cryodc.volumes import Volume

_TOMOGRAM_SHAPE = (200, 960, 928)


def write_simulation(
    maps: Mapping[str, Volume | Phantom],
    config: SimulationConfig,
    out: Path,
    *,
    with_poses: bool = False,
    on_batch: Callable[[int], None] = lambda n_particles: None,
) -> Truth:
    """Simulate particles into a new folder; few of them are held in memory at a time.

    The folder gets particles.star (written last, so a folder that has it is complete), subtomograms/, weights/
    (one half-Fourier volume in FFT order per tilt range), maps/ (the clean map of each protein), truth.csv and
    simulation.yaml.

    Parameters
    ----------
    maps
        What to simulate, by protein name.
    config
        Settings.
    out
        A folder that does not exist yet, or is empty.
    with_poses
        Write angles and origins into the STAR too.
    on_batch
        Hears how many particles were just written.

    Raises
    ------
    InputError
        If ``out`` holds anything, a map does not fit the box, or a file cannot be written.
    """
    require_empty(out)
    specimens = prepare_specimens(maps, config.box_size, config.spacing_angstrom)
    truth = draw_truth(specimens, config)
    spacing = config.spacing_angstrom
    for name, voxels in zip(truth.proteins, clean_maps(specimens, config), strict=True):
        write_volume(out / "maps" / f"{name}.mrc", Volume(voxels.numpy(), spacing))
    weight_files = [f"weights/wedge{low:+g}{high:+g}.mrc" for low, high in config.tilt_ranges]
    for file, weight in zip(weight_files, tilt_weights(config), strict=True):
        write_array(out / file, weight.numpy(), spacing)
    for rows, volumes in simulate_batches(specimens, truth, config):
        for name, voxels in zip(truth.names[rows], volumes, strict=True):
            write_volume(out / name, Volume(voxels.numpy(), spacing))
        on_batch(len(volumes))
    write_truth(out / "truth.csv", truth)
    settings = asdict(config) | {"tilt_ranges": [list(pair) for pair in config.tilt_ranges]}
    write_text(out / "simulation.yaml", yaml.safe_dump({"proteins": list(truth.proteins), **settings}, sort_keys=False))
    write_particles(
        out / "particles.star",
        truth,
        [weight_files[index] for index in weight_index(truth, config).tolist()],
        np.random.default_rng(config.seed).uniform(0.05, 0.95, (len(truth), 3)) * _TOMOGRAM_SHAPE,
        config.box_size,
        spacing,
        with_poses,
    )
    return truth


def choose_proteins(phantom_names: Sequence[str] | None, map_files: Sequence[Path]) -> dict[str, Volume | Phantom]:
    """Proteins by name: phantoms, and maps named after their files; the demo's four phantoms if neither is given.

    Parameters
    ----------
    phantom_names
        ``["all"]`` is every phantom.
    map_files
        ``.mrc`` or ``.mrc.gz``.

    Raises
    ------
    InputError
        If there is no such phantom, a map is bad, or two proteins have the same name.
    """
    if phantom_names is None:
        phantom_names = () if map_files else DEMO_PHANTOMS
    names = PHANTOMS if list(phantom_names) == ["all"] else phantom_names
    proteins: dict[str, Volume | Phantom] = {name: phantom(name) for name in names}
    for file in map_files:
        name = file.name.removesuffix(".gz").rsplit(".", 1)[0]
        if name in proteins:
            raise InputError("two proteins have the same name", file=file, found=name, remedy="rename one of the files")
        proteins[name] = read_map(file)
    return proteins
