"""Picks that lie on one another, images that are named twice, folders that were moved."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from cryodc_cli.prepare.check import check

from benchmarks.files import preflight as bench
from cryodc.check import CheckSettings, check_particles
from cryodc.check.duplicates import nearest_pairs


def _warnings(folder: Path, **settings: float) -> list[str]:
    report = check_particles(folder / "particles.star", CheckSettings(n_sample=4, **settings))  # type: ignore[arg-type]
    assert report.problems == ()
    return [f"{warning.row}: {warning.error.found}" for warning in report.warnings]


def _place(folder: Path, tomogram_2: str, pixels_apart: float) -> int:
    """Put the second particle so far from the first, in a tomogram; give its line."""

    def move(coordinates: np.ndarray) -> np.ndarray:
        spread = np.arange(len(coordinates))[:, None] * [100.0, 0, 0] + coordinates
        spread[1] = spread[0] + [0, pixels_apart, 0]
        return spread

    bench.change_columns(folder, ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"), move)
    bench.change_columns(folder, ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"), np.zeros_like)
    star = folder / "particles.star"
    lines = star.read_text().splitlines()
    rows = [i for i, line in enumerate(lines) if "subtomograms/" in line]
    for row, tomogram in ((rows[0], "tomogram01"), (rows[1], tomogram_2)):
        lines[row] = "\t".join([tomogram, *lines[row].split()[1:]])
    star.write_text("\n".join(lines) + "\n")
    return rows[1] + 1


def test_two_picks_of_one_particle_are_a_warning_in_one_tomogram_only(copy: Path) -> None:
    line = _place(copy, "tomogram01", 2.0)
    # Two pixels of 13 Å; a tenth of the box edge is 31 Å.
    (warning,) = _warnings(copy)
    assert warning.startswith(f"{line}: 26.0 Å")
    assert _warnings(copy, duplicate_distance_angstrom=20.0) == []
    assert _warnings(copy, duplicate_distance_angstrom=0.0) == []
    assert CliRunner().invoke(check, [str(copy / "particles.star"), "--sample", "4"]).exit_code == 0
    _place(copy, "tomogram02", 2.0)
    assert _warnings(copy) == []


def test_origins_bring_two_picks_together(copy: Path) -> None:
    """Five pixels apart, but RELION's position is coordinate − origin / pixel: both are the same particle."""
    _place(copy, "tomogram01", 5.0)
    assert _warnings(copy) == []

    def second_by_65_angstrom(origins: np.ndarray) -> np.ndarray:
        origins[1, 1] = 65.0
        return origins

    bench.change_columns(copy, ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"), second_by_65_angstrom)
    (warning,) = _warnings(copy)
    assert ": 0.0 Å" in warning


def test_coordinates_of_tilt_series_pixels_are_measured_in_them(copy: Path) -> None:
    _place(copy, "tomogram01", 5.0)
    star = copy / "particles.star"
    lines = star.read_text().replace("_rlnMicrographPixelSize", "_rlnTomoTiltSeriesPixelSize")
    star.write_text(lines.replace("\t13.000000\t13.000000\t", "\t1.500000\t13.000000\t", 1))
    (warning,) = _warnings(copy)
    assert ": 7.5 Å" in warning


def test_particles_that_lie_on_one_point_are_paired_once_each() -> None:
    positions = np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [500, 0, 0]])
    pairs, distances = nearest_pairs(positions, ["a"] * 4, 10.0)
    assert set(pairs.ravel().tolist()) == {0, 1, 2}
    assert distances.max() == 0


def test_coordinates_that_are_all_the_same_say_nothing(copy: Path) -> None:
    bench.change_columns(copy, ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"), np.zeros_like)
    bench.change_columns(copy, ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"), np.zeros_like)
    assert _warnings(copy) == []


def test_two_rows_with_one_image_are_a_problem_whatever_their_names(copy: Path) -> None:
    star = copy / "particles.star"
    lines = star.read_text().splitlines()
    rows = [i for i, line in enumerate(lines) if "subtomograms/" in line]
    lines[rows[5]] = lines[rows[5]].replace("particle000006", "particle000002")
    names = {row: f"\tname{i}" for i, row in enumerate(rows)}
    text = "\n".join(line + names.get(i, "") for i, line in enumerate(lines)) + "\n"
    star.write_text(text.replace("_rlnOriginZAngst #13", "_rlnOriginZAngst #13\n_rlnTomoParticleName #14"))
    (problem,) = check_particles(star, CheckSettings(n_sample=4)).problems
    assert problem.error.problem == "two particles have the same image"
    assert problem.row == rows[5] + 2


def test_a_moved_folder_is_found_and_the_remedy_works(copy: Path) -> None:
    (copy / "new" / "place").mkdir(parents=True)
    (copy / "subtomograms").rename(copy / "new" / "place" / "subtomograms")
    problems = check_particles(copy / "particles.star", CheckSettings(n_sample=4)).problems
    assert len(problems) == 60
    option, folder = str(problems[0].error.remedy).split()
    assert option == "--data-dir"
    report = check_particles(copy / "particles.star", CheckSettings(data_dir=Path(folder), n_sample=4))
    assert report.problems == ()
