"""Particles as stacks of 2D tilt images: RELION 5's default output and WarpTools ``--2d``.

A stack holds an image for every tilt (WarpTools) or for the visible ones only (RELION 5); its number of images tells.
Positions are read as :func:`cryodc.particles.coordinate_frame` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cryodc.errors import InputError
from cryodc.geometry import matrices_from_euler
from cryodc.io import ImageFinder, number_of, read_array, resolve_images
from cryodc.particles import (
    BOX_ANGLES,
    CENTRED,
    COORDINATE_PIXEL,
    CORNER,
    CoordinateFrame,
    check_stacks,
    name_label,
    read_positions,
    repeated_names,
    unwritable_names,
)
from cryodc.star import (
    StarBlock,
    StarDocument,
    common_pixel_size,
    common_value,
    describe_layout,
    find_particle_block,
    group_number,
    holds_tilt_stacks,
    read_numbers,
    read_optics,
)
from cryodc.tilts.series import TiltSeries, require_columns
from cryodc.tilts.visible import read_visible

_PREMULTIPLIED = "rlnCtfDataAreCtfPremultiplied"


_OUTSIDE_TOLERATED = 0.1


@dataclass(frozen=True)
class TiltStacks:
    """Particles of one image size and pixel, each a stack of tilt images. Vectors are zyx.

    Parameters
    ----------
    document, block_name
        The STAR they come from, and its block of particles.
    rows
        ``(n,)`` line of each particle, 1-based.
    files
        The stack of each.
    tomograms
        rlnTomoName of each.
    series
        The tilt series of every tomogram.
    visible
        For each particle ``(t,)``, which tilts show it.
    has_every_tilt
        ``(n,)`` whether a stack holds an image of every tilt, or of the visible ones only.
    positions_angstrom
        ``(n, 3)`` from the centre of the tomogram.
    frame
        Unit and origin that the STAR's coordinates have.
    rotations
        ``(n, 3, 3)``: subtomogram → tomogram (rlnTomoSubtomogramRot, Tilt, Psi; else the identity).
    premultiplied
        ``(n,)`` whether images were multiplied by their CTF.
    image_size, spacing_angstrom
        Of every image.
    """

    document: StarDocument
    block_name: str
    rows: Int[NDArray[np.int64], " n"]
    files: tuple[Path, ...]
    tomograms: tuple[str, ...]
    series: Mapping[str, TiltSeries]
    visible: tuple[Bool[NDArray[np.bool_], " t"], ...]
    has_every_tilt: Bool[NDArray[np.bool_], " n"]
    positions_angstrom: Float[NDArray[np.float64], "n 3"]
    frame: CoordinateFrame
    rotations: Float[NDArray[np.float64], "n 3 3"]
    premultiplied: Bool[NDArray[np.bool_], " n"]
    image_size: int
    spacing_angstrom: float

    def __len__(self) -> int:
        return len(self.files)

    def read_images(self, i: int) -> Float[Tensor, "t m m"]:
        """Read the images of one particle, one per tilt; those that are not visible are 0.

        Raises
        ------
        InputError
            If the file cannot be read, or a pixel is NaN or infinite.
        """
        stack = torch.from_numpy(read_array(self.files[i]))
        shown = torch.from_numpy(self.visible[i])
        images = torch.zeros(len(shown), *stack.shape[1:])
        images[shown] = stack[shown] if self.has_every_tilt[i] else stack
        return images

    def depths_angstrom(self, i: int) -> Float[NDArray[np.float64], " t"]:
        """How far a particle lies from the centre of its tomogram along the beam, in each tilt."""
        return self.series[self.tomograms[i]].projections[:, 0] @ self.positions_angstrom[i]


def tomogram_names(document: StarDocument) -> list[str]:
    """Names of the tomograms that 2D stacks come from, one per particle.

    Raises
    ------
    InputError
        If the STAR does not hold 2D stacks, or rlnTomoName is missing.
    """
    block = find_particle_block(document)
    if not holds_tilt_stacks(document):
        raise InputError(
            "these particles are not stacks of 2D tilt images: there is nothing to import",
            file=document.source,
            expected="_rlnTomoSubTomosAre2DStacks 1 in data_general",
            found=describe_layout(document),
            remedy="3D subtomograms are read as they are: cryodc train",
        )
    require_columns(document, block, ["rlnTomoName"], "give the particles.star as RELION or WarpTools wrote it")
    return block.column("rlnTomoName")


def read_tilt_stacks(document: StarDocument, series: Mapping[str, TiltSeries], finder: ImageFinder) -> TiltStacks:
    """Read particles that are 2D stacks, and the header of every stack.

    Raises
    ------
    InputError
        If a column or a file is missing, a stack does not fit its tilt series or the others, or values contradict.
    """
    block = find_particle_block(document)
    cells = block.columns(list(block.labels))
    groups = read_optics(document, block, cells, dimensionality="2")
    rows = block.line_numbers.astype(np.int64)
    row_list: list[int] = rows.tolist()
    names = cells[name_label(cells)]
    images, missing = resolve_images(finder, cells["rlnImageName"], row_list, document.source, True, "stack")
    named: dict[str, Sequence[str]] = {
        label: cells[label] for label in ("rlnImageName", "rlnTomoName") if label in cells
    }
    problems = repeated_names(document.source, names, row_list) + missing
    problems += unwritable_names(document.source, named, row_list)
    if problems:
        raise problems[0].error
    spacing = common_pixel_size(document, groups)
    stated = common_value(document, groups, "box_size", "box size")
    tomograms = cells["rlnTomoName"]
    n_tilts = [len(series[name]) for name in tomograms]
    size, n_images = check_stacks(images, row_list, document.source, stated, spacing)
    visible = read_visible(document, block, n_tilts, n_images)
    return TiltStacks(
        document,
        block.name,
        rows,
        tuple(image.path for image in images),
        tuple(tomograms),
        series,
        visible,
        np.array(n_images) == np.array(n_tilts),
        *_read_positions(document, block, cells, series, spacing),
        _read_rotations(document, block, cells),
        _read_premultiplied(document, block, cells),
        size,
        spacing,
    )


def _read_positions(
    document: StarDocument,
    block: StarBlock,
    cells: Mapping[str, Sequence[str]],
    series: Mapping[str, TiltSeries],
    spacing_angstrom: float,
) -> tuple[Float[NDArray[np.float64], "n 3"], CoordinateFrame]:
    """Where images were cut, from the centre of the tomogram: origins say where the particle lies in them."""
    centred = any(label in block for label in CENTRED) or not any(label in block for label in CORNER)
    labels = CENTRED if centred else CORNER
    require_columns(document, block, labels, "positions give each particle its defocus: keep them in the STAR")
    found = read_positions(document, block)
    cut = found.coordinates * found.frame.units(block.n_rows, spacing_angstrom)
    if found.frame.from_centre:
        return cut, found.frame
    sizes = np.stack([_size_angstrom(series[name]) for name in cells["rlnTomoName"]])
    outside = np.abs(cut / sizes - 0.5).max(axis=1)
    if outside.max() <= 0.5 + _OUTSIDE_TOLERATED:
        return cut - sizes / 2, found.frame
    at = int(outside.argmax())
    raise InputError(
        "a particle lies outside its tomogram",
        file=document.source,
        row=int(block.line_numbers[at]),
        expected="within {:.0f} × {:.0f} × {:.0f} Å (x, y, z)".format(*sizes[at, ::-1]),
        found="{:.0f}, {:.0f}, {:.0f} Å".format(*cut[at, ::-1]) + f": coordinates in {found.frame.describe()}",
        remedy="give the tomograms.star that belongs to these particles; if the pixel is another, state it in "
        f"data_optics: {COORDINATE_PIXEL}",
    )


def _size_angstrom(tomogram: TiltSeries) -> Float[NDArray[np.float64], " 3"]:
    size, pixel = tomogram.size_pixels, tomogram.pixel_angstrom
    if size is None or pixel is None or pixel <= 0 or (size <= 0).any():
        raise InputError(
            f"the size of tomogram {tomogram.name} is not known",
            file=tomogram.source,
            expected="positive rlnTomoSizeX, Y, Z and rlnTomoTiltSeriesPixelSize in data_global",
            found="not all of them",
            remedy="rlnCoordinateX/Y/Z count from the corner of the tomogram: add its size",
        )
    return size * pixel


def _read_rotations(
    document: StarDocument, block: StarBlock, cells: Mapping[str, Sequence[str]]
) -> Float[NDArray[np.float64], "n 3 3"]:
    if not any(label in block for label in BOX_ANGLES):
        return np.tile(np.eye(3), (block.n_rows, 1, 1))
    require_columns(document, block, BOX_ANGLES, "restore the angle that is missing, or remove all three")
    angles = [read_numbers(document, block, label, cells[label]) for label in BOX_ANGLES]
    return matrices_from_euler(np.stack(angles, axis=1))


def _read_premultiplied(
    document: StarDocument, block: StarBlock, cells: Mapping[str, Sequence[str]]
) -> Bool[NDArray[np.bool_], " n"]:
    optics = document.block("optics")
    remedy = "add it: 1 if images were multiplied by their CTF, as RELION and WarpTools do by default, else 0"
    require_columns(document, optics, ["rlnOpticsGroup", _PREMULTIPLIED], remedy)
    flags = {}
    for row, group, text in zip(
        optics.line_numbers, optics.column("rlnOpticsGroup"), optics.column(_PREMULTIPLIED), strict=True
    ):
        if number_of(text) not in (0, 1):
            raise InputError(
                f"{_PREMULTIPLIED} is neither 0 nor 1",
                file=document.source,
                row=int(row),
                expected="1 if images were multiplied by their CTF, else 0",
                found=text,
                remedy="write 1, as RELION and WarpTools do by default, or 0",
            )
        flags[group_number(group)] = number_of(text) == 1
    used = cells.get("rlnOpticsGroup", [next(iter(flags))] * block.n_rows)
    return np.array([flags[group_number(group)] for group in used])
