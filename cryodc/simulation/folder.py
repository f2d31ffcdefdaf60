"""A simulation on disk: particles.star, subtomograms, weights, clean maps and the answer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import yaml

from cryodc.dry_run import Forecast, declare, particle_bytes
from cryodc.errors import InputError
from cryodc.io import Atoms, new_folder, read_structure, require_empty, write_array, write_text, write_volume
from cryodc.simulation.config import SimulatedTiltSeries, SimulationConfig
from cryodc.simulation.maps import read_map
from cryodc.simulation.phantoms import DEMO_PHANTOMS, PHANTOMS, Phantom, phantom
from cryodc.simulation.scene import clean_maps, draw_coordinates, draw_truth, weight_index
from cryodc.simulation.simulate import simulate_batches, tilt_weights
from cryodc.simulation.specimens import Specimen, prepare_specimens
from cryodc.simulation.tilt_images import simulate_tilt_batches, untilted_defocus
from cryodc.simulation.truth import Recording, Truth, write_particles, write_truth
from cryodc.volumes import Volume


def write_simulation(
    maps: Mapping[str, Volume | Phantom | Atoms],
    config: SimulationConfig,
    out: Path,
    *,
    with_poses: bool = False,
    on_batch: Callable[[int], None] = lambda n_particles: None,
) -> Truth:
    """Simulate particles into a new folder; few of them are held in memory at a time.

    The folder appears when all of it is written. It gets particles.star, subtomograms/, weights/
    (one half-Fourier volume in FFT order per tilt range; of tilt series, RELION's ``(2N, N, N/2 + 1)`` per particle),
    maps/ (the clean map of each protein), truth.csv and simulation.yaml.

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
    specimens = prepare_specimens(maps, config.box_size, config.spacing_angstrom, config.resolution_angstrom)
    truth = draw_truth(specimens, config)
    kind, n, box = "simulation" if config.tilt_series is None else "tilt series", len(truth), config.box_size
    n_bytes = 4.0 * n * box**3 if config.tilt_series is None else 3 * particle_bytes(n, box)
    declare(Forecast(out, f"{len(maps)} proteins", 0, n_bytes, (box,) * 3, {kind: n}, 200))
    spacing = config.spacing_angstrom
    with new_folder(out) as folder:
        for name, voxels in zip(truth.proteins, clean_maps(specimens, config), strict=True):
            write_volume(folder / "maps" / f"{name}.mrc", Volume(voxels.numpy(), spacing))
        write = _write_wedged if config.tilt_series is None else _write_tilt_series
        weight_files = write(specimens, truth, config, folder, on_batch)
        write_truth(folder / "truth.csv", truth)
        settings = {"proteins": list(truth.proteins), **config.settings()}
        write_text(folder / "simulation.yaml", yaml.safe_dump(settings, sort_keys=False))
        write_particles(
            folder / "particles.star",
            truth,
            weight_files,
            draw_coordinates(len(truth), config),
            config.box_size,
            spacing,
            with_poses,
            None if config.tilt_series is None else _recording(truth, config, config.tilt_series),
        )
    return truth


def _write_wedged(
    specimens: Mapping[str, Specimen],
    truth: Truth,
    config: SimulationConfig,
    out: Path,
    on_batch: Callable[[int], None],
) -> list[str]:
    """Write particles and the wedge of each tilt range; give the wedge's file of each particle."""
    spacing = config.spacing_angstrom
    files = [f"weights/wedge{low:+g}{high:+g}.mrc" for low, high in config.tilt_ranges]
    for file, weight in zip(files, tilt_weights(config), strict=True):
        write_array(out / file, weight.numpy(), spacing)
    for rows, volumes in simulate_batches(specimens, truth, config):
        for name, voxels in zip(truth.names[rows], volumes, strict=True):
            write_volume(out / name, Volume(voxels.numpy(), spacing))
        on_batch(len(volumes))
    return [files[index] for index in weight_index(truth, config).tolist()]


def _write_tilt_series(
    specimens: Mapping[str, Specimen],
    truth: Truth,
    config: SimulationConfig,
    out: Path,
    on_batch: Callable[[int], None],
) -> list[str]:
    """Write particles, ``ΣC · image``, each with ``ΣC²`` and multiplicity; give the file of those."""
    spacing = config.spacing_angstrom
    files = [name.replace("subtomograms/", "weights/", 1) for name in truth.names]
    for rows, result in simulate_tilt_batches(specimens, truth, config):
        weights = torch.cat([result.weight, result.multiplicity], dim=1)
        for row, volume, weight in zip(rows, result.data, weights, strict=True):
            write_volume(out / truth.names[row], Volume(volume.numpy(), spacing))
            write_array(out / files[row], weight.numpy(), spacing)
        on_batch(len(rows))
    return files


def _recording(truth: Truth, config: SimulationConfig, series: SimulatedTiltSeries) -> Recording:
    return Recording(
        series.voltage_kilovolts,
        series.spherical_aberration_millimetres,
        series.amplitude_contrast,
        untilted_defocus(truth, config),
    )


def choose_proteins(
    phantom_names: Sequence[str] | None, map_files: Sequence[Path], structure_files: Sequence[Path] = ()
) -> dict[str, Volume | Phantom | Atoms]:
    """Proteins by name: phantoms, and maps and structures named after their files; else the demo's four phantoms.

    Parameters
    ----------
    phantom_names
        ``["all"]`` is every phantom.
    map_files
        ``.mrc`` or ``.mrc.gz``.
    structure_files
        PDB or mmCIF, ``.gz`` or not.

    Raises
    ------
    InputError
        If there is no such phantom, a file is bad, or two proteins have the same name.
    """
    if phantom_names is None:
        phantom_names = () if map_files or structure_files else DEMO_PHANTOMS
    names = PHANTOMS if list(phantom_names) == ["all"] else phantom_names
    proteins: dict[str, Volume | Phantom | Atoms] = {name: phantom(name) for name in names}
    for file in (*map_files, *structure_files):
        name = file.name.removesuffix(".gz").rsplit(".", 1)[0]
        if name in proteins:
            raise InputError("two proteins have the same name", file=file, found=name, remedy="rename one of the files")
        proteins[name] = read_map(file) if file in map_files else read_structure(file)
    return proteins
