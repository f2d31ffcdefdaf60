"""Cells are read by what they say: spellings of a number, half sets, classes, and what is no number."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryodc.errors import InputError
from cryodc.io import number_of
from cryodc.particles import read_particles
from cryodc.star import half_sets_of, numbers_of, read_star, read_whole_numbers, vector_of, whole_number_of

OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageSize\n_rlnImageDimensionality\n"


def star(folder: Path, labels: list[str], rows: list[str], optics: str = "1 10.0 8 3\n") -> Path:
    path = folder / "particles.star"
    names = [f"{i:03d}.mrc" for i in range(len(rows))]
    head = "".join(f"_{label}\n" for label in ["rlnImageName", *labels])
    body = "".join(f"{name} {row}\n" for name, row in zip(names, rows, strict=True))
    path.write_text(f"{OPTICS}{optics}\ndata_particles\n\nloop_\n{head}{body}")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1.0", 1), ("2.000000", 2), ("+1", 1), ("1e0", 1), ("-.5E+1", -5), ("3.", 3), ("007", 7), (" 4 ", 4)],
)
def test_every_spelling_of_a_number_is_that_number(text: str, value: float) -> None:
    assert number_of(text) == value
    assert numbers_of([text, "1"])[0] == value


@pytest.mark.parametrize(
    "text", ["", "-", "nan", "inf", "-Infinity", "1e400", "1_000", "١", "２", "0x10", "1,5", "1d0", "1 2", "None", "."]
)
def test_what_only_python_takes_for_a_number_is_none(text: str) -> None:
    assert number_of(text) is None
    assert math.isnan(numbers_of([text, "1"])[0])
    assert numbers_of(["1", text])[0] == 1


@pytest.mark.parametrize(
    "text",
    ["", "[", "[1,[2]]", "{}", "3", "[1e999]", "[NaN]", '["a"]', "[" * 5000, f"[{'9' * 5000}]"],
)
def test_what_is_no_list_of_numbers_is_none(text: str) -> None:
    assert vector_of(text) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_written_is_that_number_read(value: float) -> None:
    assert number_of(repr(value)) == value
    assert numbers_of([repr(value)])[0] == value


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.sampled_from(["{}", "{}.0", "{}.000000", "{}e0"]))
def test_a_whole_number_is_whole_however_it_is_written(value: int, spelling: str) -> None:
    assert whole_number_of(spelling.format(value)) == value
    assert whole_number_of(f"{value}.5") is None


@pytest.mark.parametrize(
    "texts", [["1", "2"], ["1.0", "2.0"], ["2.000000", "1.000000"], ["+1", "2e0"], ["1", "2.0"], ["01", "02"]]
)
def test_half_sets_are_half_sets_in_any_spelling(tmp_path: Path, texts: list[str]) -> None:
    expected = [int(float(text)) for text in texts]
    found, others = half_sets_of(texts)
    assert found is not None
    assert (found.tolist(), others) == (expected, "")
    path = star(tmp_path, ["rlnRandomSubset", "rlnOpticsGroup"], [f"{text} 1" for text in texts])
    half_sets = read_particles(path, check_images=False).half_sets
    assert half_sets is not None
    assert half_sets.tolist() == expected


@pytest.mark.parametrize("texts", [["1", "0"], ["1", "3"], ["1.5", "2"], ["nan", "1"], ['""', "1"], ["A", "B"]])
def test_a_row_in_neither_half_leaves_half_sets_unknown_and_is_named(tmp_path: Path, texts: list[str]) -> None:
    from cryodc.particles import inspect_particles

    path = star(tmp_path, ["rlnRandomSubset", "rlnOpticsGroup"], [f"{text} 1" for text in texts])
    found = inspect_particles(path, check_images=False)
    assert found.half_sets is None
    odd = next(text for text in texts if text not in ("1", "2"))
    assert any(f"rlnRandomSubset holds {odd}" in note for note in found.notes)


@pytest.mark.parametrize("number", ["1", "1.0", "01", "1.000000", "+1"])
def test_an_optics_group_is_its_number_in_any_spelling(tmp_path: Path, number: str) -> None:
    from cryodc.particles import inspect_particles

    path = star(tmp_path, ["rlnOpticsGroup"], ["1", number, "1.0"])
    groups = inspect_particles(path, check_images=False).optics_groups
    assert [(group.number, group.n_particles) for group in groups] == [("1", 3)]


def test_a_fraction_names_no_optics_group(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="optics group that is not in data_optics"):
        read_particles(star(tmp_path, ["rlnOpticsGroup"], ["1.5"]), check_images=False)


@pytest.mark.parametrize("spelling", ["3", "3.0", "3.000000", "+3"])
def test_three_dimensions_are_three_in_any_spelling(tmp_path: Path, spelling: str) -> None:
    path = star(tmp_path, ["rlnOpticsGroup"], ["1"], f"1 10.0 8 {spelling}\n")
    assert read_particles(path, check_images=False).box_size == 8


@pytest.mark.parametrize(("flag", "is_flat"), [("0", False), ("0.0", False), ("0.000000", False), ("1.0", True)])
def test_a_flag_is_set_by_its_value(tmp_path: Path, flag: str, is_flat: bool) -> None:
    from cryodc.star import holds_tilt_stacks

    path = tmp_path / "a.star"
    path.write_text(f"data_general\n\n_rlnTomoSubTomosAre2DStacks {flag}\n")
    assert holds_tilt_stacks(read_star(path)) is is_flat


@pytest.mark.parametrize("column", ["rlnClassNumber", "rlnAutopickFigureOfMerit", "rlnMaxValueProbDistribution"])
@pytest.mark.parametrize("text", ["nan", "inf", "-", '""'])
def test_no_number_in_a_column_that_nobody_needs_refuses_nothing(tmp_path: Path, column: str, text: str) -> None:
    path = star(tmp_path, [column, "rlnOpticsGroup"], [f"{text} 1", "2 1"])
    assert len(read_particles(path, check_images=False)) == 2


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "ten", "1e999"])
def test_no_number_in_an_angle_is_one_error_with_its_line(tmp_path: Path, text: str) -> None:
    labels = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOpticsGroup"]
    path = star(tmp_path, labels, ["1 2 3 1", f"1 {text} 3 1"])
    with pytest.raises(InputError, match="rlnAngleTilt is not a number") as caught:
        read_particles(path, check_images=False)
    assert caught.value.row is not None
    assert path.read_text().splitlines()[caught.value.row - 1].split()[2] == text


@pytest.mark.parametrize("spelling", ["1e6", "1000001", "0.001", "1e-9", "12000000"])
@pytest.mark.parametrize("optics", [True, False])
def test_a_spacing_beyond_any_particle_is_one_error(tmp_path: Path, spelling: str, optics: bool) -> None:
    path = star(tmp_path, ["rlnOpticsGroup"], ["1"], f"1 {spelling} 8 3\n")
    if not optics:
        path.write_text(f"data_\n\nloop_\n_rlnImageName\n_rlnPixelSize\na.mrc {spelling}\n")
    with pytest.raises(InputError, match="beyond any that particles have") as caught:
        read_particles(path, check_images=False)
    assert caught.value.row is not None


@pytest.mark.parametrize("box", ["8.5", "1e9", "nan", "-8"])
def test_a_box_size_is_whole_positive_and_possible(tmp_path: Path, box: str) -> None:
    with pytest.raises(InputError, match="rlnImageSize"):
        read_particles(star(tmp_path, ["rlnOpticsGroup"], ["1"], f"1 10.0 {box} 3\n"), check_images=False)


def test_classes_that_a_verb_needs_are_whole_or_an_error_with_its_line(tmp_path: Path) -> None:
    path = star(tmp_path, ["rlnClassNumber"], ["1", "2.000000", "-1", "0"])
    document = read_star(path)
    block = document.block("particles")
    assert read_whole_numbers(document, block, "rlnClassNumber").tolist() == [1, 2, -1, 0]
    bad = read_star(star(tmp_path, ["rlnClassNumber"], ["1", "1.5"]))
    with pytest.raises(InputError, match="rlnClassNumber is not a whole number") as caught:
        read_whole_numbers(bad, bad.block("particles"), "rlnClassNumber")
    assert caught.value.row == len(path.read_text().splitlines())
    with pytest.raises(InputError, match="no column rlnRandomSubset"):
        read_whole_numbers(document, block, "rlnRandomSubset")


def test_a_million_numbers_are_read_in_a_second() -> None:
    import time

    texts = [f"{i}.000000" for i in range(200_000)]
    began = time.perf_counter()
    values = numbers_of(texts)
    assert time.perf_counter() - began < 0.5
    np.testing.assert_array_equal(values, np.arange(200_000))
