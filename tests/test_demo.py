from pathlib import Path

import pytest
from click.testing import CliRunner
from cryodc_cli.take_away.demo import demo

from cryodc.demo import DemoConfig, DemoListener, run_demo
from cryodc.errors import InputError
from cryodc.particles import read_particles


@pytest.fixture
def asked(monkeypatch):
    """Averaging and reporting replaced by a record of what was asked of them."""
    calls = {}
    monkeypatch.setattr("cryodc.averaging.average_run", lambda run, request, progress: calls.update(average=request))
    monkeypatch.setattr("cryodc.report.write_report", lambda run: calls.update(report=run))
    return calls


def test_the_story_runs_in_order_and_knows_no_poses(tmp_path, asked):
    heard, steps = [], []
    listener = DemoListener(on_stage=lambda name, n_steps: heard.append((name, n_steps)), on_steps=steps.append)
    result = run_demo(tmp_path / "demo", DemoConfig(n_per_protein=4, epochs=1), listener)
    names = ["Simulating", "Training", "Clustering", "Averaging", "Reporting", "Comparing with the truth"]
    assert [name for name, _ in heard] == names
    assert heard[0] == ("Simulating", 16)
    # Every particle is simulated once and seen once per epoch.
    assert sum(steps) == 16 + heard[1][1] == 32
    assert read_particles(tmp_path / "demo" / "sim" / "particles.star").poses is None
    assert asked["average"].ignore_poses is True
    assert asked["report"] == result.run
    assert result.evaluation.clusters.n_true == 4
    assert result.truth.exists()


def test_the_command_prints_found_against_true(tmp_path, asked, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    out = tmp_path / "demo"
    result = CliRunner().invoke(demo, ["--out", str(out), "--n", "4", "--epochs", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "accuracy" in result.output


def test_a_folder_that_holds_anything_is_refused(tmp_path, asked):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="refusing to overwrite"):
        run_demo(tmp_path, DemoConfig(n_per_protein=4, epochs=1))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_particles_of_the_same_names_in_the_current_folder_are_not_taken_for_the_demos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "subtomograms").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="other particles"):
        run_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
