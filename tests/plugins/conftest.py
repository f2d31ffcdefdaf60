import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Answer = Callable[..., Any]


@pytest.fixture
def ask_python(tmp_path: Path) -> Answer:
    """Asks another program's Python, in which cryodc stands as pip would have installed it, and gives its answer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    site, programs = tmp_path / "site", tmp_path / "bin"
    info = site / f"cryodc-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cryodc\nVersion: {project['version']}\n")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (site / "cryodc").symlink_to(ROOT / "cryodc")
    programs.mkdir()
    own = os.environ.get("PYTHONPATH", "")
    (programs / "cryodc").write_text(f'#!/bin/sh\nPYTHONPATH="{own}" exec {sys.executable} -m cryodc_cli.main "$@"\n')
    (programs / "cryodc").chmod(0o755)

    def ask(python: str, script: str, folder: Path, **variables: str) -> Any:
        path = f"{programs}:{os.environ['PATH']}"
        environment = {**os.environ, "PYTHONPATH": str(site), "PATH": path, **variables}
        done = subprocess.run(
            [python, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return json.loads(done.stdout.splitlines()[-1])

    return ask


def python_with(package: str, variable: str) -> str:
    """A Python that has a package: this one, or that which an environment variable names; skips where there is none."""
    named = os.environ.get(variable)
    if named is not None:
        return named
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed; {variable} names a Python that has it")
    return sys.executable
