"""Figures of ``cryodc bench``: of each step by itself, in numbers that follow from what was measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.take_away.bench import bench

from cryodc.bench import STAGES, BenchRequest, Figure, run_bench
from cryodc.bench import bench as bench_module
from cryodc.bench.stages import NEEDS, Work
from cryodc.dry_run import Planned, planning
from cryodc.errors import InputError
from cryodc.simulation import phantom, write_simulation


def test_every_step_goes_over_all_particles_or_those_of_a_class(tmp_path: Path) -> None:
    """In this process, so that all run here; two classes of equal size."""
    config = BenchRequest(boxes=(16,), n_particles=48).simulation(16)
    write_simulation({name: phantom(name) for name in ("bilobe", "barrel")}, config, tmp_path / "sim", with_poses=True)
    work = Work(tmp_path, 0, torch.device("cpu"))
    found = {stage: STAGES[stage](work)() for stage in STAGES if stage not in ("templates", *NEEDS)}
    of_class = {"align", "poses", "average", "states"}
    assert {stage: done.n_particles for stage, done in found.items()} == {
        stage: 24 if stage in of_class else 48 for stage in found
    }
    error = found["poses"].error_degrees
    assert error is not None
    assert error < 20


def test_particles_are_of_as_many_classes_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def look(request: BenchRequest, folder: Path, *_: object) -> list[Figure]:
        sizes.extend(np.bincount(Work(folder, 0, torch.device("cpu")).truth().labels))
        return []

    monkeypatch.setattr(bench_module, "_measure_all", look)
    run_bench(BenchRequest(boxes=(16,), n_particles=80, n_classes=4, device="cpu"))
    assert sizes == [20, 20, 20, 20]


def test_a_step_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    answer = CliRunner().invoke(
        bench,
        [
            "--box",
            "16",
            "--particles",
            "60",
            "--classes",
            "3",
            "--stage",
            "cluster",
            "--device",
            "cpu",
            "--out",
            str(out),
        ],
    )
    assert answer.exit_code == 0, answer.output
    told = json.loads(out.read_text())
    (figure,) = told["figures"]
    assert (figure["stage"], figure["box_size"], figure["n_particles"]) == ("cluster", 16, 60)
    assert told["n_classes"] == 3
    assert told["threads"] == torch.get_num_threads()
    assert told["torch"] == torch.__version__
    assert figure["vram_bytes"] is None
    assert figure["seconds"] > 0
    assert figure["per_second"] == pytest.approx(60 / figure["seconds"], rel=0.01)
    # Python with torch takes this much, and a step takes no less than what was there before it.
    assert 1e8 < figure["ram_before_bytes"] <= figure["ram_bytes"] < 3e9
    assert "cluster" in answer.output


def test_particles_a_second_are_of_the_clock_and_of_all_threads() -> None:
    figure = Figure("align", 32, 100, 4.0, 8.0, 1, 1)
    assert figure.per_second == 25.0
    assert figure.per_cpu_second == 12.5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stages": ("denoise",)}, "no such step"),
        ({"boxes": (33,)}, "box size"),
        ({"n_particles": 3}, "too few particles"),
        ({"n_classes": 7}, "so many classes"),
        ({"n_classes": 4, "n_particles": 60}, "too few particles"),
    ],
)
def test_what_cannot_be_measured_is_one_error(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        BenchRequest(**settings)


def test_a_program_that_is_not_installed_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "relion" not in BenchRequest().chosen
    with pytest.raises(InputError, match="relion is not installed"):
        BenchRequest(stages=("relion",))


def test_a_plan_simulates_nothing(tmp_path: Path) -> None:
    with planning(), pytest.raises(Planned):
        run_bench(BenchRequest(tmp_path / "bench.json"))
    assert list(tmp_path.iterdir()) == []
