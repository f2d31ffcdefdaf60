"""ParticleSet: a frozen table of particles, their images, weights and poses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cryodc.io import ImageReference


@dataclass(frozen=True)
class Poses:
    """Where each particle's reference lies in its box.

    ``particle(x) = reference(Aᵀ (x + o))``: to align a particle, shift it by ``+o``, then rotate:
    ``aligned(x) = particle(A x − o)``. Vectors are zyx. RELION's rlnAngle* and rlnOrigin*Angst say the same.

    Parameters
    ----------
    rotations
        ``(n, 3, 3)`` matrices ``A``, reference → particle.
    origins_angstrom
        ``(n, 3)`` zyx, ``o``.
    """

    rotations: Float[NDArray[np.float64], "n 3 3"]
    origins_angstrom: Float[NDArray[np.float64], "n 3"]

    def __post_init__(self) -> None:
        if len(self.rotations) != len(self.origins_angstrom):
            raise ValueError(f"{len(self.rotations)} rotations but {len(self.origins_angstrom)} origins")

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Poses":
        return Poses(self.rotations[rows], self.origins_angstrom[rows])


@dataclass(frozen=True)
class Grid:
    """Box size and voxel spacing of some files."""

    box_size: int
    spacing_angstrom: float

    @property
    def extent_angstrom(self) -> float:
        """Edge of the box."""
        return self.box_size * self.spacing_angstrom


@dataclass(frozen=True)
class ParticleSet:
    """Particles of one box size and voxel spacing, in the order of their STAR file.

    Parameters
    ----------
    source
        The STAR file.
    names
        Unique particle names (rlnTomoParticleName, else rlnImageName).
    rows
        ``(n,)`` line of each particle in ``source``, 1-based.
    images
        One per particle.
    weight_images
        CTF or weight volumes, one per particle, or None where the STAR has none.
    tomograms
        Tomogram of each particle ("" where the STAR does not say).
    box_size, spacing_angstrom
        Of every particle as it is read.
    poses
        None where the STAR has no angles.
    half_sets
        ``(n,)`` rlnRandomSubset, 1 or 2, or None.
    grids
        Of the files of each particle, where optics groups differ; None where all files have box and spacing above.

    Raises
    ------
    ValueError
        If lengths differ, a name comes twice, or the box is odd.
    """

    source: Path
    names: tuple[str, ...]
    rows: Int[NDArray[np.int64], " n"]
    images: tuple[ImageReference, ...]
    weight_images: tuple[ImageReference, ...] | None
    tomograms: tuple[str, ...]
    box_size: int
    spacing_angstrom: float
    poses: Poses | None = None
    half_sets: Int[NDArray[np.int64], " n"] | None = None
    grids: tuple[Grid, ...] | None = None

    def __post_init__(self) -> None:
        for field in ("rows", "images", "weight_images", "tomograms", "poses", "half_sets", "grids"):
            value = getattr(self, field)
            if value is not None and len(value) != len(self.names):
                raise ValueError(f"{len(self.names)} names but {len(value)} {field}")
        if len(set(self.names)) != len(self.names):
            raise ValueError("two particles have the same name")
        if self.box_size % 2:
            raise ValueError(f"expected an even box size, found {self.box_size}")

    def __len__(self) -> int:
        return len(self.names)

    def grid(self, i: int) -> Grid:
        """Box and spacing of the files of one particle."""
        return Grid(self.box_size, self.spacing_angstrom) if self.grids is None else self.grids[i]

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "ParticleSet":
        """The particles at these positions, in this order."""
        keep = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            names=tuple(self.names[i] for i in keep),
            rows=self.rows[keep],
            images=tuple(self.images[i] for i in keep),
            weight_images=None if self.weight_images is None else tuple(self.weight_images[i] for i in keep),
            tomograms=tuple(self.tomograms[i] for i in keep),
            poses=None if self.poses is None else self.poses[keep],
            half_sets=None if self.half_sets is None else self.half_sets[keep],
            grids=None if self.grids is None else tuple(self.grids[i] for i in keep),
        )
