"""The particles a run was trained on, from its STAR, its pack or their own files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryodc.dataset import SubtomogramDataset, load_dataset, open_own_pack, open_pack
from cryodc.device import Team, leader_first
from cryodc.io import ImageFinder
from cryodc.particles import ParticleSet, inspect_particles, require_particles
from cryodc.runs.config import input_options, load_config
from cryodc.runs.folder import RunFolder
from cryodc.runs.summaries import fingerprint
from cryodc.unfinished import stamp


def load_run_dataset(run: RunFolder, particles: ParticleSet | None = None) -> SubtomogramDataset:
    """The dataset a run was trained on: from its pack, or from the MRC files if it was trained without one.

    Parameters
    ----------
    run
        Its config.yaml says which pack. A pack inside the run folder that is missing or damaged is made anew.
    particles
        Those of :func:`load_run_particles`, if they have been read already.

    Raises
    ------
    InputError
        If an image is bad, or a pack elsewhere is missing, damaged or stale.
    """
    return open_run_dataset(run, particles or load_run_particles(run), load_config(run))


def load_run_particles(run: RunFolder, star: Path | None = None) -> ParticleSet:
    """The particles a run was trained on, from its copy of the STAR or another STAR that the run wrote."""
    return read_run_particles(run, [Path(folder) for folder in load_config(run)["image_folders"]], star)


def identity_of_data(run: RunFolder, particles: ParticleSet) -> list[object]:
    """What tells the particles of a run, their codes, and how they are read from all others; ``key_of`` takes it."""
    described = load_config(run)
    own = [path for path in (run.config, run.particles, run.codes) if path.exists()]
    pack, table = described.get("pack"), described["input"]["tilt_ranges"]
    if pack is not None:
        return [fingerprint([*own, run.path / pack["path"] / "index.json"])]
    images = [*particles.images, *(particles.weight_images or ())]
    files = dict.fromkeys([*([] if table is None else [Path(table)]), *(image.path for image in images)])
    return [fingerprint(own), *map(stamp, files)]


def open_run_dataset(
    run: RunFolder,
    particles: ParticleSet,
    described: dict[str, Any],
    team: Team | None = None,
    on_pack: Callable[[int, int], None] = lambda n_particles, n_total: None,
) -> SubtomogramDataset:
    """Open the dataset that the settings of a run describe, making its own pack where there is none yet.

    Parameters
    ----------
    run
        The run folder.
    particles
        Those of the run.
    described
        The content of config.yaml.
    team
        The processes that open it together: only the leader packs and verifies.
    on_pack
        Called with the number of particles packed since the last call, and the number of all.
    """
    team = team or Team(0, 1)
    options, pack = input_options(described["input"]), described.get("pack")
    if pack is None:
        return load_dataset(particles, options)
    folder = run.path / pack["path"]

    def open_dataset() -> SubtomogramDataset:
        if folder == run.pack:
            return open_own_pack(folder, particles, options, verify=team.leads, on_progress=on_pack)
        return open_pack(folder, particles, options, verify=team.leads)

    return leader_first(team, open_dataset)


def read_run_particles(run: RunFolder, image_folders: Sequence[Path], star: Path | None = None) -> ParticleSet:
    """Read a run's copy of its STAR, or another STAR of the run, with images where they were when the run began.

    Raises
    ------
    InputError
        As :func:`read_particles`.
    """
    return require_particles(inspect_particles(star or run.particles, finder=ImageFinder.within(image_folders)))
