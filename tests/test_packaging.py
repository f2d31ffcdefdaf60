"""The package list of pyproject.toml is written out, so it can fall behind the folders."""

import tomllib
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from cryodc.volumes import Volume

ROOT = Path(__file__).parents[1]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folders_with_python(top: str) -> set[str]:
    return {".".join(file.relative_to(ROOT).parts[:-1]) for file in (ROOT / top).rglob("*.py")}


def test_every_folder_with_python_files_is_packaged() -> None:
    folders = folders_with_python("cryodc") | folders_with_python("cli")
    packaged = {name.replace("cryodc_cli", "cli") for name in SETUP["packages"]}
    assert packaged == folders


def test_the_report_template_is_packaged() -> None:
    files = {
        file
        for pattern in SETUP["package-data"]["cryodc.report"]
        for file in (ROOT / "cryodc" / "report").glob(pattern)
    }
    assert ROOT / "cryodc" / "report" / "report.html.jinja" in files


def test_the_library_checks_shapes_in_tests() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        Volume(np.zeros((4, 4), np.float32), 10.0)
