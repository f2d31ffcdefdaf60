"""What a user asks of ``cryodc average``, checked against the run before anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import FEWEST_START_SHELLS, JUDGED_SHELLS, most_start_shells
from cryodc.averaging.final_classes import ALIGNMENT_BOX, MOST_PARTICLES
from cryodc.dataset import SubtomogramDataset
from cryodc.device import choose_device, memory_budget
from cryodc.dry_run import Forecast, particle_bytes
from cryodc.errors import InputError
from cryodc.maps import read_masks
from cryodc.particles import ParticleSet
from cryodc.runs import (
    Clusters,
    RunFolder,
    fingerprint_of_clusters,
    load_clusters,
    load_run_dataset,
    load_run_particles,
    made_by_hand,
)


@dataclass(frozen=True)
class AverageRequest:
    """What a user asks of ``cryodc average``.

    Parameters
    ----------
    ignore_poses
        Align from nothing even where the STAR has poses.
    seed
        Of the split into halves and of the alignment.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    n_starts
        Random starts of each class's alignment.
    classify
        Before that, sort particles anew: the clusters are only where :mod:`cryodc.averaging.classify` starts. By
        default where poses are aligned from nothing, unless the user chose the particles of each class.
    n_rounds, junk
        As :func:`cryodc.averaging.classify.classify_particles` takes them.
    symmetries
        Point group by class number; under None, of all others. Where poses are aligned from nothing, the axes are
        looked for in the average first, and nothing is imposed where they are not found.
    masks
        MRC of the averages' box and spacing by class number; under None, of all others. The FSC is computed within it,
        and references are multiplied by it where poses are aligned from nothing. There it must be the same from all
        sides. By default the surroundings of the density, and the sphere that fits the box.
    low_pass_angstrom
        Resolution up to which poses are first searched for; by default five shells.
    memory_bytes
        How much may be held of particles; by default half of what is free. The result is the same.
    most_sorted
        As :func:`cryodc.averaging.final_classes.classify_run` takes ``most``.
    """

    ignore_poses: bool = False
    seed: int = 0
    device: str = "auto"
    n_starts: int = 2
    classify: bool | None = None
    n_rounds: int = 6
    junk: bool = True
    symmetries: Mapping[int | None, str] = field(default_factory=dict)
    masks: Mapping[int | None, Path] = field(default_factory=dict)
    low_pass_angstrom: float | None = None
    memory_bytes: float | None = None
    most_sorted: int | None = MOST_PARTICLES


@dataclass(frozen=True)
class AverageInputs:
    """A request with everything it needs: clusters, particles and masks.

    Parameters
    ----------
    request
        The request.
    clusters, made_of
        The run's clusters, and their fingerprint.
    particles, dataset
        As in the STAR, and as tensors: a pack may be coarser than the images.
    masks
        Masks of the request, by class number.
    start_shells
        Shells that the search for poses starts in; None for the default.
    device, memory_bytes
        Where to compute, and how much of particles may be held there.
    classify
        Whether particles are sorted anew.
    """

    request: AverageRequest
    clusters: Clusters
    made_of: str
    particles: ParticleSet
    dataset: SubtomogramDataset
    masks: Mapping[int | None, Tensor]
    start_shells: float | None
    device: torch.device
    memory_bytes: float
    classify: bool

    @property
    def use_star(self) -> bool:
        """Whether the poses of the STAR are taken as they are."""
        return takes_poses_of_star(self.request, self.particles)

    @property
    def spacing_angstrom(self) -> float:
        """Of the averages."""
        return self.dataset.particles.spacing_angstrom


def takes_poses_of_star(request: AverageRequest, particles: ParticleSet) -> bool:
    """Whether the poses of the STAR are taken as they are: it has some, and they are not to be ignored."""
    return particles.poses is not None and not request.ignore_poses


def prepare_average(run: RunFolder, request: AverageRequest) -> AverageInputs:
    """Read everything that a request needs, and check that it can be done.

    Raises
    ------
    InputError
        If the run is not clustered, its clusters are of other particles, a symmetry or mask is of no class, a mask
        does not fit, the low-pass is of nothing or leaves nothing to judge by, or there is no such device.
    """
    made_of, clusters = fingerprint_of_clusters(run), load_clusters(run)
    device = choose_device(request.device)
    particles = load_run_particles(run)
    if particles.names != clusters.names:
        raise InputError(
            "the clusters are of other particles than the run's STAR",
            file=run.clusters / "summary.json",
            remedy="run `cryodc cluster` again",
        )
    use_star = takes_poses_of_star(request, particles)
    classify = request.classify
    if classify is None:
        classify = not use_star and not made_by_hand(run)
    if not classify:
        _require_classes(clusters, {"symmetry": request.symmetries, "mask": request.masks})
    if request.low_pass_angstrom is not None and use_star and not classify:
        raise InputError(
            "--low-pass is where the search for poses starts, but those of the STAR are taken as they are",
            file=run.particles,
            remedy="add --ignore-poses, or leave --low-pass out",
        )
    dataset = load_run_dataset(run, particles)
    box_size, spacing = dataset.particles.box_size, dataset.particles.spacing_angstrom
    masks = read_masks(request.masks, box_size, spacing, any_frame=not use_star)
    start_shells = _start_shells(request.low_pass_angstrom, box_size, spacing)
    held = memory_budget(device) if request.memory_bytes is None else request.memory_bytes
    return AverageInputs(request, clusters, made_of, particles, dataset, masks, start_shells, device, held, classify)


def plan_average(run: RunFolder, inputs: AverageInputs) -> Forecast:
    """What averaging would read, write and cost."""
    n, request, n_classes = len(inputs.particles), inputs.request, inputs.clusters.n_clusters
    box = inputs.dataset.particles.box_size
    work = {"average": n, "alignment": 0 if inputs.use_star else n * request.n_starts}
    if inputs.classify:
        work["classification"] = n * n_classes * request.n_rounds
    told, n_maps = f"{n} particles of box {box} in {n_classes} classes", 8 * n_classes
    read, written = particle_bytes(n, box), 4.0 * n_maps * box**3
    # Spectra of a class to 0.7 of Nyquist take a third of its boxes; beside them a few batches are looked at.
    held = min(n / 3, inputs.memory_bytes / (4 * box**3))
    return Forecast(run.averages, told, read, written, (box,) * 3, work, held + 400)


def half_set_statement(
    inputs: AverageInputs, clusters: Clusters, half_sets: Int[NDArray[np.int64], " n"], start_shells: float
) -> str:
    """State how the half sets were made, and so whether their FSC is gold standard.

    Parameters
    ----------
    inputs
        Their STAR may name half sets.
    clusters
        The classes that were averaged.
    half_sets
        The half sets that were averaged.
    start_shells
        Shells that both halves share a start in, where poses are aligned.
    """
    stated = inputs.particles.half_sets
    anew = [] if stated is None else np.unique(clusters.labels[stated != half_sets] + 1).tolist()
    origin = "a random split"
    if stated is not None:
        origin = "rlnRandomSubset of the STAR"
        if len(anew) == clusters.n_clusters:
            origin = "a random split, since rlnRandomSubset of the STAR leaves one half empty"
        elif anew:
            named = ", ".join(map(str, anew))
            origin += f" (class {named}: a random split, since it leaves one half empty)"
    if not inputs.use_star:
        return (
            f"{origin}; halves were aligned independently, from a start they share up to shell {start_shells:.3g}; "
            "resolutions beyond it are gold standard"
        )
    if stated is None or len(anew) == clusters.n_clusters:
        return f"{origin}, of particles whose poses were given: not gold standard"
    but = "" if not anew else ", which those of a random split never are"
    return f"{origin}; gold standard if its poses were refined in these halves{but}"


def _start_shells(low_pass_angstrom: float | None, box_size: int, spacing_angstrom: float) -> float | None:
    """Shells of a box up to this resolution; None for the default."""
    if low_pass_angstrom is None:
        return None
    box_angstrom = box_size * spacing_angstrom
    below = most_start_shells(min(box_size, ALIGNMENT_BOX))
    shells = box_angstrom / low_pass_angstrom
    if not FEWEST_START_SHELLS <= shells < below:
        raise InputError(
            "the search for poses cannot start at this resolution",
            expected=f"--low-pass from {box_angstrom / FEWEST_START_SHELLS:.1f} Å to just above "
            f"{box_angstrom / below:.1f} Å: {FEWEST_START_SHELLS} shells at least, and {JUDGED_SHELLS} left before "
            f"the finest that poses are searched at, by which halves are judged",
            found=f"{low_pass_angstrom:g} Å; Nyquist is {2 * spacing_angstrom:g} Å",
        )
    return shells


def _require_classes(clusters: Clusters, given: Mapping[str, Mapping[int | None, object]]) -> None:
    for what, by_class in given.items():
        unknown = [number for number in by_class if number is not None and number > clusters.n_clusters]
        if unknown:
            raise InputError(
                f"a {what} is given for a class that is not there",
                expected=f"classes 1 to {clusters.n_clusters}",
                found=str(unknown[0]),
            )
