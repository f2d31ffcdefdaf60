"""Select particles of a clustered run by class, tomogram, confidence and name, into a STAR of their own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from cryodc.dry_run import Forecast, declare
from cryodc.errors import InputError
from cryodc.export.named import particle_names, rows_named
from cryodc.export.rows import write_chosen
from cryodc.io import find_name
from cryodc.runs import RunFolder, current_averages, current_classes, require, require_averages
from cryodc.star import StarBlock, StarDocument, particle_block, read_star, read_whole_numbers


@dataclass(frozen=True)
class Selection:
    """What was kept: particles of each class before and after, the file, and how many images it names anew."""

    n_before: dict[int, int]
    n_kept: dict[int, int]
    out: Path
    n_renamed: int = 0

    def __len__(self) -> int:
        return sum(self.n_kept.values())


def select_run(
    run: RunFolder,
    out: Path,
    *,
    classes: Collection[int] = (),
    tomograms: Collection[str] = (),
    min_confidence: float = 0.0,
    proteins: bool = False,
    names: Sequence[Path] = (),
) -> Selection:
    """Write the rows that meet every criterion; all else of the text stays.

    Images that would not be found from where ``out`` lies are named relative to it.

    Rows are those of clusters.star, or after ``cryodc average --classify`` those of averages/particles.star with the
    final classes, as every other verb shows them.

    Parameters
    ----------
    run
        A clustered run.
    out
        The STAR to write; it must not exist.
    classes
        Class numbers (rlnClassNumber, from 1) to keep; empty keeps all, the unassigned (0) too.
    tomograms
        Tomograms (rlnTomoName, else rlnMicrographName) to keep; empty keeps all.
    min_confidence
        Least posterior probability of the class, 0 to 1; above 0 no unassigned particle is kept.
    proteins
        Keep only classes whose verdict is ``protein``; see :func:`cryodc.maps.judge_class`.
    names
        Lists of particle names, one a line; a particle of any of them is kept. None keeps all.

    Raises
    ------
    InputError
        If ``out`` exists; the run is not clustered, or not averaged though proteins are asked for; a class, tomogram or
        particle is not there; or nothing is left.
    """
    if out.exists():
        raise InputError("refusing to overwrite", file=out, remedy="choose another --out, or remove this file")
    clusters, averages = current_classes(run), require_averages(run) if proteins else current_averages(run)
    if averages is None or averages.classification is None or averages.classification.labels is None:
        document = read_star(require(run.clusters / "clusters.star", "cryodc cluster"))
    else:
        document = read_star(require(run.averages / "particles.star", "cryodc average"))
    block = particle_block(document)
    numbers = read_whole_numbers(document, block, "rlnClassNumber")
    present = set(numbers.tolist())
    _require_known(document, "class", [str(c) for c in sorted(classes)], [str(c) for c in sorted(present - {0})])
    keep = np.isin(numbers, list(classes)) if classes else np.ones(len(numbers), dtype=bool)
    keep &= _in_tomograms(document, block, tomograms)
    if proteins and averages is not None:
        keep &= np.isin(numbers, [entry.class_number for entry in averages.classes if entry.verdict == "protein"])
    if min_confidence > 0:
        confidence = dict(zip(clusters.names, clusters.confidence.tolist(), strict=True))
        keep &= numbers > 0
        keep &= np.array([confidence.get(name, 0.0) >= min_confidence for name in particle_names(block)])
    if names:
        listed = np.concatenate([rows_named(block, path, document.source) for path in names])
        keep &= np.isin(np.arange(block.n_rows), listed)
    if not keep.any():
        criteria = [f"class {', '.join(map(str, sorted(classes)))}"] if classes else []
        criteria += [f"tomogram {', '.join(sorted(tomograms))}"] if tomograms else []
        criteria += ["a class with the verdict protein"] if proteins else []
        criteria += [f"a name in {', '.join(map(str, names))}"] if names else []
        criteria += [f"confidence of at least {min_confidence:g}"] if min_confidence else []
        raise InputError(
            "no particle meets every criterion",
            file=document.source,
            expected=" and ".join(criteria),
            found=f"none of {len(keep)} particles",
            remedy="keep more classes or tomograms, or lower --min-confidence",
        )
    declare(Forecast(out, f"{len(keep)} rows of {document.source}", bytes_written=500.0 * int(keep.sum())))
    n_renamed = write_chosen(run, document, block.name, np.flatnonzero(keep), out)
    before = {number: int((numbers == number).sum()) for number in sorted(present)}
    kept = {number: int((numbers[keep] == number).sum()) for number in before}
    return Selection(before, kept, out, n_renamed)


def parse_classes(text: str) -> list[int]:
    """Read class numbers as users write them.

    Raises
    ------
    InputError
        If the text is anything but numbers from 1 up and ranges of them.

    Examples
    --------
    >>> parse_classes("1, 3-5")
    [1, 3, 4, 5]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        bounds = [first, last] if dash else [first, first]
        is_range = all(bound.isascii() and bound.isdigit() and len(bound) < 7 for bound in bounds)
        if not is_range or not 1 <= int(bounds[0]) <= int(bounds[1]):
            raise InputError("cannot read the classes", expected="numbers and ranges, as in 1,3-5", found=text)
        numbers.update(range(int(bounds[0]), int(bounds[1]) + 1))
    return sorted(numbers)


def classes_text(numbers: Sequence[int]) -> str:
    """Class numbers in ascending order as :func:`parse_classes` reads them, in few letters.

    Examples
    --------
    >>> classes_text([1, 3, 4, 5, 8, 9])
    '1,3-5,8,9'
    """
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda at: at[1] - at[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def _in_tomograms(
    document: StarDocument, block: StarBlock, tomograms: Collection[str]
) -> Bool[NDArray[np.bool_], " n"]:
    if not tomograms:
        return np.ones(block.n_rows, dtype=bool)
    label = next((label for label in ("rlnTomoName", "rlnMicrographName") if label in block), None)
    if label is None:
        raise InputError(
            "the STAR does not say which tomogram a particle is from",
            file=document.source,
            expected="rlnTomoName or rlnMicrographName",
            remedy="select without --tomogram",
        )
    names = block.column(label)
    present = list(dict.fromkeys(names))
    found = {asked: find_name(asked, present, file=document.source) for asked in tomograms}
    known = {asked: present[at] for asked, at in found.items() if at is not None}
    _require_known(document, "tomogram", sorted(set(tomograms) - set(known)), present)
    return np.isin(names, list(known.values()))


def _require_known(document: StarDocument, kind: str, asked: Sequence[str], present: Sequence[str]) -> None:
    unknown = [name for name in asked if name not in present]
    if unknown:
        more = f" and {len(present) - 10} more" if len(present) > 10 else ""
        raise InputError(
            f"there is no such {kind}",
            file=document.source,
            expected=f"{', '.join(present[:10])}{more}",
            found=", ".join(unknown),
        )
