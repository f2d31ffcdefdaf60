"""Completion in the shells: what docs/install.md says makes them complete verbs, options and values."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "install.md"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a ``cryodc`` on the path that is this clone's."""
    command = tmp_path / "cryodc"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cryodc_cli.main "$@"\n')
    command.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


def documented(shell: str) -> str:
    """The line of docs/install.md for a shell."""
    found = re.search(rf"^\| {shell} \| [^|]+ \| `(.*)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("cryodc av", ["average"]),
        ("cryodc train --tilt", ["--tilt-range", "--tilt-ranges", "--tilt-axis"]),
        ("cryodc average --dry", ["--dry-run"]),
        ("cryodc train --content-loss c", ["cosine"]),
    ],
)
def test_bash_completes_after_the_documented_line(line: str, completed: list[str], environment: dict[str, str]) -> None:
    words = line.split()
    typed = (
        f"{documented('bash')}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
        "compopt() { :; }; _cryodc_completion cryodc\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", "-c", typed], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.parametrize(("shell", "registers"), [("zsh", "compdef _cryodc_completion cryodc"), ("fish", "complete ")])
def test_zsh_and_fish_are_given_a_script_and_its_answers(
    shell: str, registers: str, environment: dict[str, str]
) -> None:
    """Where the shell is installed, it also reads the script."""
    assert f"_CRYODC_COMPLETE={shell}_source cryodc" in documented(shell)
    source = environment | {"_CRYODC_COMPLETE": f"{shell}_source"}
    script = subprocess.run(["cryodc"], env=source, capture_output=True, text=True, timeout=60).stdout
    assert registers in script
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "--no-execute"], input=script, text=True, check=True, timeout=60)
    # zsh says which word it is at; fish gives the word itself.
    words = {"COMP_WORDS": "cryodc cluster --dr", "COMP_CWORD": "2" if shell == "zsh" else "--dr"}
    asked = environment | {"_CRYODC_COMPLETE": f"{shell}_complete", **words}
    told = subprocess.run(["cryodc"], env=asked, capture_output=True, text=True, timeout=60).stdout
    assert re.findall(r"--[\w-]+", told)[:1] == ["--dry-run"]
