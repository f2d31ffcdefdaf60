"""A trained run as pictures need it: its codes, classes and particles in one order; no image needs to exist."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.figures import ParticlePreviews, load_previews
from cryodc.runs import RunFolder, classes_if_any, load_codes, load_config, require


@dataclass(frozen=True)
class EncodedRun:
    """A trained run's codes, in the order of its STAR, its classes and its particles.

    Parameters
    ----------
    labels
        ``(n,)`` 0-based classes, −1 for none; None before clustering.
    """

    run: RunFolder
    codes: Codes
    labels: Int[NDArray[np.int64], " n"] | None
    previews: ParticlePreviews

    @property
    def spacing_angstrom(self) -> float:
        """Of decoded volumes: that of the pack where training saw particles cropped."""
        config = load_config(self.run)
        return float((config.get("pack") or config["dataset"])["spacing_angstrom"])

    @property
    def box_angstrom(self) -> float:
        """Width of the box, of particles and decoded volumes alike."""
        return self.previews.particles.box_size * self.previews.particles.spacing_angstrom

    @property
    def n_classes(self) -> int:
        """How many classes there are; 0 before clustering."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def class_number(self, row: int) -> int:
        """Class of a particle, from 1; 0 for none."""
        return 0 if self.labels is None else int(self.labels[row]) + 1

    def members(self, class_number: int) -> Codes:
        """Codes of a class.

        Raises
        ------
        InputError
            If there are no classes, or not this one.
        """
        if self.labels is None:
            require(self.run.clusters / "summary.json", "cryodc cluster")
        if self.labels is None or not 1 <= class_number <= self.n_classes:
            raise InputError(
                "there is no such class",
                file=self.run.clusters / "summary.json",
                expected=f"--class 1 to {self.n_classes}",
                found=str(class_number),
            )
        return self.codes.select([self.codes.names[row] for row in np.flatnonzero(self.labels == class_number - 1)])


def load_encoded(run: RunFolder) -> EncodedRun:
    """Codes, classes and particles of a trained run.

    Raises
    ------
    InputError
        If it has no codes yet, or its files do not name the same particles.
    """
    codes, previews = load_codes(run), load_previews(run)
    try:
        codes = codes.select(previews.particles.names)
        labels = None
        clusters = classes_if_any(run)
        if clusters is not None:
            place = {name: i for i, name in enumerate(clusters.names)}
            labels = clusters.labels[[place[name] for name in codes.names]]
    except KeyError as error:
        raise InputError(
            "files of this run do not name the same particles",
            file=run.path,
            expected="the particles of particles.star in codes.npz and clusters/",
            found=f"{error.args[0]} is missing",
            remedy="run `cryodc cluster` again; if that does not help, train again",
        ) from error
    return EncodedRun(run, codes, labels, previews)
