"""Tables of a run that are damaged: one error that names the file and the command to run again."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryodc_cli.look.report import report

from cryodc.errors import InputError
from cryodc.runs import RunFolder
from cryodc.states import find_states


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(small_run, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("name", ["log.csv", "averages/fsc.csv"])
@pytest.mark.parametrize("content", [b"", b"class;shell;fsc\n1;2\n", b"epoch,class\n1,2,3\n4\n", b"\x00\xff\xfe" * 50])
def test_a_damaged_table_is_one_error_that_names_it(run: RunFolder, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)
    done = CliRunner().invoke(report, [str(run.path)])
    assert isinstance(done.exception, InputError), done.exception
    assert done.exception.file == run.path / name
    assert "cryodc" in (done.exception.remedy or "")


def test_words_where_numbers_belong_are_told(run: RunFolder) -> None:
    table = run.averages / "fsc.csv"
    lines = table.read_text().splitlines()
    head = lines[0].split(",").index("fsc")
    cells = lines[4].split(",")
    cells[head] = "good"
    table.write_text("\n".join([*lines[:4], ",".join(cells), *lines[5:]]) + "\n")
    with pytest.raises(InputError, match="no numbers in fsc") as error:
        find_states(run, 1)
    assert error.value.file == table
