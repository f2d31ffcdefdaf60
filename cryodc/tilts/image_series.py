"""Image series of Warp and M: a row of the STAR is one tilt image, and a particle is an rlnGroupName.

A row states how the particle lies in its image, ``A`` of RELION's convention with the tilt in it, and the defocus of
the particle there. So neither a tomograms.star nor positions are needed. Of a particle's images the least tilted one
(largest rlnCtfScalefactor, which is the cosine of the tilt; else least dose) is its *upright* one: with its ``A₀``,
``P = A A₀⁻¹`` projects a subtomogram that lies as the particle does in that image, and ``A₀`` is its pose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.ndimage import fourier_shift
from torch import Tensor

from cryodc.errors import InputError
from cryodc.fourier import TiltOptics
from cryodc.geometry import matrices_from_euler
from cryodc.io import ImageFinder, ImageReference, resolve_images
from cryodc.particles import check_sections, optics_rows, read_sections
from cryodc.star import (
    StarBlock,
    StarDocument,
    common_value,
    image_block,
    read_numbers,
    read_optics,
    spacing_of_old_layout,
)
from cryodc.tilts.series import require_columns

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_OPTIONAL = {"rlnPhaseShift": 0.0, "rlnCtfBfactor": 0.0, "rlnCtfScalefactor": 1.0}
_PREMULTIPLIED = "rlnCtfDataAreCtfPremultiplied"
# Entries of two rotations that differ by less are those of one orientation: 0.06 degrees.
_SAME = 1e-3


@dataclass(frozen=True)
class ImageSeries:
    """Particles of one image size and pixel, each with the rows of its tilt images. Vectors are zyx.

    Parameters
    ----------
    document, block
        The STAR they come from, and its block of tilt images.
    names, tomograms
        rlnGroupName of each particle, and its rlnMicrographName.
    members
        For each particle ``(t,)``, the rows of its images.
    upright
        ``(n,)`` the row of the least tilted image of each.
    images
        Of every row.
    rotations
        ``(r, 3, 3)``: reference → image, of every row.
    origins_pixels
        ``(r, 2)`` how far each image is to be moved for the particle to lie in its centre.
    values
        Defocus, microscope, phase shift, B factor and scale of every row, by label.
    premultiplied
        ``(r,)`` whether images were multiplied by their CTF.
    image_size, spacing_angstrom
        Of every image.
    """

    document: StarDocument
    block: StarBlock
    names: tuple[str, ...]
    tomograms: tuple[str, ...]
    members: tuple[Int[NDArray[np.int64], " t"], ...]
    upright: Int[NDArray[np.int64], " n"]
    images: tuple[ImageReference, ...]
    rotations: Float[NDArray[np.float64], "r 3 3"]
    origins_pixels: Float[NDArray[np.float64], "r 2"]
    values: Mapping[str, Float[NDArray[np.float64], " r"]]
    premultiplied: Bool[NDArray[np.bool_], " r"]
    image_size: int
    spacing_angstrom: float

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_poses(self) -> bool:
        """Whether rows say how particles lie, beyond the tilt: in some tomogram two lie differently."""
        by_tomogram: dict[str, list[int]] = {}
        for tomogram, row in zip(self.tomograms, self.upright.tolist(), strict=True):
            by_tomogram.setdefault(tomogram, []).append(row)
        several = [rows for rows in by_tomogram.values() if len(rows) > 1]
        return not several or any(_differ(self.rotations[rows]) for rows in several)

    def read_images(self, i: int) -> Float[Tensor, "t m m"]:
        """Read the images of one particle, moved so that the particle lies in their centres.

        Raises
        ------
        InputError
            If a stack cannot be read, or a pixel is NaN or infinite.
        """
        rows = self.members[i]
        images = read_sections([self.images[row] for row in rows], self.image_size).astype(np.float64)
        for image, row in zip(images, rows.tolist(), strict=True):
            if not np.isfinite(image).all():
                raise InputError(
                    "an image has pixels that are NaN or infinite",
                    file=self.images[row].path,
                    expected="finite values",
                    remedy="leave this particle out of the STAR, or extract it again",
                )
            if self.origins_pixels[row].any():
                image[:] = np.fft.ifft2(fourier_shift(np.fft.fft2(image), self.origins_pixels[row])).real
        return torch.from_numpy(images).float()

    def projections(self, i: int) -> Float[Tensor, "t 3 3"]:
        """Subtomogram → image, of each image of one particle."""
        return torch.from_numpy(self.rotations[self.members[i]] @ self.rotations[self.upright[i]].T).float()

    def optics(self, i: int) -> TiltOptics:
        """What each image of one particle was seen through."""
        rows = self.members[i]
        voltage, aberration, contrast = (float(self.values[label][rows[0]]) for label in MICROSCOPE)

        def column(label: str) -> Float[Tensor, " t"]:
            return torch.from_numpy(self.values[label][rows]).float()

        u, v, angle = (column(label) for label in _DEFOCUS)
        phase, bfactor, scale = (column(label) for label in _OPTIONAL)
        no_dose = torch.zeros(len(rows))
        return TiltOptics(voltage, aberration, contrast, u, v, angle, phase, bfactor.abs(), scale, no_dose)


def read_image_series(document: StarDocument, finder: ImageFinder) -> ImageSeries:
    """Read the rows of image series, and the header of every stack.

    Raises
    ------
    InputError
        If a column or a file is missing, an image is not in its stack, or values contradict.
    """
    block = image_block(document)
    remedy = "give the STAR as Warp or M wrote it, or export the particles as volumes"
    require_columns(document, block, ["rlnGroupName", *_DEFOCUS, *ANGLES], remedy)
    cells = block.columns(list(block.labels))
    rows: list[int] = block.line_numbers.tolist()
    groups = read_optics(document, block, cells, dimensionality="2")
    spacing = common_value(document, groups, "spacing_angstrom", "pixel size")
    spacing = spacing_of_old_layout(document, block, cells) if spacing is None else spacing
    if spacing is None:
        raise InputError(
            "the pixel size of the images is not known",
            file=document.source,
            row=block.header_line + 1,
            expected="rlnImagePixelSize in data_optics, or rlnDetectorPixelSize and rlnMagnification",
            found="neither",
            remedy="add rlnDetectorPixelSize (Å) with rlnMagnification 10000, as Warp writes them",
        )
    images, missing = resolve_images(finder, cells["rlnImageName"], rows, document.source, True, "stack")
    if missing:
        raise missing[0].error
    stated = common_value(document, groups, "box_size", "image size")
    size = check_sections(document, images, rows, stated, spacing)
    values = {label: _per_row(document, block, label) for label in (*MICROSCOPE, *_DEFOCUS)}
    for label, default in _OPTIONAL.items():
        there = label in block or label in _optics_labels(document)
        values[label] = _per_row(document, block, label) if there else np.full(block.n_rows, default)
    _check_bfactors(document, block, values["rlnCtfBfactor"])
    angles = [read_numbers(document, block, label, cells[label]) for label in ANGLES]
    rotations = matrices_from_euler(np.stack(angles, axis=1))
    members: dict[str, list[int]] = {}
    for i, name in enumerate(cells["rlnGroupName"]):
        members.setdefault(name, []).append(i)
    _check_tilts(document, block, members, rotations)
    # The least tilted image; of equal ones the first that was taken, which has the least B factor.
    order = np.lexsort((np.abs(values["rlnCtfBfactor"]), -values["rlnCtfScalefactor"]))
    rank = np.argsort(order)
    upright = [min(group, key=lambda row: int(rank[row])) for group in members.values()]
    micrographs = cells.get("rlnMicrographName", [name.rpartition("_")[0] for name in cells["rlnGroupName"]])
    return ImageSeries(
        document,
        block,
        tuple(members),
        tuple(micrographs[row] for row in upright),
        tuple(np.array(group, dtype=np.int64) for group in members.values()),
        np.array(upright, dtype=np.int64),
        tuple(images),
        rotations,
        _read_origins(document, block, cells, spacing),
        values,
        _read_premultiplied(document, block),
        size,
        spacing,
    )


def _optics_labels(document: StarDocument) -> tuple[str, ...]:
    optics = document.find("optics")
    return () if optics is None else optics.labels


def _per_row(document: StarDocument, block: StarBlock, label: str) -> Float[NDArray[np.float64], " r"]:
    """A number of every row: its own, or that of its optics group."""
    if label in block:
        return read_numbers(document, block, label, block.column(label))
    if label not in _optics_labels(document):
        require_columns(document, block, [label], "give the STAR as Warp or M wrote it")
    optics = document.block("optics")
    return read_numbers(document, optics, label, optics.column(label))[optics_rows(document, block, optics)]


def _read_premultiplied(document: StarDocument, block: StarBlock) -> Bool[NDArray[np.bool_], " r"]:
    """Whether images were multiplied by their CTF; where nothing says so they were not, as Warp 1 leaves them."""
    if _PREMULTIPLIED in block or _PREMULTIPLIED in _optics_labels(document):
        return _per_row(document, block, _PREMULTIPLIED) == 1
    return np.zeros(block.n_rows, dtype=bool)


def _read_origins(
    document: StarDocument, block: StarBlock, cells: Mapping[str, Sequence[str]], spacing_angstrom: float
) -> Float[NDArray[np.float64], "r 2"]:
    for unit, scale in (("Angst", 1 / spacing_angstrom), ("", 1.0)):
        labels = [f"rlnOrigin{axis}{unit}" for axis in "YX"]
        if all(label in cells for label in labels):
            return np.stack([read_numbers(document, block, label, cells[label]) for label in labels], axis=1) * scale
    return np.zeros((block.n_rows, 2))


def _check_bfactors(document: StarDocument, block: StarBlock, values: Float[NDArray[np.float64], " r"]) -> None:
    """Warp writes −4 Å² per e/Å² of dose, where RELION would write 4: signal falls with dose in both."""
    if (values < 0).any() and (values > 0).any():
        at = int(np.flatnonzero(values * values[np.flatnonzero(values)[0]] < 0)[0])
        raise InputError(
            "B factors of tilt images have both signs",
            file=document.source,
            row=int(block.line_numbers[at]),
            expected="all negative, as Warp writes dose, or none",
            found=f"rlnCtfBfactor {values[at]:g}",
            remedy="give the STAR as Warp or M wrote it",
        )


def _check_tilts(
    document: StarDocument,
    block: StarBlock,
    members: Mapping[str, Sequence[int]],
    rotations: Float[NDArray[np.float64], "r 3 3"],
) -> None:
    """Orientations of images must differ within a particle: that is all that says how it was tilted."""
    for name, rows in members.items():
        if len(rows) > 1 and not _differ(rotations[list(rows)]):
            raise InputError(
                "all tilt images of a particle have one orientation: the tilt is not in rlnAngleRot, Tilt and Psi",
                file=document.source,
                row=int(block.line_numbers[rows[0]]),
                expected="the orientation of the particle in each image, as Warp and M write it",
                found=f"the same angles in all {len(rows)} rows of {name}",
                remedy="export the particles as volumes, in Warp or M, or with `WarpTools ts_export_particles --3d`",
            )


def _differ(rotations: Float[NDArray[np.float64], "k 3 3"]) -> bool:
    return any(np.abs(a - b).max() > _SAME for a, b in pairwise(rotations))
