import csv
import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryodc.dataset import SubtomogramDataset, ViewConfig, recorded_view
from cryodc.device import choose_device
from cryodc.errors import InputError
from cryodc.fourier import apply_weight, standardise, view_mask, wedge_from_tilt_range
from cryodc.models import Batch, TrainConfig, preset_config
from cryodc.models.dualcontrast import TERMS, DualContrast, step_a_terms, step_b_term, weighted_total
from cryodc.runs import RunFolder
from cryodc.simulation import SimulationConfig, demo_phantoms, simulate_particles
from cryodc.training import Listener, encode_particles, load_model, start_state, train
from cryodc.training.loop import log_columns
from tests.simulated import as_dataset

BOX = 16


def make_dataset(n_particles: int = 13, seed: int = 0) -> SubtomogramDataset:
    weight = wedge_from_tilt_range(BOX, -60, 60)
    noise = torch.randn(n_particles, BOX, BOX, BOX, generator=torch.Generator().manual_seed(seed))
    index = torch.zeros(n_particles, dtype=torch.long)
    return as_dataset(apply_weight(noise, weight), weight[None], index, spacing_angstrom=10.0)


def small_config(**optimisation: object) -> TrainConfig:
    settings = {"epochs": 4, "batch_size": 4, **optimisation}
    return preset_config("default", BOX, {"model": {"width": 8, "max_channels": 16}, "optimisation": settings})


