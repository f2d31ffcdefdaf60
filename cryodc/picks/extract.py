"""Extract subtomograms from tomograms at picks: sub-voxel crops, weights, and a STAR that training reads.

A box is read around the voxel nearest to the pick and moved by the rest in Fourier space, so that the pick is
exactly at index ``N // 2``. Binning crops the box's spectrum. Poses are kept: a crop is not turned.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.dry_run import declare
from cryodc.errors import InputError
from cryodc.fourier import TiltAxis, fourier_crop, fourier_shift, standardise
from cryodc.io import (
    Tomogram,
    file_names,
    find_by_name,
    new_folder,
    require_empty,
    tomogram_stem,
    write_volume,
)
from cryodc.picks.extracted_files import (
    Dropped,
    Extracted,
    plan_of_boxes,
    write_dropped,
    write_extracted,
    write_weights,
)
from cryodc.picks.formats import read_picks
from cryodc.picks.picks import Picks, match_tomograms
from cryodc.unfinished import keep_command, key_of, stamp
from cryodc.volumes import Volume

Edge = Literal["drop", "pad"]
# Voxels of the output around each box while it is moved and binned: what wraps around stays out of the box.
_MARGIN = 4


@dataclass(frozen=True)
class ExtractRequest:
    """What a user asks of ``cryodc extract``.

    Parameters
    ----------
    tomograms
        MRC files, or OME-Zarr folders.
    picks
        In any format of :func:`cryodc.picks.formats.read_picks`.
    out
        A folder that does not exist yet, or is empty.
    box_size
        Of the output, voxels, even.
    binning
        Output voxels are this many times as large as the tomogram's.
    edge
        What to do where a box reaches beyond the tomogram: ``drop`` the particle, or ``pad`` with the mean.
    skip_others
        Leave out picks of tomograms that are not given, instead of refusing them.
    tilt_range, tilt_ranges, tilt_axis
        Degrees, for all tomograms and by tomogram, and the axis: the weights. Without, none are written.
    normalise, invert
        Mean 0 and standard deviation 1; multiply by −1.
    spacing_angstrom
        Of the tomograms, over their headers.
    coordinate_spacing_angstrom
        Å per unit of the picks' coordinates, over what their file says.
    """

    tomograms: Sequence[Path]
    picks: Path
    out: Path
    box_size: int
    binning: int = 1
    edge: Edge = "drop"
    skip_others: bool = False
    tilt_range: tuple[float, float] | None = None
    tilt_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tilt_axis: TiltAxis = "y"
    normalise: bool = True
    invert: bool = False
    spacing_angstrom: float | None = None
    coordinate_spacing_angstrom: float | None = None


@dataclass(frozen=True)
class Extraction:
    """What was extracted.

    Parameters
    ----------
    star, has_weights
        The STAR, and whether weights were written beside it.
    picks, n_extracted
        All picks, as they were read, and how many particles each tomogram has.
    spacing_angstrom
        Of the subtomograms.
    dropped, n_skipped
        Picks that gave no particle, and how many are of tomograms that were not given.
    """

    star: Path
    picks: Picks
    spacing_angstrom: float
    n_extracted: Mapping[str, int]
    dropped: Sequence[Dropped]
    n_skipped: int
    has_weights: bool


def extract_subtomograms(
    request: ExtractRequest, on_particle: Callable[[int, int], None] = lambda n_done, n_total: None
) -> Extraction:
    """Write particles.star, subtomograms/, weights/ and, if any were, dropped.csv; one box is in memory at a time.

    Everything is checked before the first box is read: files, picks, tomogram names, spacings, tilt ranges.
    The folder appears when all of it is written. Where a call was killed, the next with the same request goes on after
    the boxes that were written.

    Raises
    ------
    InputError
        If a file is bad, a pick's tomogram is not given, spacings differ, or no particle is left.
    """
    if request.box_size < 8 or request.box_size % 2:
        raise InputError(
            "the box size cannot be used", expected="an even number from 8 up", found=str(request.box_size)
        )
    require_empty(request.out)
    for path in request.tomograms:
        if not path.exists():
            raise InputError("there is no such tomogram", file=path, remedy="correct its name")
    picks = read_picks(request.picks, request.coordinate_spacing_angstrom)
    members = match_tomograms(picks, request.tomograms, request.skip_others)
    used = [(path, rows) for path, rows in zip(request.tomograms, members, strict=True) if len(rows)]
    tomograms = [Tomogram(path, request.spacing_angstrom) for path, _ in used]
    _require_one_spacing(tomograms)
    ranges = _tilt_ranges(request, [path for path, _ in used])
    positions = [
        picks.in_voxels(tomogram.spacing_angstrom, tomogram.shape, rows)
        for tomogram, (_, rows) in zip(tomograms, used, strict=True)
    ]
    _require_any(request, picks, tomograms, positions, [rows for _, rows in used])
    spacing = tomograms[0].spacing_angstrom * request.binning
    folders = file_names([path.name for path, _ in used])
    extracted: list[Extracted] = []
    dropped: list[Dropped] = []
    star = request.out / "particles.star"
    n_done, n_total = 0, sum(len(rows) for _, rows in used)
    declare(plan_of_boxes(request.out, len(used), n_total, request.box_size, request.binning))
    key = key_of(replace(request, out=Path()), [stamp(path) for path in (request.picks, *request.tomograms)])
    with new_folder(request.out, key) as folder:
        keep_command(folder)
        weights = write_weights(folder, ranges.values(), request.box_size, request.tilt_axis, spacing)
        for tomogram, (path, rows), places in zip(tomograms, used, positions, strict=True):
            stem = tomogram_stem(path.name)
            for number, (pick, place) in enumerate(zip(rows.tolist(), places, strict=True), start=1):
                name = f"subtomograms/{folders[path.name]}/{folders[path.name]}_{number:06d}.mrc"
                voxels, why = (None, "") if (folder / name).exists() else cut_box(tomogram, place, request)
                if why:
                    dropped.append(Dropped(int(picks.rows[pick]), stem, place, why))
                else:
                    if voxels is not None:
                        write_volume(folder / name, Volume(voxels, spacing))
                    extracted.append(Extracted(pick, stem, place, name, weights.get(ranges[path]) if ranges else None))
                n_done += 1
                on_particle(n_done, n_total)
        if not extracted:
            reasons = Counter(drop.why for drop in dropped)
            # Raised here, so that no folder is left that would be in the way of the next try.
            raise InputError(
                "no particle is left: every box was dropped",
                file=request.picks,
                found="; ".join(f"{reason} ({n} of {len(dropped)})" for reason, n in reasons.items()),
                remedy="see whether the picks are of these tomograms, and in which unit: --coordinate-spacing",
            )
        if dropped:
            write_dropped(folder / "dropped.csv", dropped)
        write_extracted(folder / star.name, picks, extracted, request.box_size, spacing, tomograms[0].spacing_angstrom)
    counts = {tomogram_stem(path.name): 0 for path, _ in used}
    for particle in extracted:
        counts[particle.tomogram] += 1
    return Extraction(star, picks, spacing, counts, dropped, len(picks) - n_total, bool(weights))


def cut_box(
    tomogram: Tomogram, position_voxels: Float[NDArray[np.float64], " 3"], request: ExtractRequest
) -> tuple[Float[NDArray[np.float32], "d h w"] | None, str]:
    """Cut one subtomogram, its position (zyx, 0-based) at index ``N // 2``; or None, and why not."""
    why = why_dropped(tomogram.shape, position_voxels, request)
    if why:
        return None, why
    size = request.box_size * request.binning
    nearest = np.floor(position_voxels + 0.5).astype(np.int64)
    start = nearest - size // 2
    margin = _MARGIN * request.binning
    box, _ = tomogram.read_box((start - margin).tolist(), size + 2 * margin)
    if not np.isfinite(box).all():
        return None, "the box holds voxels that are NaN or infinite"
    if box.min() == box.max():
        return None, "the box is constant: it holds no image"
    rest = torch.from_numpy(nearest - position_voxels).float()
    # In float32 the mean would cost the spectrum its precision.
    mean = float(box.mean(dtype=np.float64))
    volume = torch.from_numpy(box - np.float32(mean))
    # Binned first: the shift is the same for all frequencies that are kept, and the box is smaller.
    if request.binning > 1:
        volume = fourier_crop(volume, request.box_size + 2 * _MARGIN)
    if rest.any():
        volume = fourier_shift(volume, rest / request.binning)
    keep = slice(_MARGIN, -_MARGIN)
    volume = volume[keep, keep, keep]
    volume = standardise(volume) if request.normalise else volume + mean
    return np.ascontiguousarray((-volume if request.invert else volume).numpy(), dtype=np.float32), ""


