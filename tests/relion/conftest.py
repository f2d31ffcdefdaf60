import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Relion = Callable[..., str]


@pytest.fixture(scope="session")
def relion() -> Relion:
    """Runs a program of RELION in a folder and gives what it printed; a program that fails fails the test."""
    if shutil.which("relion_refine") is None:
        missing = "RELION's programs are not installed: apt-get install relion"
        if os.environ.get("CRYODC_REQUIRE_RELION") == "1":
            pytest.fail(missing)
        pytest.skip(missing)

    def run(program: str, folder: Path, **options: object) -> str:
        command = [f"relion_{program}"]
        for name, value in options.items():
            # `--3d_rot` is no name in Python.
            command += [f"--{name.removeprefix('_')}", *([] if value is True else [str(value)])]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    return run
