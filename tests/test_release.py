"""What is released: a source archive, the wheel made from it, and an empty environment in which that works."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = f"cryodc-{PROJECT['version']}"


def run(*words: object, cwd: Path) -> str:
    """Run a program as if this clone were not there."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    script = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    return out / run(sys.executable, "-c", script, cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone; what it depends on is borrowed, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("release")
    clone = folder / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    for name in ("cryodc", "cli"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    archive = build("sdist", clone, folder)
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "source", filter="data")
    wheel = build("wheel", folder / "source" / NAME, folder)
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_the_command_of_the_wheel_works_on_particles(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin/cryodc"
    assert PROJECT["version"] in run(command, "--version", cwd=tmp_path)
    run(command, "simulate", "--n", 2, "--phantoms", "bar", "--box", 16, "--spacing", 15, "--out", "sim", cwd=tmp_path)
    assert "2" in run(command, "check", "sim/particles.star", cwd=tmp_path)
    plan = run(command, "train", "sim/particles.star", "--out", "run", "--dry-run", cwd=tmp_path)
    assert "2 particles of box 16" in plan
    assert not (tmp_path / "run").exists()


def test_the_wheel_has_everything_that_a_clone_has(installed: Path, tmp_path: Path) -> None:
    script = """
import cryodc, cryodc_cli, json, pathlib
from importlib.metadata import distribution
found = distribution("cryodc")
print(json.dumps({
    "home": cryodc.__file__,
    "files": sorted(str(file) for file in found.files),
    "entries": sorted(f"{e.group}: {e.name} = {e.value}" for e in found.entry_points),
    "version": found.version,
}))
"""
    found = json.loads(run(installed / "bin/python", "-c", script, cwd=tmp_path))
    assert Path(found["home"]).is_relative_to(installed)
    assert found["version"] == PROJECT["version"]
    for top, package in (("cryodc", "cryodc"), ("cli", "cryodc_cli")):
        wanted = {
            f"{package}/{file.relative_to(ROOT / top)}"
            for file in (ROOT / top).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
        assert wanted <= set(found["files"])
    entries = {f"console_scripts: {name} = {value}" for name, value in PROJECT["scripts"].items()}
    for group, named in PROJECT["entry-points"].items():
        entries |= {f"{group}: {name} = {value}" for name, value in named.items()}
    assert set(found["entries"]) == entries
