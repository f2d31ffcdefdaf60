"""Name the classes of a run after the structures of a library."""

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryodc.dry_run import Forecast, declare
from cryodc.fourier import agreeing_shells
from cryodc.identify.compare import FEWEST_SHELLS, ClassMap, Match, class_map, comparison_box, match
from cryodc.identify.library import library_files, make_decoys, read_library
from cryodc.identify.rank import Ranking, rank
from cryodc.io import read_array, read_volume, replace_folder, write_text, write_volume
from cryodc.runs import (
    FSC_COLUMNS,
    NAME_LABEL,
    NO_NAME,
    ClassSummary,
    IdentifySummary,
    RunFolder,
    fingerprint_of_averages,
    read_table,
    require_averages,
    write_summary,
    writing,
)
from cryodc.star import particle_block, read_star, read_whole_numbers, write_star
from cryodc.volumes import Volume

Tell = Callable[[str], None]
_BESIDE = ("mask", "coverage")
_UNSAFE = re.compile(r"[^\w.-]")
_COLUMNS = (
    *("class", "rank", "name", "agreement", "z"),
    *("resolution_fsc_0.5_angstrom", "resolution_fsc_0.143_angstrom", "hand", "hand_margin"),
)


@dataclass(frozen=True)
class Identified:
    """What one class is.

    Parameters
    ----------
    class_number
        rlnClassNumber.
    name
        Of the library, or ``none``.
    why
        One sentence.
    ranking, matches
        Its candidates; None and empty where the class cannot be compared.
    """

    class_number: int
    name: str
    why: str
    ranking: Ranking | None
    matches: dict[str, Match]


def identify_run(
    run: RunFolder, library: Path, *, n_decoys: int = 24, seed: int = 0, progress: Tell | None = None
) -> tuple[list[Identified], dict[str, str]]:
    """Compare every class average of a run with every structure of a library, and write identified/.

    Parameters
    ----------
    run
        An averaged run.
    library
        Folder of maps and PDB or mmCIF files.
    n_decoys, seed
        How many decoys stand for what is not in the library, and what fixes them.
    progress
        Told what is being done.

    Returns
    -------
    What each class is, and by name why structures were left out.

    Raises
    ------
    InputError
        If there are no averages of the classes that the run has, the library holds nothing, or a file is bad.
    """
    tell = progress or (lambda _: None)
    summary = require_averages(run)
    library_files(library)
    with writing(run, "identify"):
        maps = _read_classes(run, summary.classes)
        found: list[Identified] = []
        left_out: dict[str, str] = {}
        if maps:
            first = next(iter(maps.values()))
            known = read_library(library, first.box_size, first.spacing_angstrom)
            left_out = known.left_out
            decoys = make_decoys(known.known, n_decoys, seed)
            box, n = (first.box_size,) * 3, len(known.known) + len(decoys)
            told, work = f"{len(maps)} averages and {len(known.known)} structures", {"comparison": len(maps) * n}
            declare(Forecast(run.identified, told, box=box, work=work, boxes_in_memory=4 * n))
        for entry in summary.classes:
            number = entry.class_number
            if number not in maps:
                why = entry.note if not entry.aligned else f"the average has no {FEWEST_SHELLS} shells to compare"
                found.append(Identified(number, NO_NAME, f"cannot be compared: {why}", None, {}))
                continue
            tell(f"class {number}: {len(known.known)} structures, {len(decoys)} decoys, both hands")
            matches = {each.name: match(maps[number], each.specimen) for each in known.known}
            verdict = rank(matches, [match(maps[number], decoy.specimen) for decoy in decoys])
            found.append(Identified(number, verdict.name or NO_NAME, verdict.why, verdict, matches))
            tell(f"class {number}: {verdict.why}")
        with replace_folder(run.identified) as folder:
            _write(folder, run, found, maps)
            write_summary(
                folder,
                IdentifySummary(
                    made_of=fingerprint_of_averages(run),
                    library=str(library),
                    left_out=left_out,
                    n_decoys=n_decoys,
                    seed=seed,
                    classes=[{"class": one.class_number, "name": one.name, "why": one.why} for one in found],
                ),
            )
    return found, left_out


def _read_classes(run: RunFolder, entries: list[ClassSummary]) -> dict[int, ClassMap]:
    """The averages that can be compared, all in one box."""
    table = read_table(run.averages / "fsc.csv", FSC_COLUMNS, "cryodc average")
    curves = {
        entry.class_number: table["fsc"][table["class"] == entry.class_number].to_numpy(dtype=np.float64, copy=True)
        for entry in entries
        if entry.aligned and entry.resolution_angstrom is not None
    }
    curves = {number: curve for number, curve in curves.items() if agreeing_shells(curve) >= FEWEST_SHELLS}
    if not curves:
        return {}
    finest = max(agreeing_shells(curve) for curve in curves.values())
    maps = {}
    for number, curve in curves.items():
        stem = run.averages / f"class{number:03d}"
        average = read_volume(stem.with_suffix(".mrc"))
        parts = [torch.from_numpy(read_array(stem.with_name(f"{stem.name}_{what}.mrc"))) for what in _BESIDE]
        box = comparison_box(average.box_size, finest)
        maps[number] = class_map(
            torch.from_numpy(average.voxels), parts[0], parts[1], curve, average.spacing_angstrom, box
        )
    return maps


def _write(folder: Path, run: RunFolder, found: list[Identified], maps: dict[int, ClassMap]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for one in found:
        if one.ranking is None:
            continue
        for place, (name, z) in enumerate(zip(one.ranking.order, one.ranking.z, strict=True), start=1):
            its = one.matches[name]
            resolved = [f"{value:.1f}" if math.isfinite(value) else "" for value in its.resolutions]
            scores = [f"{its.agreement:.4f}", f"{z:.2f}", *resolved, its.hand, f"{its.hand_margin:.4f}"]
            table.writerow([one.class_number, place, name, *scores])
        best, shown = one.ranking.order[0], maps[one.class_number]
        file = f"class{one.class_number:03d}_{_UNSAFE.sub('_', best)}.mrc"
        registered = one.matches[best].registered.numpy().astype(np.float32)
        write_volume(folder / file, Volume(registered, shown.spacing_angstrom))
    write_text(folder / "candidates.csv", text.getvalue())
    document = read_star(run.averages / "particles.star")
    block = particle_block(document)
    names = {one.class_number: one.name for one in found}
    numbers = read_whole_numbers(document, block, "rlnClassNumber")
    write_star(
        document.with_column(block.name, NAME_LABEL, [names.get(int(number), NO_NAME) for number in numbers]),
        folder / "particles.star",
    )
