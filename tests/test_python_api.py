"""The verbs in Python are the verbs of the command line, and importing cryodc stays quick."""

import ast
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from cryodc_cli.main import GROUPS, VERBS

import cryodc

ROOT = Path(__file__).parents[1]
OF_RELION = "relion-job"
"""A verb that calls verbs, for RELION."""
IN_PYTHON = [verb for verb in VERBS if verb != OF_RELION]


def name_of(verb: str) -> str:
    return {"import": "import_"}.get(verb, verb.replace("-", "_"))


def test_every_verb_of_the_command_line_is_a_function() -> None:
    assert sorted(cryodc.verbs.__all__) == sorted(map(name_of, IN_PYTHON))


@pytest.mark.parametrize("verb", IN_PYTHON)
def test_the_command_calls_the_very_function(verb: str) -> None:
    folder = next(group for group, verbs in GROUPS.items() if verb in verbs).lower().replace(" ", "_")
    tree = ast.parse((ROOT / "cli" / folder / f"{name_of(verb)}.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cryodc.")
        for alias in node.names
    }
    assert getattr(cryodc.verbs, name_of(verb)).__name__ in imported


@pytest.mark.parametrize("verb", IN_PYTHON)
def test_every_argument_and_result_has_a_type(verb: str) -> None:
    function = inspect.unwrap(getattr(cryodc.verbs, name_of(verb)))
    hints = typing.get_type_hints(function)
    assert set(inspect.signature(function).parameters) | {"return"} == set(hints)
    assert (hints["return"] is type(None)) == (verb == "view")


def test_the_page_lists_every_verb() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(cryodc.verbs.__all__)


def test_type_checkers_see_the_names_that_are_there() -> None:
    tree = ast.parse((ROOT / "cryodc/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: (node.module or "").removeprefix("cryodc").removeprefix(".")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == cryodc._HOMES
    assert all(getattr(cryodc, name) is not None for name in cryodc.__all__)


def test_importing_cryodc_imports_nothing_heavy() -> None:
    probe = "import cryodc, sys; sys.exit(str({'torch', 'numpy', 'pandas', 'scipy'} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr.strip() == ""
