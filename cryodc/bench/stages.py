"""The steps that are measured: each is made ready, and gives what is to be timed.

All work on the same simulated particles, phantoms in a box of 320 Å, and none needs another's result but the pack
and, for ``match``, the templates. So each can be measured alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cryodc.alignment import align_class, balanced_halves
from cryodc.averaging import classify_particles, shrink
from cryodc.clustering import cluster_codes
from cryodc.codes import Codes
from cryodc.dataset import SubtomogramDataset, open_pack, pack_particles
from cryodc.fourier import ParticleStack, soft_sphere
from cryodc.geometry import geodesic_degrees
from cryodc.io import read_volume
from cryodc.maps import average_particles
from cryodc.models import preset_config
from cryodc.particles import Poses, read_particles
from cryodc.runs import RunFolder
from cryodc.simulation import Truth, read_truth
from cryodc.states import PosedBatch, find_conformations, measure
from cryodc.templates import add_template_code, with_templates_of
from cryodc.training import ReadyAverage, poses_on_averages, train

PROTEINS = ("bilobe", "barrel", "wheel", "clamp", "bar", "tripod")
"""In this order, as many as there are classes."""
_BATCH = 64
_N_CLUSTERS, _CONTENT = 4, 8
_SHELLS = 12
Timed = Callable[[], "Done"]


@dataclass(frozen=True)
class Done:
    """How many particles a step went over, and the median error of the poses that it found, where it found any."""

    n_particles: int
    error_degrees: float | None = None
    error_angstrom: float | None = None


@dataclass(frozen=True)
class Work:
    """Particles that a step is measured on.

    Parameters
    ----------
    folder
        ``sim/`` and, once it is made, ``pack/``.
    seed, device
        Of everything random; and where to compute.
    """

    folder: Path
    seed: int
    device: torch.device

    @property
    def star(self) -> Path:
        """The particles."""
        return self.folder / "sim" / "particles.star"

    @property
    def run(self) -> RunFolder:
        """Where steps write that write into a run."""
        return RunFolder(self.folder / "run")

    def truth(self) -> Truth:
        """The answer, in the order of the STAR."""
        return read_truth(self.star.with_name("truth.csv"))

    def dataset(self) -> SubtomogramDataset:
        """The particles, read from the pack as they are needed."""
        return open_pack(self.folder / "pack", read_particles(self.star), verify=False)

    def one_class(self) -> tuple[ParticleStack, NDArray[np.int64]]:
        """The particles of the first protein, and which they are."""
        rows = self.rows()
        return self.dataset().gather(torch.from_numpy(rows)).to(self.device), rows

    def rows(self) -> NDArray[np.int64]:
        """The particles of the first protein."""
        truth = self.truth()
        return np.flatnonzero(truth.labels == truth.proteins.index(PROTEINS[0]))

    def true_poses(self, rows: NDArray[np.int64]) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]:
        """Rotations, and origins in voxels."""
        poses, spacing = self.truth().poses, read_particles(self.star).spacing_angstrom
        rotations, origins = poses.rotations[rows], poses.origins_angstrom[rows] / spacing
        return torch.from_numpy(rotations).float().to(self.device), torch.from_numpy(origins).float().to(self.device)


def compare_poses(found: Poses, truth: Truth, rows: NDArray[np.int64]) -> Done:
    """Poses of the particles ``rows`` against the truth, whose map they were found on."""
    turned = geodesic_degrees(found.rotations, truth.poses.rotations[rows])
    moved = np.linalg.norm(found.origins_angstrom - truth.poses.origins_angstrom[rows], axis=1)
    return Done(len(rows), round(float(np.median(turned)), 2), round(float(np.median(moved)), 2))


def _pack(work: Work) -> Timed:
    particles = read_particles(work.star)
    return lambda: Done(pack_particles(particles, work.folder / "pack", dtype="float16").n_particles)


def _train(work: Work) -> Timed:
    dataset = work.dataset()
    config = preset_config("default", dataset.box_size, {"optimisation": {"epochs": 1}})
    run = RunFolder(work.folder / "trained")

    def one_epoch() -> Done:
        train(dataset, config, run, seed=work.seed, device=work.device)
        return Done(len(dataset))

    return one_epoch


def _templates(work: Work) -> Timed:
    dataset, config = work.dataset(), preset_config("default", 32).templates
    codes = _codes(dataset.names, work.seed)
    work.run.templates.mkdir(parents=True, exist_ok=True)

    def learn() -> Done:
        add_template_code(work.run, dataset, codes, config, work.seed, work.device)
        return Done(len(dataset))

    return learn


def _match(work: Work) -> Timed:
    dataset = work.dataset()
    codes = _codes(dataset.names, work.seed)
    return lambda: Done(len(with_templates_of(work.run, dataset, codes, work.seed, work.device)))


def _cluster(work: Work) -> Timed:
    codes = _codes(work.truth().names, work.seed)
    return lambda: Done(len(cluster_codes(codes, seed=work.seed).labels))


def _align(work: Work) -> Timed:
    stack = shrink(work.one_class()[0])
    return lambda: Done(len(align_class(stack, seed=work.seed, n_starts=1).rotations))


def _poses(work: Work) -> Timed:
    dataset, truth = work.dataset(), work.truth()
    average = read_volume(work.star.parent / "maps" / f"{PROTEINS[0]}.mrc")
    averages = {0: ReadyAverage(torch.from_numpy(average.voxels), min(_SHELLS, dataset.box_size // 2 - 3))}
    rows = work.rows()
    labels = np.full(len(dataset), -1)
    labels[rows] = 0

    def place() -> Done:
        found = poses_on_averages(dataset, labels, averages, work.seed, work.device)
        return compare_poses(found[rows], truth, rows)

    return place


def _classify(work: Work) -> Timed:
    dataset, labels = work.dataset(), torch.from_numpy(work.truth().labels).to(work.device)
    n = len(dataset)
    stack = shrink(dataset.gather(torch.arange(n)).to(work.device))
    halves = torch.from_numpy(balanced_halves(n, work.seed)).to(work.device)
    sure = torch.ones(n, device=work.device)

    def classify() -> Done:
        classify_particles(stack, labels, sure, halves, seed=work.seed, n_starts=1)
        return Done(n)

    return classify


def _average(work: Work) -> Timed:
    stack, rows = work.one_class()
    poses, halves = work.true_poses(rows), balanced_halves(len(rows), work.seed)

    def average() -> Done:
        average_particles(stack, *poses, halves)
        return Done(len(rows))

    return average


def _states(work: Work) -> Timed:
    stack, rows = work.one_class()
    poses, halves = work.true_poses(rows), balanced_halves(len(rows), work.seed)
    box = stack.box_size
    mask = soft_sphere(box, box / 2 - 3, 3.0, work.device)

    def batches() -> Iterator[PosedBatch]:
        for places, part in stack.batches(_BATCH):
            yield part.volumes, part.own_weights, poses[0][places], poses[1][places]

    def states() -> Done:
        find_conformations(measure(batches, mask, _SHELLS)[0], halves, seed=work.seed, n_starts=1)
        return Done(len(rows))

    return states


def _codes(names: tuple[str, ...], seed: int) -> Codes:
    """Content codes of as many clusters as there are, whose particles spread by 1."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(scale=6.0, size=(_N_CLUSTERS, _CONTENT))
    points = centres[np.arange(len(names)) % _N_CLUSTERS] + generator.normal(size=(len(names), _CONTENT))
    content, none = points.astype(np.float32), np.zeros((len(names), 1), np.float32)
    return Codes(names, content, none, np.zeros_like(content), none, False, template_content=content)


STAGES: dict[str, Callable[[Work], Timed]] = {
    "pack": _pack,
    "train": _train,
    "templates": _templates,
    "match": _match,
    "cluster": _cluster,
    "align": _align,
    "poses": _poses,
    "classify": _classify,
    "average": _average,
    "states": _states,
}
"""In order: what is done to all particles; of ``align``, ``poses``, ``average`` and ``states`` to those of a class."""
NEEDS = {"match": ("templates",)}
"""What must have been done before, beside ``pack``."""
