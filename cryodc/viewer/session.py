"""A run as the viewer sees it, and what a user does with it: no window is needed for any of this."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray

from cryodc.clustering import separate_class, split_class
from cryodc.dataset import SubtomogramDataset
from cryodc.errors import InputError
from cryodc.export import select_run, write_rows
from cryodc.figures import (
    ParticlePreviews,
    ShownParticle,
    class_colour,
    colour_columns,
    load_previews,
    principal_plane,
    star_of_now,
)
from cryodc.io import read_volume
from cryodc.particles import Poses, read_particles
from cryodc.runs import Clusters, RunFolder, classes_if_any, current_averages, load_codes, load_run_dataset
from cryodc.star import find_particle_block, read_star
from cryodc.viewer.quick import QuickAverage, in_pose, quick_average
from cryodc.viewer.raster import point_colours, value_colours, within_outline


@dataclass(frozen=True)
class NamedSet:
    """Particles chosen with one line, and what the user calls them."""

    name: str
    rows: Int[NDArray[np.int64], " k"]


@dataclass(frozen=True)
class Look:
    """One particle, the average of its class in its pose where both are known, and a line on it."""

    shown: ShownParticle
    average: Float[NDArray[np.float32], "d h w"] | None
    caption: str


@dataclass(frozen=True)
class Coloured:
    """Colours of all particles, and what they mean.

    Parameters
    ----------
    colours
        ``(n, 3)``, 0 to 255.
    span
        Least and largest value, where the colours are of numbers.
    groups
        Colour and meaning of each, where they are of texts or classes.
    """

    colours: UInt8[NDArray[np.uint8], "n 3"]
    span: tuple[float, float] | None
    groups: list[tuple[str, str]]


@dataclass
class Session:
    """What is known of a run while it is looked at.

    Parameters
    ----------
    run
        The run folder.
    previews
        Its particles, whether or not their images are still there.
    plane
        ``(n, 2)`` content codes in their two principal components.
    classes
        ``(n,)`` rlnClassNumber; 0 is unassigned, or not clustered.
    poses
        Found by `cryodc average`, else of the STAR; None where there are none.
    averaged
        Classes whose averages are of the classes the run has now.
    columns
        What else can colour the particles: by label of the STAR, texts or numbers.
    sets
        Chosen so far.
    """

    run: RunFolder
    previews: ParticlePreviews
    plane: Float[NDArray[np.float64], "n 2"]
    classes: Int[NDArray[np.int64], " n"]
    poses: Poses | None
    poses_found: bool
    averaged: tuple[int, ...]
    columns: dict[str, list[str] | Float[NDArray[np.float64], " n"]]
    sets: list[NamedSet] = field(default_factory=list)
    _dataset: SubtomogramDataset | None = None
    _n_named: int = 0

    @classmethod
    def open(cls, run: RunFolder) -> "Session":
        """Read a trained run; clustered and averaged or not.

        Raises
        ------
        InputError
            If it has not been trained, or is damaged.
        """
        codes, previews, clusters = load_codes(run), load_previews(run), classes_if_any(run)
        names, averages = previews.particles.names, current_averages(run)
        plane, _ = principal_plane(codes.select(names).content_points)
        poses, found = previews.particles.poses, run.averages / "particles.star"
        poses_found = found.exists()
        if poses_found:
            poses = read_particles(found, check_images=False).poses
        numbers = () if averages is None else tuple(entry.class_number for entry in averages.classes)
        columns = _columns(star_of_now(run, clusters))
        return cls(run, previews, plane, _numbers(clusters, len(names)), poses, poses_found, numbers, columns)

    @property
    def class_numbers(self) -> list[int]:
        """Of the classes that have particles."""
        return [int(number) for number in np.unique(self.classes[self.classes > 0])]

    @property
    def box_angstrom(self) -> float:
        """Edge of a particle's box."""
        return self.previews.particles.box_size * self.previews.particles.spacing_angstrom

    def coloured(self, label: str) -> Coloured:
        """Colours of all particles by a column, or by class where the label is none of the columns."""
        values = self.columns.get(label)
        if isinstance(values, np.ndarray):
            return Coloured(value_colours(values), (float(values.min()), float(values.max())), [])
        if values is None:
            groups = np.where(self.classes > 0, self.classes, 0)
            names = {int(number): f"class {number}" if number else "no class" for number in np.unique(groups)}
        else:
            distinct = sorted(set(values))
            names = dict(enumerate(distinct, start=1))
            at = {name: number for number, name in names.items()}
            groups = np.array([at[value] for value in values])
        counts = np.bincount(groups)
        legend = [(class_colour(number), f"{name} · {counts[number]:,}") for number, name in names.items()]
        return Coloured(point_colours(groups), None, legend)

    def add_set(self, outline: Sequence[tuple[float, float]]) -> NamedSet:
        """Keep the particles whose codes lie within a line as a set with a name of its own.

        Raises
        ------
        InputError
            If there are none.
        """
        rows = within_outline(self.plane, outline)
        if len(rows) == 0:
            raise InputError("no code lies within this line", remedy="draw it round some points")
        self._n_named += 1
        self.sets.append(NamedSet(f"set {self._n_named}", rows))
        return self.sets[-1]

    def rename_set(self, index: int, name: str) -> None:
        """Call a set otherwise; an empty name changes nothing."""
        if name.strip():
            self.sets[index] = replace(self.sets[index], name=name.strip())

    def marked(self, index: int | None) -> Bool[NDArray[np.bool_], " n"]:
        """Which particles a set has; none without one."""
        mask = np.zeros(len(self.plane), dtype=bool)
        if index is not None:
            mask[self.sets[index].rows] = True
        return mask

    def describe(self, chosen: NamedSet) -> str:
        """How many particles a set has, of which classes."""
        counts = np.bincount(self.classes[chosen.rows])
        of_classes = ", ".join(f"{n} of {f'class {c}' if c else 'no class'}" for c, n in enumerate(counts) if n)
        return f"{len(chosen.rows)} particles: {of_classes}"

    def look(self, row: int) -> Look:
        """One particle as recorded, low-passed, and what the average of its class looks like in its pose."""
        number, shown = int(self.classes[row]), self.previews.show(row)
        average = None
        if number in self.averaged and self.poses is not None:
            average = in_pose(read_volume(self.run.averages / f"class{number:03d}.mrc"), self.poses, row)
        caption = f"{self.previews.particles.names[row]} · {f'class {number}' if number else 'no class'}"
        return Look(shown, average, f"{caption} · {shown.problem}" if shown.problem else caption)

    def average(self, chosen: NamedSet) -> tuple[QuickAverage, str]:
        """The average of a set in the poses that are known, and a line on it.

        Raises
        ------
        InputError
            If there are no poses, or the images cannot be read.
        """
        if self.poses is None:
            raise InputError(
                "these particles have no poses yet",
                file=self.run.path,
                remedy="run `cryodc average`, which aligns each class",
            )
        self._dataset = self._dataset or load_run_dataset(self.run)
        result = quick_average(self._dataset, self.poses, chosen.rows)
        said = f"{chosen.name}: average of {result.n_averaged}"
        said += f" of {result.n_chosen} particles" if result.n_averaged < result.n_chosen else " particles"
        said += ", poses found by `cryodc average`" if self.poses_found else ", poses of the STAR"
        if self.poses_found and self.previews.particles.poses is None and len(np.unique(self.classes[chosen.rows])) > 1:
            said += ". Each class was aligned by itself, so that particles of several classes blur"
        return result, said

    def make_class(self, chosen: NamedSet) -> str:
        """Make a class of a set; see :func:`cryodc.clustering.separate_class`."""
        return self._reclassified(separate_class(self.run, chosen.rows))

    def split(self, chosen: NamedSet) -> str:
        """Split the class that most of a set is of; see :func:`cryodc.clustering.split_class`."""
        return self._reclassified(split_class(self.run, chosen.rows))

    def write_set(self, chosen: NamedSet, out: Path) -> str:
        """Write the rows of a set; see :func:`cryodc.export.write_rows`."""
        write_rows(self.run, chosen.rows, out)
        return f"wrote {len(chosen.rows)} particles to {out}"

    def write_classes(self, kept: Collection[int], out: Path) -> str:
        """Write the particles of the classes that are kept, as `cryodc select` does.

        Raises
        ------
        InputError
            As :func:`cryodc.export.select_run`; or if none is kept.
        """
        if not kept:
            raise InputError("no class is kept", remedy="tick those to keep")
        selection = select_run(self.run, out, classes=kept)
        return f"wrote {len(selection)} particles of class {', '.join(map(str, sorted(kept)))} to {out}"

    def _reclassified(self, clusters: Clusters) -> str:
        self.classes, self.averaged = _numbers(clusters, len(self.plane)), ()
        return f"{clusters.verdict}. Averages are of the earlier classes until `cryodc average` has run"


def _columns(star: Path) -> dict[str, list[str] | Float[NDArray[np.float64], " n"]]:
    """Columns of a STAR that can colour its particles, without the class, which changes here."""
    block = find_particle_block(read_star(star))
    found = [(column, block.column(column.label)) for column in colour_columns(block)]
    return {
        column.label: np.array(cells, dtype=np.float64) if column.numeric else cells
        for column, cells in found
        if column.label != "rlnClassNumber"
    }


def _numbers(clusters: Clusters | None, n_particles: int) -> Int[NDArray[np.int64], " n"]:
    return np.zeros(n_particles, dtype=np.int64) if clusters is None else clusters.labels + 1
