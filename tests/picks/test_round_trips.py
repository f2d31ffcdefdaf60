"""Every format of picks there and back, on files of RELION, Warp, Dynamo and others; docs/formats.md has the table."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cryodc.picks import Picks, convert_picks, read_picks
from cryodc.picks.writers import PickFormat, picks_as

DOCS = Path(__file__).parents[2] / "docs/formats.md"
SPACING, SIZE_XYZ = 10.0, (960, 928, 300)
FILES = [
    "cryocat_relion_3.0.star",
    "dynamo2m_example.star",
    "cryocat_relion_3.1_optics2.star",
    "tom_test_2018.star",
    "czportal_relion_4_star.star",
    "cryocat_relion_4.0.star.gz",
    "cryocat_R5_tutorial_run_data.star.gz",
    "cylindra_run_it025_data.star",
    "cryocat_relion5_1_run_it025_data.star.gz",
    "cryocat_warp2_particles_matching.star",
    "dynamo2m_example.tbl.gz",
]
FORMATS: dict[PickFormat, tuple[str, str]] = {
    "relion": ("RELION", "a.star"),
    "dynamo": ("Dynamo", "a.tbl"),
    "stopgap": ("STOPGAP", "b.star"),
    "csv": ("CSV", "a.csv"),
    "portal": ("CryoET Data Portal", "a.ndjson"),
}
MOST_VOXELS, MOST_DEGREES = 0.01, 0.001


def there_and_back(source: Path, kind: PickFormat, folder: Path) -> Iterator[tuple[Picks, Picks]]:
    """The picks of a file, and as they are read from another format; the portal has a file for each tomogram."""
    picks, out = read_picks(source), folder / FORMATS[kind][1]
    if kind != "portal":
        convert_picks(source, out, kind, spacing_angstrom=SPACING, tomogram_size_xyz=SIZE_XYZ)
        yield picks, read_picks(out)
        return
    for tomogram in dict.fromkeys(picks.tomograms):
        mine = picks.select(np.flatnonzero([name == tomogram for name in picks.tomograms]))
        out.write_text(picks_as(kind, mine, in_voxels(mine)).text)
        yield mine, read_picks(out)


def in_voxels(picks: Picks) -> NDArray[np.float64]:
    return picks.in_voxels(SPACING, SIZE_XYZ[::-1])


def apart_degrees(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The angle between rotations from the length of their difference, which is exact where the angle is small."""
    return np.degrees(2 * np.arcsin(np.linalg.norm(first - second, axis=(1, 2)) / np.sqrt(8)))


@pytest.mark.parametrize("kind", FORMATS)
def test_coordinates_and_angles_come_back_and_the_table_says_how_well(
    kind: PickFormat, shared_data: Path, tmp_path: Path
) -> None:
    n_picks, voxels, degrees = 0, 0.0, 0.0
    for number, file in enumerate(FILES):
        folder = tmp_path / str(number)
        folder.mkdir()
        for before, after in there_and_back(shared_data / "star" / file, kind, folder):
            assert before.rotations is not None
            assert after.rotations is not None
            voxels = max(voxels, float(np.abs(in_voxels(before) - in_voxels(after)).max()))
            degrees = max(degrees, float(apart_degrees(before.rotations, after.rotations).max()))
            n_picks += len(before)
    print(f"| {FORMATS[kind][0]} | {len(FILES)} | {n_picks:,} | {voxels:.2g} | {degrees:.2g} |")  # noqa: T201
    row = re.search(rf"^\| {FORMATS[kind][0]} \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", DOCS.read_text(), re.MULTILINE)
    assert row is not None
    assert (int(row[1]), int(row[2].replace(",", ""))) == (len(FILES), n_picks)
    assert voxels <= float(row[3]) <= MOST_VOXELS
    assert degrees <= float(row[4]) <= MOST_DEGREES
