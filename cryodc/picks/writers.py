"""Picks as the text of other programs' files; what each means is written in :mod:`cryodc.picks.formats`."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.geometry import euler_from_matrices
from cryodc.io import last_number, series_name
from cryodc.picks.picks import Picks
from cryodc.star import number_texts, star_table

PickFormat = Literal["relion", "dynamo", "stopgap", "csv", "portal"]
_DYNAMO_COLUMNS = 35


@dataclass(frozen=True)
class PickText:
    """The text of a file of picks; the number of each tomogram, where the format has no names; and what was made up."""

    text: str
    tomogram_numbers: dict[str, int]
    notes: tuple[str, ...] = ()


def picks_as(
    kind: Literal["dynamo", "stopgap", "csv", "portal"], picks: Picks, voxels: Float[NDArray[np.float64], "n 3"]
) -> PickText:
    """Write picks in the format of a program that counts voxels of the tomogram.

    Parameters
    ----------
    kind
        The program; for RELION: :func:`relion_star`.
    picks
        Tomograms, rotations, classes, half sets.
    voxels
        ``(n, 3)`` zyx, 0-based voxels of the tomogram.
    """
    writers: dict[str, Callable[[Picks, NDArray[np.float64]], PickText]] = {
        "dynamo": dynamo_table,
        "stopgap": _stopgap,
        "csv": _csv,
        "portal": _portal,
    }
    return writers[kind](picks, voxels)


def number_tomograms(names: Sequence[str]) -> dict[str, int]:
    """Give each tomogram a number: the last one in its name if that tells all apart, else 1, 2, ….

    Examples
    --------
    >>> number_tomograms(["TS_07", "TS_12", "TS_07"]), number_tomograms(["left", "right"])
    ({'TS_07': 7, 'TS_12': 12}, {'left': 1, 'right': 2})
    """
    distinct = list(dict.fromkeys(names))
    numbers = [last_number(series_name(name)) for name in distinct]
    known = [number for number in numbers if number is not None and number < 1_000_000]
    if len(set(known)) == len(distinct):
        return dict(zip(distinct, known, strict=True))
    return {name: number for number, name in enumerate(distinct, start=1)}


def tomogram_numbers_table(numbers: Mapping[str, int]) -> str:
    """Lines ``number,tomogram``, as :func:`cryodc.picks.convert.read_tomogram_names` reads them."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["number", "tomogram"])
    writer.writerows([number, name] for name, number in numbers.items())
    return buffer.getvalue()


def relion_star(
    picks: Picks,
    coordinates: Float[NDArray[np.float64], "n 3"],
    pixel_angstrom: Float[NDArray[np.float64], " n"] | None,
    *,
    from_centre: bool = False,
) -> PickText:
    """Write one table ``data_particles``, as RELION imports coordinates.

    Parameters
    ----------
    picks
        Tomograms, rotations, classes, half sets.
    coordinates
        ``(n, 3)`` zyx, 0-based pixels from the corner, or Å from the centre.
    pixel_angstrom
        ``(n,)`` the pixel of each row, which rlnPixelSize then states, or None where it is not known.
    from_centre
        Whether coordinates are Å from the centre: rlnCenteredCoordinateXAngst.
    """
    label = "rlnCenteredCoordinate{}Angst" if from_centre else "rlnCoordinate{}"
    columns: dict[str, Sequence[str]] = {"rlnTomoName": picks.tomograms}
    columns |= {label.format(axis): number_texts(coordinates[:, 2 - i]) for i, axis in enumerate("XYZ")}
    if picks.rotations is not None:
        angles = euler_from_matrices(picks.rotations)
        columns |= {f"rlnAngle{name}": number_texts(angles[:, i]) for i, name in enumerate(("Rot", "Tilt", "Psi"))}
    for name, values in (("rlnClassNumber", picks.classes), ("rlnRandomSubset", picks.half_sets)):
        if values is not None:
            columns[name] = [str(value) for value in values.tolist()]
    if pixel_angstrom is not None:
        columns["rlnPixelSize"] = number_texts(pixel_angstrom)
    notes = () if picks.rotations is not None else ("no angles: none are written",)
    return PickText(f"\n{star_table('particles', columns)}\n", {}, notes)


def dynamo_table(
    picks: Picks,
    voxels: Float[NDArray[np.float64], "n 3"],
    shifts_voxels: Float[NDArray[np.float64], "n 3"] | None = None,
) -> PickText:
    """Write a Dynamo table.

    Parameters
    ----------
    picks
        Tomograms, rotations, classes.
    voxels
        ``(n, 3)`` zyx, 0-based voxels of the tomogram: where boxes are cut.
    shifts_voxels
        ``(n, 3)`` zyx from there to the particle: dx, dy, dz. 0 if None.
    """
    numbers = number_tomograms(picks.tomograms)
    n = len(picks)
    table = np.zeros((n, _DYNAMO_COLUMNS))
    table[:, 0] = np.arange(1, n + 1)
    table[:, 1:3] = 1
    table[:, 3:6] = 0 if shifts_voxels is None else shifts_voxels[:, ::-1]
    rot, tilt, psi = _relion_angles(picks).T
    table[:, 6:9] = np.stack([_wrap(psi - 90), tilt, _wrap(rot + 90)], axis=1)
    table[:, 19] = [numbers[name] for name in picks.tomograms]
    table[:, 21] = 0 if picks.classes is None else picks.classes
    table[:, 23:26] = voxels[:, ::-1] + 0.5
    table[:, 31] = 1
    notes = ["ftype and tilt range are 0: set them in Dynamo before aligning", *_without_angles(picks)]
    if picks.half_sets is not None:
        table[:, 22] = picks.half_sets
        notes.append("half sets are in column 23 (annotation): a Dynamo table has none for them")
    text = "".join(" ".join(_short(value) for value in row) + "\n" for row in table.tolist())
    return PickText(text, _kept(numbers), tuple(notes))