def why_dropped(
    shape: tuple[int, int, int], position_voxels: Float[NDArray[np.float64], " 3"], request: ExtractRequest
) -> str:
    """Say why a position cannot give a box, from the shape of the tomogram alone; "" if it can."""
    size = request.box_size * request.binning
    nearest = np.floor(position_voxels + 0.5)
    start = nearest - size // 2
    if (nearest < 0).any() or (nearest >= shape).any():
        return "the position lies outside the tomogram"
    if request.edge == "drop" and ((start < 0).any() or (start + size > shape).any()):
        return "the box reaches beyond the tomogram"
    return ""


def _require_any(
    request: ExtractRequest,
    picks: Picks,
    tomograms: Sequence[Tomogram],
    positions: Sequence[NDArray[np.float64]],
    members: Sequence[NDArray[np.int64]],
) -> None:
    first = None
    for tomogram, places, rows in zip(tomograms, positions, members, strict=True):
        for place, row in zip(places, rows.tolist(), strict=True):
            why = why_dropped(tomogram.shape, place, request)
            if not why:
                return
            first = first or (why, int(picks.rows[row]), place, tomogram)
    if first is not None:
        why, row, place, tomogram = first
        z, y, x = tomogram.shape
        raise InputError(
            "no particle is left: every box would be dropped",
            file=request.picks,
            row=row,
            expected=f"voxels of {tomogram.path.name}, {x} × {y} × {z} (x, y, z)",
            found=f"{', '.join(f'{at:.6g}' for at in place[::-1])}: {why}",
            remedy="if their unit is wrong, give it: --coordinate-spacing; else a smaller --box, or --edge pad",
        )


