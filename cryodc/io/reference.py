"""Where the voxels of one particle lie: a file, or a section of a stack; and whether it holds such a volume."""

from dataclasses import dataclass
from pathlib import Path

from cryodc.errors import InputError
from cryodc.io.mrc_header import MrcHeader


@dataclass(frozen=True, slots=True, init=False)
class ImageReference:
    """A subtomogram's place on disk: an MRC file, or one section (0-based) of a stack of volumes.

    The file is kept as text: a Path takes ten times the time and memory, and a STAR may name a million.
    """

    file: str
    section: int | None

    def __init__(self, path: Path | str, section: int | None = None) -> None:
        object.__setattr__(self, "file", str(path))
        object.__setattr__(self, "section", section)

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.file)

    def __str__(self) -> str:
        return self.file if self.section is None else f"{self.section + 1:06d}@{self.file}"


def check_section(header: MrcHeader, section: int | None) -> None:
    """Check that a stack holds this volume (0-based).

    Raises
    ------
    InputError
        If it does not.
    """
    if section is None:
        return
    depth, rows, columns = header.section_depth, *header.file_shape[1:]
    if header.file_shape[0] % depth or depth != rows or header.axes != (0, 1, 2):
        raise InputError(
            "this is not a stack of 3D volumes",
            file=header.path,
            expected=f"volumes of {columns} × {rows} × {columns} voxels, one behind the other",
            found=f"{header.file_shape[0]} planes of {rows} × {columns}: 2D images?",
            remedy="give 3D subtomograms; `cryodc import` makes them of 2D tilt stacks",
        )
    if not 0 <= section < header.n_sections:
        raise InputError(
            "the stack has no such section",
            file=header.path,
            expected=f"a section from 1 to {header.n_sections}",
            found=f"{section + 1}",
        )


def check_cube(header: MrcHeader, section: int | None = None) -> None:
    """Check that a volume is a cube with an even box and one spacing.

    Raises
    ------
    InputError
        If it is not.
    """
    shape = header.section_shape(section)
    described = " × ".join(str(edge) for edge in shape)
    if len(set(shape)) > 1:
        raise InputError(
            "the volume is not a cube",
            file=header.path,
            expected="a cubic box",
            found=f"{described} (z × y × x)",
            remedy="give 3D subtomograms in a cubic box; `cryodc import` makes them of 2D tilt stacks",
        )
    if shape[0] % 2:
        raise InputError(
            "the box size is odd",
            file=header.path,
            expected="an even number of voxels",
            found=described,
            remedy="extract it again, or crop it, to an even box",
        )
    if not header.is_isotropic:
        z, y, x = header.spacing_zyx_angstrom
        raise InputError(
            "the voxel spacing differs between axes",
            file=header.path,
            expected="one spacing",
            found=f"{z:.4g}, {y:.4g}, {x:.4g} Å (z, y, x)",
            remedy="correct the header, for example with `alterheader` or RELION's `--angpix`",
        )
