"""Where the particles of an averaged run lie in their tomograms, by class: for export, mapping back and the viewer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io import find_name, read_header
from cryodc.particles import read_particles
from cryodc.picks import Picks, read_picks
from cryodc.runs import RunFolder, require, require_averages


@dataclass(frozen=True)
class Placements:
    """The particles of averages/particles.star, and the voxel spacing of the averages.

    Parameters
    ----------
    picks
        Of every particle.
    rotations
        ``(n, 3, 3)`` zyx, reference → tomogram.
    classes
        ``(n,)`` rlnClassNumber.
    spacing_angstrom, box_size
        Of the averages.
    image_spacing_angstrom
        Of the subtomograms, which a pack may have made coarser.
    coordinates
        Unit and origin that were taken, in words.
    """

    picks: Picks
    rotations: Float[NDArray[np.float64], "n 3 3"]
    classes: Int[NDArray[np.int64], " n"]
    spacing_angstrom: float
    box_size: int
    image_spacing_angstrom: float
    coordinates: str

    def of_classes(self, wanted: Collection[int]) -> Bool[NDArray[np.bool_], " n"]:
        """Which particles are in these classes. Without classes, all but the unassigned (class 0).

        Raises
        ------
        InputError
            If a class has no particle.
        """
        present = set(self.classes.tolist())
        unknown = sorted(set(wanted) - present)
        if unknown:
            raise InputError(
                "there is no such class",
                file=self.picks.source,
                expected=f"--class {', '.join(str(number) for number in sorted(present))}",
                found=", ".join(map(str, unknown)),
            )
        return np.isin(self.classes, list(wanted)) if wanted else self.classes > 0

    def positions_angstrom(self) -> Float[NDArray[np.float64], "n 3"]:
        """Positions in Å from where the STAR counts: the corner of the tomogram, or its centre."""
        positions = self.picks.positions * self.picks.frame.units(len(self.picks), self.image_spacing_angstrom)
        return positions if self.picks.shifts_angstrom is None else positions + self.picks.shifts_angstrom

    @property
    def n_unassigned(self) -> int:
        """Particles of no class."""
        return int((self.classes == 0).sum())

    def tomograms(self, wanted: Sequence[str] = ()) -> list[str]:
        """Names of the tomograms, in the order of the STAR; only these, if any are named.

        Raises
        ------
        InputError
            If a name is not there, or could be several.
        """
        names = list(dict.fromkeys(self.picks.tomograms))
        found = {name: find_name(name, names, file=self.picks.source) for name in wanted}
        unknown = [name for name, at in found.items() if at is None]
        if unknown:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise InputError(
                "there is no such tomogram",
                file=self.picks.source,
                expected=", ".join(names[:10]) + more,
                found=", ".join(unknown),
            )
        return [name for at, name in enumerate(names) if at in found.values()] if wanted else names


def load_placements(run: RunFolder, coordinate_spacing_angstrom: float | None = None) -> Placements:
    """Read averages/particles.star as positions, rotations and classes.

    Parameters
    ----------
    run
        An averaged run.
    coordinate_spacing_angstrom
        Å per unit of the coordinates, over what the STAR says.

    Raises
    ------
    InputError
        If the run has no averages of the classes it has now, or its STAR no coordinates or no poses.
    """
    require_averages(run)
    star = require(run.averages / "particles.star", "cryodc average")
    picks = read_picks(star, coordinate_spacing_angstrom)
    rotations, classes = picks.rotations, picks.classes
    if rotations is None or classes is None:
        raise InputError(
            "these particles have no poses or no classes",
            file=star,
            expected="rlnAngleRot, rlnAngleTilt, rlnAnglePsi and rlnClassNumber",
            remedy="run `cryodc average` again",
        )
    first = require(run.averages / f"class{int(classes[classes > 0].min(initial=1)):03d}.mrc", "cryodc average")
    header = read_header(first)
    spacing = header.spacing_angstrom or 1.0
    image_spacing = read_particles(star, check_images=False).spacing_angstrom or spacing
    told = picks.frame.describe(image_spacing)
    if picks.frame.unit_angstrom is None:
        # RELION 3.1 may not state the voxels of the tomogram that the subtomograms were cut from.
        picks = replace(picks, frame=picks.frame.given(image_spacing))
    return Placements(picks, rotations, classes, spacing, header.shape_zyx[0], image_spacing, told)