def _require_one_spacing(tomograms: Sequence[Tomogram]) -> None:
    first = tomograms[0]
    for tomogram in tomograms[1:]:
        if abs(tomogram.spacing_angstrom - first.spacing_angstrom) > 1e-3 * first.spacing_angstrom:
            raise InputError(
                "the tomograms differ in voxel spacing",
                file=tomogram.path,
                expected=f"{first.spacing_angstrom:g} Å, as in {first.path}",
                found=f"{tomogram.spacing_angstrom:g} Å",
                remedy="extract from each spacing on its own, or, if the headers are wrong, give --spacing",
            )


def _tilt_ranges(request: ExtractRequest, paths: Sequence[Path]) -> dict[Path, tuple[float, float]]:
    """Tilt range of each tomogram; none at all where the user gave none."""
    if request.tilt_range is None and not request.tilt_ranges:
        return {}
    ranges = {}
    for path in paths:
        pair = find_by_name(request.tilt_ranges, path.name) or request.tilt_range
        if pair is None:
            raise InputError(
                "this tomogram has no tilt range",
                file=path,
                expected=f"the range of {tomogram_stem(path.name)} in --tilt-ranges",
                found=f"those of {', '.join(list(request.tilt_ranges)[:6])}",
                remedy="add it, or give --tilt-range for all others",
            )
        if not -90 <= pair[0] < pair[1] <= 90:
            raise InputError(
                "the tilt range cannot be used", expected="-90 <= MIN < MAX <= 90", found=f"{pair[0]:g} {pair[1]:g}"
            )
        ranges[path] = pair
    return ranges
