"""What ``cryodc cluster`` prints: no figure that is forced, and a warning where classes are of a few particles."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryodc_cli.learn.cluster import cluster


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def printed(run: Path, k: int) -> str:
    done = CliRunner().invoke(cluster, [str(run), "-k", str(k)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_one_class_of_all_has_no_confidence(run: Path) -> None:
    row = next(line for line in printed(run, 1).splitlines() if "100.0%" in line)
    assert "–" in row
    assert "1.00" not in row


def test_two_classes_have_one_each(run: Path) -> None:
    assert "–" not in printed(run, 2)


def test_classes_of_a_few_particles_are_warned_of(run: Path) -> None:
    assert "warning: -k 3 leaves fewer than ten particles a class: 24 in all" in printed(run, 3).replace("\n", " ")
    assert "warning" not in printed(run, 2)