def read_losses(run: RunFolder) -> list[dict[str, str]]:
    with run.log.open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_killed_run_resumes_to_the_same_losses(tmp_path: Path) -> None:
    dataset, config = make_dataset(), small_config()
    whole = RunFolder(tmp_path / "whole")
    expected = train(dataset, config, whole, seed=3)

    class KilledError(Exception):
        pass

    def kill(line: dict[str, float]) -> None:
        if line["epoch"] == 2:
            raise KilledError

    broken = RunFolder(tmp_path / "broken")
    with pytest.raises(KilledError):
        train(dataset, config, broken, seed=3, listener=Listener(on_epoch=kill))
    resumed = train(dataset, config, broken, seed=3, resume=True)
    assert read_losses(broken) == read_losses(whole)
    for a, b in zip(expected.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_same_seed_same_codes_other_seed_other_codes(tmp_path: Path) -> None:
    dataset, config = make_dataset(), small_config(epochs=1)
    codes = [
        encode_particles(train(dataset, config, RunFolder(tmp_path / str(i)), seed=s), dataset, config.views)
        for i, s in enumerate((1, 1, 2))
    ]
    np.testing.assert_array_equal(codes[0].content, codes[1].content)
    assert np.abs(codes[0].content - codes[2].content).max() > 1e-3


def test_the_log_names_every_term(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    train(make_dataset(), small_config(epochs=2), run)
    rows = read_losses(run)
    assert run.log.read_text().splitlines()[0] == ",".join(log_columns("dualcontrast"))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        parts = {name: float(row[name]) for name in TERMS}
        assert all(np.isfinite(list(parts.values())))
        assert parts["transformation_positive"] >= 0


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("shared", ["prior", "posterior"])
def test_step_b_reaches_the_encoder_only(preset: str, shared: str) -> None:
    dataset = make_dataset(6)
    overrides = {"model": {"width": 8, "max_channels": 16}, "loss": {"shared_transformation": shared}}
    config = preset_config(preset, BOX, overrides)
    model = start_state(config, 1, 0, torch.device("cpu")).model
    mask = view_mask(BOX)
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(6, config.model.content_dims)
    transformation = torch.randn(6, config.model.transformation_dims, requires_grad=True)
    step_b_term(model, content, transformation, dataset.weight(torch.arange(6)), mask, config, generator).backward()
    assert transformation.grad is None
    assert all(parameter.grad is None for parameter in model.decoder.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.transformation_mean.parameters())


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    config = preset_config("paper", BOX)
    terms = {name: torch.tensor(float(i + 1)) for i, name in enumerate(TERMS)}
    rec, kl_c, kl_z, content, negative, _, found, dependence = (float(terms[name]) for name in TERMS)
    expected = 3 * rec + 0.01 / BOX**3 * (kl_c + kl_z) + 0.06 * content + 0.06 * (negative + found)
    assert float(weighted_total(terms, config, 0)) == pytest.approx(expected)
    apart = preset_config("paper", BOX, {"loss": {"transformation_kl_weight": 0.04, "kl_warm_up_epochs": 4}})
    risen = expected + 0.01 / BOX**3 * ((0.25 - 1) * kl_c + (4 * 0.25 - 1) * kl_z)
    assert float(weighted_total(terms, apart, 1)) == pytest.approx(risen)
    independent = preset_config("paper", BOX, {"loss": {"independence_weight": 0.5}})
    assert float(weighted_total(terms, independent, 0)) == pytest.approx(expected + 0.5 * dependence)


def test_training_lowers_reconstruction_and_content_loss(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    config = SimulationConfig(n_per_map=12, box_size=BOX, spacing_angstrom=20.0, snr=2.0)
    simulated = simulate_particles(demo_phantoms(), config)
    dataset = replace(make_dataset(48), volumes=standardise(simulated.volumes))
    train(dataset, small_config(epochs=12, batch_size=24), run)
    rows = read_losses(run)
    for name in ("reconstruction", "content"):
        losses = [float(row[name]) for row in rows]
        assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3])


def test_every_particle_has_a_code_in_input_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryodc.training.encode._BATCH", 4)
    dataset = make_dataset(13)
    model = DualContrast(small_config().model).eval()
    codes = encode_particles(model, dataset, small_config().views)
    assert codes.names == dataset.particles.names
    last = recorded_view(dataset.volumes[12:], dataset.weights, view_mask(BOX), ViewConfig()).volumes
    with torch.no_grad():
        expected = model.encode(last).content.mean.numpy()
    np.testing.assert_allclose(codes.content[12:], expected, atol=1e-5)


def test_bfloat16_takes_the_same_path_and_stays_close() -> None:
    dataset = make_dataset(6)
    mask = view_mask(BOX)
    batch = Batch(dataset.volumes, dataset.weight(torch.arange(6)), mask, 0, 0)
    view = recorded_view(batch.images, batch.weights, mask, ViewConfig())
    totals = []
    for precision in ("float32", "bfloat16"):
        config = small_config(precision=precision)
        model = start_state(config, 1, 0, torch.device("cpu")).model
        terms, _ = step_a_terms(model, batch, (view, view), config, torch.Generator().manual_seed(0))
        total = weighted_total(terms, config, 0)
        total.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        totals.append(float(total.detach()))
    assert totals[0] == pytest.approx(totals[1], rel=0.02)
    assert totals[0] != totals[1]


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, config = make_dataset(), small_config(epochs=2)
    run = RunFolder(tmp_path)
    train(dataset, small_config(epochs=1), run)
    before = (run.checkpoints / "last.pt").read_bytes()

    def full(self: Path, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        train(dataset, config, run, resume=True)
    assert (run.checkpoints / "last.pt").read_bytes() == before
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["last.pt"]


def test_a_run_stopped_in_its_first_epoch_begins_again(tmp_path: Path) -> None:
    stopped, whole = RunFolder(tmp_path / "stopped"), RunFolder(tmp_path / "whole")

    def stop(n_particles: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_dataset(), small_config(epochs=1), stopped, listener=Listener(on_batch=stop))
    again = train(make_dataset(), small_config(epochs=1), stopped, resume=True)
    straight = train(make_dataset(), small_config(epochs=1), whole)
    for one, other in zip(again.parameters(), straight.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_missing_damaged_and_foreign_checkpoints_are_errors(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(InputError, match="no checkpoint"):
        load_model(run.checkpoints / "last.pt")
    train(make_dataset(), small_config(epochs=1), run)
    (run.checkpoints / "last.pt").unlink()
    with pytest.raises(InputError, match="no checkpoint"):
        train(make_dataset(), small_config(), run, resume=True)
    (run.checkpoints / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        load_model(run.checkpoints / "last.pt")
    train(make_dataset(), small_config(epochs=1), run)
    wider = preset_config("default", BOX, {"model": {"width": 16, "max_channels": 16}})
    with pytest.raises(InputError, match="another shape"):
        train(make_dataset(), wider, run, resume=True)


def test_one_particle_cannot_be_contrasted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few particles"):
        train(make_dataset(1), small_config(), RunFolder(tmp_path))


def test_cuda_by_name_without_cuda_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="CUDA"):
        choose_device("cuda")
    with pytest.raises(InputError, match="no such device"):
        choose_device("gpu0")


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {root!r})
from tests.training.test_train import make_dataset, small_config
from cryodc.device import join_team
from cryodc.runs import RunFolder
from cryodc.training import Listener, train
with join_team(torch.device("cpu")) as team:
    model = train(make_dataset(), small_config(epochs=2), RunFolder(Path({out!r})), team=team)
    total = sum(float(p.double().sum()) for p in model.parameters())
    (Path({out!r}) / f"rank{{team.rank}}").write_text(repr(total))
"""


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(TWO_PROCESSES.format(root=str(Path(__file__).parents[2]), out=str(tmp_path)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    finished = subprocess.run(
        torchrun, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text()
    assert len(read_losses(RunFolder(tmp_path))) == 2
