"""Particles that classification leaves in no class: every verb takes them, none gives them a class or a pose."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.learn.average import average
from cryodc_cli.learn.states import states
from cryodc_cli.take_away.export import export
from cryodc_cli.take_away.map_back import map_back
from cryodc_cli.take_away.select import select

from cryodc.averaging.final_classes import FinalClasses
from cryodc.report import write_report
from cryodc.runs import RunFolder, load_clusters
from cryodc.simulation import read_truth
from cryodc.star import particle_block, read_star

NOTHING = [1, 5, 6]


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The small run, classified as the truth says but for three particles that no reference explains."""
    folder = RunFolder(tmp_path_factory.mktemp("unassigned") / "run")
    shutil.copytree(small_run, folder.path)
    before = load_clusters(folder)
    truth = read_truth(small_run.parent / "sim" / "truth.csv")
    labels = truth.labels.copy()
    labels[NOTHING] = -1

    def classified(dataset: object, clusters: object, *_: object, **__: object) -> FinalClasses:
        posterior = np.eye(2)[truth.labels]
        fields = {**vars(before), "labels": labels, "confidence": posterior.max(axis=1), "verdict": "2 classes"}
        summary = {"verdict": "2 classes", "unassigned": len(NOTHING)}
        return FinalClasses(type(before)(**fields), list(torch.zeros(2, 24, 24, 24)), posterior * 9, posterior, summary)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryodc.averaging.average.classify_run", classified)
        done = CliRunner().invoke(average, [str(folder.path), "--classify", "--device", "cpu"])
    assert done.exception is None
    assert "3 particles unassigned" in done.output
    return folder


def numbers(star: Path) -> list[str]:
    return particle_block(read_star(star)).column("rlnClassNumber")


def test_they_are_class_0_of_the_star_and_in_no_average(run: RunFolder) -> None:
    found = numbers(run.averages / "particles.star")
    assert [i for i, number in enumerate(found) if number == "0"] == NOTHING
    classes = json.loads((run.averages / "summary.json").read_text())["classes"]
    assert [row["n_particles"] for row in classes] == [found.count("1"), found.count("2")]
    assert sum(row["fraction"] for row in classes) == pytest.approx(1.0)


def test_select_takes_final_classes_and_says_how_many_have_none(run: RunFolder, tmp_path: Path) -> None:
    final = numbers(run.averages / "particles.star")
    out = tmp_path / "one.star"
    done = CliRunner().invoke(select, [str(run.path), "--keep", "1", "--out", str(out)])
    assert numbers(out) == ["1"] * final.count("1")
    assert any(line.split()[:2] == ["unassigned", "3"] for line in done.output.splitlines())
    # Sure of a class is only who has one.
    CliRunner().invoke(select, [str(run.path), "--min-confidence", "0.5", "--out", str(tmp_path / "sure.star")])
    assert numbers(tmp_path / "sure.star") == [number for number in final if number != "0"]


def test_export_and_map_back_leave_them_out_and_say_so(run: RunFolder, tmp_path: Path) -> None:
    done = CliRunner().invoke(export, [str(run.path), "--relion", "--dynamo", "--out", str(tmp_path / "out")])
    assert done.exception is None, done.output
    assert "3 unassigned particles are left out" in done.output
    assert sorted(set(numbers(tmp_path / "out/particles.star"))) == ["1", "2"]
    n_kept = len(numbers(run.averages / "particles.star")) - len(NOTHING)
    assert len((tmp_path / "out/dynamo.tbl").read_text().splitlines()) == n_kept
    done = CliRunner().invoke(map_back, [str(run.path), "--bin", "4", "--out", str(tmp_path / "mapped")])
    assert done.exception is None, done.output
    told = [int(line.split()[-1]) for line in done.output.splitlines() if "unassigned" in line]
    assert sum(told) == len(NOTHING)


def test_states_are_of_the_final_class(run: RunFolder) -> None:
    done = CliRunner().invoke(states, [str(run.path), "--class", "1", "-n", "2", "--starts", "1"])
    assert done.exception is None, done.output
    summary = json.loads((run.states / "class001/summary.json").read_text())
    assert summary["n_particles"] == numbers(run.averages / "particles.star").count("1")
    refused = CliRunner().invoke(states, [str(run.path), "--class", "0"])
    assert refused.exit_code == 2


def test_the_report_shows_final_classes_and_counts_the_rest(run: RunFolder) -> None:
    page = write_report(run).read_text()
    assert "of earlier classes" not in page
    assert "3 particles are in no class" in page
    figures = page.split('"content"', 1)[1]
    assert "unassigned" in figures