def _stopgap(picks: Picks, voxels: NDArray[np.float64]) -> PickText:
    numbers = number_tomograms(picks.tomograms)
    index = [str(i) for i in range(1, len(picks) + 1)]
    rot, tilt, psi = _relion_angles(picks).T
    one_based = voxels[:, ::-1] + 1
    whole = np.floor(one_based + 0.5)
    halves = np.arange(len(picks)) % 2 + 1 if picks.half_sets is None else picks.half_sets
    classes = np.ones(len(picks), dtype=np.int64) if picks.classes is None else picks.classes
    columns: dict[str, Sequence[str]] = {
        "motl_idx": index,
        "tomo_num": [str(numbers[name]) for name in picks.tomograms],
        "object": ["1"] * len(picks),
        "subtomo_num": index,
        "halfset": ["AB"[half - 1] for half in halves.tolist()],
        **{f"orig_{axis}": [f"{value:.0f}" for value in whole[:, i]] for i, axis in enumerate("xyz")},
        "score": ["0"] * len(picks),
        **{f"{axis}_shift": number_texts((one_based - whole)[:, i]) for i, axis in enumerate("xyz")},
        "phi": number_texts(_wrap(90 - rot)),
        "psi": number_texts(_wrap(-90 - psi)),
        "the": number_texts(tilt),
        "class": [str(value) for value in classes.tolist()],
    }
    notes = _without_angles(picks)
    if picks.half_sets is None:
        notes.append("no half sets: A and B in turn")
    if picks.classes is None:
        notes.append("no classes: all are 1")
    return PickText(f"\n{star_table('stopgap_motivelist', columns, numbered=False)}\n", _kept(numbers), tuple(notes))


def _csv(picks: Picks, voxels: NDArray[np.float64]) -> PickText:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    angles = None if picks.rotations is None else euler_from_matrices(picks.rotations)
    writer.writerow(["x", "y", "z", "tomogram", *([] if angles is None else ["rot", "tilt", "psi"])])
    for i, name in enumerate(picks.tomograms):
        numbers = [*voxels[i, ::-1], *([] if angles is None else angles[i])]
        texts = number_texts(np.array(numbers))
        writer.writerow([*texts[:3], name, *texts[3:]])
    return PickText(buffer.getvalue(), {}, _lost(picks))


def _portal(picks: Picks, voxels: NDArray[np.float64]) -> PickText:
    names = sorted(set(picks.tomograms))
    if len(names) > 1:
        raise InputError(
            "a file of the CryoET Data Portal has the points of one tomogram",
            file=picks.source,
            expected="one tomogram",
            found=", ".join(names[:6]),
            remedy="convert the picks of each tomogram on their own",
        )
    lines = []
    for i, (x, y, z) in enumerate(np.round(voxels[:, ::-1], 6).tolist()):
        point: dict[str, object] = {"type": "point", "location": {"x": x, "y": y, "z": z}}
        if picks.rotations is not None:
            point |= {"type": "orientedPoint", "xyz_rotation_matrix": picks.rotations[i, ::-1, ::-1].tolist()}
        lines.append(json.dumps(point) + "\n")
    return PickText("".join(lines), {}, _lost(picks))


def _lost(picks: Picks) -> tuple[str, ...]:
    lost = [what for what, values in (("classes", picks.classes), ("half sets", picks.half_sets)) if values is not None]
    return (f"{' and '.join(lost)} are left out",) if lost else ()


def _relion_angles(picks: Picks) -> Float[NDArray[np.float64], "n 3"]:
    # About z by 90° one way and back, a turn about y becomes one about x: ZXZ angles are ZYZ angles and ± 90°.
    return np.zeros((len(picks), 3)) if picks.rotations is None else euler_from_matrices(picks.rotations)


def _without_angles(picks: Picks) -> list[str]:
    return [] if picks.rotations is not None else ["no angles: the particles are written unturned"]


def _kept(numbers: dict[str, int]) -> dict[str, int]:
    """Numbers that say more than the names do."""
    return {} if all(name == str(number) for name, number in numbers.items()) else numbers


def _wrap(angles_degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(180 - np.mod(180 - angles_degrees, 360))


def _short(value: float) -> str:
    # Adding 0 turns a rounded −0 into 0.
    rounded = round(value, 6) + 0.0
    return f"{rounded:.0f}" if rounded.is_integer() else f"{rounded:.6f}"
