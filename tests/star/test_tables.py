"""New tables are starfile's text: what was put in is what starfile, and this package, read back."""

import linecache
from pathlib import Path

import numpy as np
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryodc.errors import InputError
from cryodc.star import number_texts, read_star, star_table

SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
_TEXTS = st.one_of(
    st.sampled_from(["1", "1.0", "007", "nan", "", "two words", "_under", "#hash", "data_x", "loop_", "a.mrc", "α"]),
    st.text(st.sampled_from("ab1.0_é-+@/ []"), max_size=8),
)


def both(path: Path, text: str, labels: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    path.write_text(f"\n{text}\n", encoding="utf-8")
    linecache.clearcache()
    table = starfile.read(path, always_dict=True, parse_as_string=labels)["particles"]
    block = read_star(path).block("particles")
    # starfile reads a text like nan as none, even where it is told to keep texts.
    theirs = [["nan" if cell is np.nan else cell for cell in table[label]] for label in labels]
    return theirs, [block.column(label) for label in labels]


@settings(max_examples=150, **SETTINGS)
@given(st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=5), st.booleans())
def test_cells_come_back_as_they_went_in(tmp_path: Path, rows: list[tuple[str, str]], numbered: bool) -> None:
    columns = {"rlnImageName": [row[0] for row in rows], "rlnTomoName": [row[1] for row in rows]}
    theirs, ours = both(tmp_path / "a.star", star_table("particles", columns, numbered), list(columns))
    assert ours == list(columns.values())
    assert theirs == list(columns.values())


@pytest.mark.parametrize("texts", [["1", "2"], ["1.0", "2.00"], ["007", "1e5"], ["nan", "nano"], ["True", "None"]])
def test_no_text_is_turned_into_another(tmp_path: Path, texts: list[str]) -> None:
    theirs, ours = both(tmp_path / "a.star", star_table("particles", {"rlnX": texts}), ["rlnX"])
    assert theirs == ours == [texts]


def test_the_same_table_is_the_same_text_with_labels_numbered_or_not() -> None:
    columns = {"rlnA": ["1"], "rlnB": number_texts(np.array([-0.0000001]))}
    assert star_table("x", columns) == "data_x\n\nloop_\n_rlnA #1\n_rlnB #2\n1\t0.000000"
    assert star_table("", columns, numbered=False) == "data_\n\nloop_\n_rlnA\n_rlnB\n1\t0.000000"


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\x85b", "a\u2028b", "a\rb", "it's \" both' ", 'a" b'])
def test_a_text_that_no_reader_would_give_back_is_one_error(text: str) -> None:
    with pytest.raises(InputError, match="cannot be a cell"):
        star_table("x", {"rlnTomoName": [text]})
