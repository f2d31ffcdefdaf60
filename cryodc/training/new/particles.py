"""Codes and clusters of particles that a run was not trained on, by its model, its templates and its clusters."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.clustering import clusters_of_new, write_class_stars
from cryodc.codes import Codes
from cryodc.dataset import (
    ImageDataset,
    InputOptions,
    ParticleReader,
    SubtomogramDataset,
    image_dataset,
    load_dataset,
)
from cryodc.device import choose_device
from cryodc.dry_run import Forecast, declare, particle_bytes
from cryodc.errors import InputError
from cryodc.io import ImageFinder, new_folder, require_empty
from cryodc.models import TrainConfig
from cryodc.particles import (
    ParticleSet,
    Poses,
    holds_images,
    read_image_particles,
    read_images,
    read_particles,
    with_poses,
)
from cryodc.runs import (
    RunFolder,
    Summary,
    current_classes,
    fingerprint_of_averages,
    fingerprint_of_clusters,
    fingerprint_of_codes,
    input_options,
    load_clusters,
    load_codes,
    load_config,
    save_codes,
    write_summary,
)
from cryodc.star import StarDocument, read_star
from cryodc.templates import with_templates_of
from cryodc.training.checkpoint import load_model
from cryodc.training.encode import encode_particles
from cryodc.training.new.poses import ReadyAverage, join_poses, poses_on_averages, ready_averages

_AT_ONCE = 2048
_SAME_SPACING = 0.01
_OF_ALL = ("names", "directional", "awaits_templates")
"""What codes have once, and not a row for each particle."""


@dataclass(frozen=True)
class EncodeRequest:
    """What a user asks of ``cryodc encode``.

    Parameters
    ----------
    star, out
        New particles, read-only, and the folder to make.
    run
        Whose model, templates and clusters.
    data_dir
        Where images are looked for after the current folder and the STAR's.
    tilt_range, tilt_ranges_csv, tilt_axis, invert
        As ``cryodc train`` takes them; where neither range is given and no axis, those of the run.
    align
        Find the pose of each particle on the average of its class, which is then that of averages/.
    seed, device
        Of views and searches; ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    star: Path
    out: Path
    run: RunFolder
    data_dir: Path | None = None
    tilt_range: tuple[float, float] | None = None
    tilt_ranges_csv: Path | None = None
    tilt_axis: str | None = None
    invert: bool | None = None
    align: bool = False
    seed: int = 0
    device: str = "auto"


class EncodeSummary(Summary):
    """summary.json of new particles; made of the clusters of the run, or of its codes where it has none.

    With poses it is made of the averages of the run. ``aligned`` are then the classes whose particles have new ones.
    """

    run: str
    star: str
    n_particles: int
    n_clusters: int | None
    sizes: list[int]
    seed: int
    aligned: list[int] | None
    names: list[str]
    labels: list[int] | None
    confidence: list[float] | None


@dataclass(frozen=True)
class Encoded:
    """New particles, encoded.

    Parameters
    ----------
    codes
        Of every one.
    labels, confidence
        ``(n,)`` 0-based cluster of the run and its posterior probability; None where the run has no clusters.
    n_clusters
        Of the run.
    poses
        On the averages of the run, where asked for; in a class that is not aligned, those of the STAR or none.
    """

    codes: Codes
    labels: Int[NDArray[np.int64], " n"] | None
    confidence: Float[NDArray[np.float64], " n"] | None
    n_clusters: int | None
    poses: Poses | None = None

    @property
    def sizes(self) -> list[int]:
        """Particles in each cluster of the run."""
        return [] if self.labels is None else np.bincount(self.labels, minlength=self.n_clusters or 0).tolist()


def encode_new(
    request: EncodeRequest, on_batch: Callable[[int, int], None] = lambda n_particles, n_total: None
) -> Encoded:
    """Encode new particles by a run, give them its clusters, and write codes.npz, clusters.star and summary.json.

    Nothing is trained, and nothing is written into the run.

    Parameters
    ----------
    request
        What the user asks.
    on_batch
        Told how many particles are encoded, and of how many.

    Raises
    ------
    InputError
        As :func:`cryodc.training.workflow.prepare_run` of the particles; if they are not of the run's box and spacing;
        if a file of the run is missing or damaged, or with ``align`` it has no averages; or if ``out`` holds anything.
    """
    run, device = request.run, choose_device(request.device)
    require_empty(request.out)
    model, config = load_model(run.checkpoints / "last.pt", device)
    of_run = load_codes(run)
    averages = ready_averages(run) if request.align else None
    find = load_clusters if averages is None else current_classes
    clusters = find(run) if (run.clusters / "summary.json").exists() else None
    document = read_star(request.star)
    described = load_config(run)
    particles = _read(request, document, config, described)
    parts: list[Codes] = []
    poses: list[Poses] = []
    n_views = config.optimisation.encoding_views
    n, box, told = len(particles), config.model.box_size, f"{len(particles)} particles"
    work = {"code": n * n_views, "matching": 0 if of_run.template_content is None else n}
    declare(Forecast(request.out, told, particle_bytes(n, box), 1e3 * n, (box,) * config.model.dims, work, 100))
    for dataset in _datasets(request, particles, described):
        codes = encode_particles(model, dataset, config.views, n_views=n_views, seed=request.seed)
        if of_run.template_content is not None and isinstance(dataset, SubtomogramDataset):
            codes = with_templates_of(run, dataset, codes, request.seed, device)
        if averages is not None and clusters is not None and isinstance(dataset, SubtomogramDataset):
            its = clusters_of_new(of_run, clusters, codes)[0]
            poses.append(poses_on_averages(dataset, its, averages, request.seed, device))
        parts.append(codes)
        on_batch(len(codes), len(particles))
    found = _joined(parts)
    labels, confidence = (None, None) if clusters is None else clusters_of_new(of_run, clusters, found)
    n_clusters, placed = None if clusters is None else clusters.n_clusters, join_poses(poses)
    if placed is not None:
        document = with_poses(document, placed, particles)
    encoded = Encoded(found, labels, confidence, n_clusters, placed)
    _write(request, document, encoded, averages)
    return encoded


