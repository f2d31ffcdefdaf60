"""Properties of the particles of a run, from its files, in the order of its codes; read once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.fourier import missing_moments, wedge_from_tilt_range
from cryodc.io import ImageFinder, ImageReference, find_by_name, read_weight, split_image_name
from cryodc.particles import ParticleSet, Poses, read_metadata, read_particles
from cryodc.runs import RunFolder, classes_if_any, current_averages, input_options, load_config, require
from cryodc.star import StarBlock, find_particle_block, numbers_of, particle_block, read_star, read_whole_numbers

_MAX_WEDGES = 50


@dataclass(frozen=True)
class RunSources:
    """Files of a trained run.

    Parameters
    ----------
    run
        The run.
    names
        ``n`` particles of it: the order of everything below.
    """

    run: RunFolder
    names: tuple[str, ...]

    @cached_property
    def poses(self) -> Poses | None:
        """Poses of the STAR, if it has any."""
        return None if self._particles.poses is None else self._particles.poses[self._rows]

    @cached_property
    def tomograms(self) -> tuple[str, ...]:
        """Tomogram of each particle, ``""`` where the STAR does not say."""
        return tuple(self._particles.tomograms[row] for row in self._rows)

    @cached_property
    def classes(self) -> Int[NDArray[np.int64], " n"] | None:
        """Class of each particle now, from 1 up, 0 for none; None before clustering."""
        classes = classes_if_any(self.run)
        return None if classes is None else classes.labels[self._places(classes.names)] + 1

    def found_poses(self) -> tuple[Poses, Int[NDArray[np.int64], " n"]] | None:
        """Poses that averaging found, and the class of each; −1 where that could not be aligned.

        None without any, or where they are of earlier classes.
        """
        averages = current_averages(self.run)
        if averages is None:
            return None
        path = require(self.run.averages / "particles.star", "cryodc average")
        found = read_particles(path, check_images=False)
        if found.poses is None:
            return None
        document = read_star(path)
        numbers = read_whole_numbers(document, particle_block(document), "rlnClassNumber")
        aligned = [row.class_number for row in averages.classes if row.aligned]
        places = self._places(found.names)
        return found.poses[places], np.where(np.isin(numbers, aligned), numbers, -1)[places]

    def column(self, labels: Sequence[str]) -> Float[NDArray[np.float64], " n"] | None:
        """Mean of those columns of the STAR that are there, nan where a cell is no number; None without the first."""
        present = [label for label in labels if label in self._block]
        if labels[0] not in present:
            return None
        cells = self._block.columns(present)
        return np.mean([numbers_of(cells[label]) for label in present], axis=0)[self._rows]

    def wedges(self, tomograms: Sequence[str]) -> tuple[Float[NDArray[np.float64], "n 3 3"] | None, str]:
        """Missing moments of each particle's box, of its tomogram's first weight; or None and why not.

        Of the 50 tomograms with the most particles; nan for others.
        """
        names, first, inverse, counts = np.unique(
            np.array(tomograms, dtype=np.str_), return_index=True, return_inverse=True, return_counts=True
        )
        moments = np.full((len(names), 3, 3), np.nan)
        try:
            for place in np.argsort(-counts, kind="stable")[:_MAX_WEDGES]:
                moments[place] = self._wedge(int(first[place]), str(names[place]))
        except InputError as error:
            return None, f"{error.problem}: {error.found or error.file}"
        return moments[inverse], ""

    def _wedge(self, place: int, tomogram: str) -> Float[NDArray[np.float64], "3 3"]:
        box = int(self._config["dataset"]["box_size"])
        if "rlnCtfImage" in self._block:
            grids = self._particles.grids
            box = box if grids is None else grids[self._rows[place]].box_size
            section, name = split_image_name(self._weight_names[self._rows[place]])
            found = ImageFinder.within([Path(folder) for folder in self._config["image_folders"]]).find(name)
            if found is None:
                raise InputError(
                    "a weight volume is no longer there",
                    file=self.run.particles,
                    expected=f"{name} in a folder that the run was trained from",
                    remedy="put it back where it was",
                )
            weight = torch.from_numpy(read_weight(ImageReference(found, section), box).transfer)
        else:
            options = input_options(self._config["input"])
            tilt_range = find_by_name(options.tilt_ranges or {}, tomogram) or options.tilt_range
            if tilt_range is None:
                raise InputError(
                    "no weight and no tilt range",
                    file=self.run.config,
                    expected=f"rlnCtfImage in the STAR, or a tilt range of {tomogram}",
                    found=tomogram,
                    remedy="train again with --tilt-range or --tilt-ranges",
                )
            weight = wedge_from_tilt_range(box, *tilt_range, options.tilt_axis)
        return missing_moments(weight).numpy()

    @cached_property
    def _config(self) -> dict[str, Any]:
        return load_config(self.run)

    @cached_property
    def _particles(self) -> ParticleSet:
        return read_metadata(self.run.particles)[0]

    @cached_property
    def _block(self) -> StarBlock:
        return find_particle_block(read_star(self.run.particles))

    @cached_property
    def _weight_names(self) -> list[str]:
        return self._block.column("rlnCtfImage")

    @cached_property
    def _rows(self) -> Int[NDArray[np.int64], " n"]:
        return self._places(self._particles.names)

    def _places(self, there: tuple[str, ...]) -> Int[NDArray[np.int64], " n"]:
        place = {name: i for i, name in enumerate(there)}
        unknown = [name for name in self.names if name not in place]
        if unknown:
            raise InputError(
                "files of this run do not name the same particles",
                file=self.run.path,
                expected=f"the {len(self.names)} particles of codes.npz in every file",
                found=f"{len(unknown)} missing, for example {unknown[0]}",
                remedy="run `cryodc cluster` and `cryodc average` again",
            )
        return np.array([place[name] for name in self.names], dtype=np.int64)
