"""The volumes that mapping back will write; their sizes are reported and checked before anything is written."""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.export.placements import Placements
from cryodc.runs import RunFolder

# Of one volume: the map and the labels as they are made, and the labels again as they are written.
_BYTES_IN_MEMORY = 4 + 2 + 4
_BYTES_ON_DISK = 4 + 4
_MOST_VOXELS_PER_EDGE = 2**31 - 1


@dataclass(frozen=True)
class PlannedTomogram:
    """What will be written of one tomogram: its name, particles, their positions (zyx, voxels), and the volume."""

    name: str
    file_name: str
    rows: NDArray[np.int64]
    positions: Float[NDArray[np.float64], "n 3"]
    shape: tuple[int, int, int]

    @property
    def n_bytes(self) -> int:
        """Bytes of its two volumes on disk."""
        return _BYTES_ON_DISK * math.prod(self.shape)


def plan_volume(
    placements: Placements,
    name: str,
    file_name: str,
    rows: NDArray[np.int64],
    spacing: float,
    size_xyz: tuple[int, int, int] | None,
) -> PlannedTomogram:
    """Say how large a volume is needed, from the positions alone, or what size was given.

    Parameters
    ----------
    placements
        Of all particles.
    name
        Of the tomogram.
    file_name
        Of its files.
    rows
        Particles that lie in it.
    spacing
        Å per voxel.
    size_xyz
        Voxels, if the size is known.

    Raises
    ------
    InputError
        If a position lies farther off than any volume can reach, or cannot be converted.
    """
    positions = placements.picks.in_voxels(spacing, None if size_xyz is None else size_xyz[::-1], rows)
    if size_xyz is not None:
        return PlannedTomogram(name, file_name, rows, positions, (size_xyz[2], size_xyz[1], size_xyz[0]))
    reach = placements.box_size * placements.spacing_angstrom / spacing / 2
    edges = np.ceil(positions.max(axis=0) + reach).clip(1)
    if not (edges <= _MOST_VOXELS_PER_EDGE).all():
        worst = int(positions.max(axis=1).argmax())
        raise InputError(
            "a particle lies farther off than a volume can reach",
            file=placements.picks.source,
            row=int(placements.picks.rows[rows[worst]]),
            expected=f"coordinates in {placements.coordinates}",
            found=", ".join(f"{at:g}" for at in positions[worst, ::-1]) + f" voxels of {spacing:g} Å (x, y, z)",
            remedy="correct its coordinates, or give the volume's size: --size X Y Z",
        )
    z, y, x = edges.astype(int).tolist()
    return PlannedTomogram(name, file_name, rows, positions, (z, y, x))


def require_room(planned: Sequence[PlannedTomogram], out: Path, run: RunFolder) -> None:
    """Refuse before anything is written what cannot be held in memory or written to the disk.

    Raises
    ------
    InputError
        With what is needed, what is there, and what to change.
    """
    largest = max(planned, key=lambda plan: plan.n_bytes, default=None)
    if largest is None:
        return
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for needed, there, where in (
        (_BYTES_IN_MEMORY * math.prod(largest.shape), memory, "of memory"),
        (sum(plan.n_bytes for plan in planned), shutil.disk_usage(existing).free, f"free in {existing}"),
    ):
        if needed > there:
            z, y, x = largest.shape
            raise InputError(
                "the volumes are too large",
                file=run.averages / "particles.star",
                expected=f"at most {describe_bytes(there)} {where}",
                found=f"{describe_bytes(needed)}: {len(planned)} tomograms of up to {x} × {y} × {z} voxels (x, y, z)",
                remedy="give a coarser --bin, a --size, or one --tomogram; if coordinates are in another unit, "
                "--coordinate-spacing",
            )


def describe_bytes(n_bytes: float) -> str:
    """Bytes as people say them.

    Examples
    --------
    >>> describe_bytes(2_231_000_000), describe_bytes(512)
    ('2.2 GB', '512 bytes')
    """
    for size, name in ((1e18, "EB"), (1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {name}"
    return f"{n_bytes:.0f} bytes"