def _read(
    request: EncodeRequest, document: StarDocument, config: TrainConfig, described: dict[str, Any]
) -> ParticleSet:
    flat = holds_images(document)
    if flat != (config.model.dims == 2):
        raise InputError(
            "these particles are not of the kind the run was trained on",
            file=request.star,
            expected="2D images" if config.model.dims == 2 else "subtomograms",
            found="2D images" if flat else "subtomograms",
        )
    if flat:
        particles = read_image_particles(document, ImageFinder.beside(request.star, request.data_dir))
    else:
        particles = read_particles(request.star, data_dir=request.data_dir)
    box_size, spacing = described["dataset"]["box_size"], described["dataset"]["spacing_angstrom"]
    differs = abs(particles.spacing_angstrom - spacing) > _SAME_SPACING * spacing
    if particles.box_size != box_size or differs:
        raise InputError(
            "these particles are not of the box and voxel spacing the run was trained on",
            file=request.star,
            expected=f"box {box_size}, {spacing:g} Å",
            found=f"box {particles.box_size}, {particles.spacing_angstrom:g} Å",
            remedy="extract them as those of the run were",
        )
    return particles


def _datasets(
    request: EncodeRequest, particles: ParticleSet, described: dict[str, Any]
) -> Iterator[ImageDataset | SubtomogramDataset]:
    """Particles as the run reads its own, so many at once as memory need hold."""
    blocks = np.array_split(np.arange(len(particles)), math.ceil(len(particles) / _AT_ONCE))
    if described["model"]["dims"] == 2:
        sign = -1 if _invert(request, described) else 1
        for rows in blocks:
            part = particles.select(rows)
            yield image_dataset(sign * read_images(part), part.names, part.source)
        return
    options, box_size = _options(request, described), (described.get("pack") or described["dataset"])["box_size"]
    # All that is wrong with any weight is said before the first particle is encoded.
    ParticleReader(particles, options, box_size)
    for rows in blocks:
        yield load_dataset(particles.select(rows), options, box_size)


def _options(request: EncodeRequest, described: dict[str, Any]) -> InputOptions:
    given = {
        "tilt_range": request.tilt_range,
        "tilt_ranges": request.tilt_ranges_csv,
        "tilt_axis": request.tilt_axis,
    }
    wedge = {name: value for name, value in given.items() if value is not None}
    ranges = {} if wedge.keys() <= {"tilt_axis"} else {"tilt_range": None, "tilt_ranges": None}
    return input_options({**described["input"], **ranges, **wedge, "invert": _invert(request, described)})


def _invert(request: EncodeRequest, described: dict[str, Any]) -> bool:
    return bool(described["input"]["invert"]) if request.invert is None else request.invert


def _joined(parts: Sequence[Codes]) -> Codes:
    """Codes of all parts, in order."""

    def column(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)

    names = tuple(name for part in parts for name in part.names)
    columns = {f.name: column(f.name) for f in fields(Codes) if f.name not in _OF_ALL}
    return Codes(names=names, directional=parts[0].directional, **columns)


def _write(
    request: EncodeRequest, document: StarDocument, encoded: Encoded, averages: dict[int, ReadyAverage] | None
) -> None:
    labels, confidence = encoded.labels, encoded.confidence
    made_of = fingerprint_of_codes if labels is None else fingerprint_of_clusters
    with new_folder(request.out) as folder:
        save_codes(RunFolder(folder), encoded.codes)
        if labels is not None and encoded.n_clusters is not None:
            write_class_stars(folder, document, labels, encoded.n_clusters)
        summary = EncodeSummary(
            made_of=(made_of if averages is None else fingerprint_of_averages)(request.run),
            run=str(request.run.path.resolve()),
            star=str(request.star.resolve()),
            n_particles=len(encoded.codes),
            n_clusters=encoded.n_clusters,
            sizes=encoded.sizes,
            seed=request.seed,
            aligned=None if averages is None else [label + 1 for label in averages],
            names=list(encoded.codes.names),
            labels=None if labels is None else labels.tolist(),
            confidence=None if confidence is None else [round(float(value), 4) for value in confidence],
        )
        write_summary(folder, summary)
