"""Which folders become runs, what a run may go on with, and what is kept when something fails late."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryodc.alignment import References
from cryodc.clustering import cluster_run
from cryodc.device import choose_device
from cryodc.errors import InputError
from cryodc.fourier import NoiseModel
from cryodc.generate import load_decoding, load_encoded
from cryodc.runs import RunFolder, load_codes, load_config, run_status
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
from cryodc.templates import run as templates_run
from cryodc.templates import templates_left_out
from cryodc.templates.groups import N_PLACE, GroupRule, TemplateGroups
from cryodc.templates.match import Search
from cryodc.templates.matcher import Matcher, TemplateCode
from cryodc.training import Listener, TrainRequest, prepare_run, train_run

_N = 20
SMALL: dict[str, dict[str, Any]] = {
    "model": {"width": 8, "max_channels": 16},
    "optimisation": {"epochs": 2, "batch_size": 6, "encoding_views": 1},
    "templates": {"particles_per_template": 10, "n_templates": 2},
}


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "sim"
    config = SimulationConfig(n_per_map=_N, snr=0.5, box_size=16, spacing_angstrom=20.0, n_tomograms=1)
    write_simulation(choose_proteins(["wheel"], []), config, folder)
    return folder / "particles.star"


def request(star: Path, out: Path, resume: bool = False, **sections: dict[str, Any]) -> TrainRequest:
    overrides = {name: {**SMALL.get(name, {}), **sections.get(name, {})} for name in {*SMALL, *sections}}
    return TrainRequest(star, out, overrides=overrides, packed=False, device="cpu", resume=resume)


def some_templates() -> TemplateCode:
    maps = np.zeros((1, 16, 16, 16), np.float32)
    groups = TemplateGroups(
        np.zeros((1, 1), np.float32),
        maps,
        np.zeros((1, 0, 16, 16, 16), np.float32),
        np.eye(3, dtype=np.float32)[None],
        np.zeros((1, 3), np.float32),
    )
    references = References(torch.zeros(1, 2, 16, 16, 16), torch.zeros(1, 9))
    matcher = Matcher(
        references,
        NoiseModel(torch.ones(9)),
        6.0,
        [],
        np.zeros(1),
        np.eye(1),
        None,
        None,
        Search(torch.eye(3)[None], torch.zeros(1, 3)),
        GroupRule(np.zeros((1, 1)), np.zeros(1), torch.zeros(1, 2, 16, 16, 16), np.zeros(1, dtype=np.int64)),
        tuple(str(number) for number in range(_N)),
        np.ones(_N, dtype=np.int64),
        groups,
    )
    return TemplateCode(np.ones((_N, 1), np.float32), np.ones((_N, N_PLACE), np.float32), groups, maps, matcher)


def test_a_run_without_a_finished_epoch_is_begun_again(star: Path, tmp_path: Path) -> None:
    prepare_run(request(star, tmp_path / "run"))
    again = prepare_run(request(star, tmp_path / "run", optimisation={"epochs": 1}))
    assert load_config(again.run)["optimisation"]["epochs"] == 1


def test_a_finished_epoch_is_never_begun_again(star: Path, tmp_path: Path) -> None:
    train_run(request(star, tmp_path / "run", templates={"n_templates": 0}))
    with pytest.raises(InputError, match="never overwritten"):
        prepare_run(request(star, tmp_path / "run"))


@pytest.mark.parametrize("name", ["thesis.tex", "particles.star", "log.csv", "config.yaml"])
def test_a_folder_with_files_of_others_is_no_run(name: str, star: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text("epochs: 3\n")
    with pytest.raises(InputError, match="other files") as raised:
        prepare_run(request(star, tmp_path))
    assert raised.value.found == name
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "epochs: 3\n"


def test_a_run_goes_on_with_more_epochs(star: Path, tmp_path: Path) -> None:
    none = {"n_templates": 0}
    train_run(request(star, tmp_path / "run", templates=none))
    run, _ = train_run(request(star, tmp_path / "run", resume=True, templates=none, optimisation={"epochs": 3}))
    assert [line.split(",")[0] for line in run.log.read_text().splitlines()] == ["epoch", "1", "2", "3"]
    assert load_config(run)["optimisation"]["epochs"] == 3


def test_a_run_does_not_go_back_to_fewer_epochs(star: Path, tmp_path: Path) -> None:
    train_run(request(star, tmp_path / "run", templates={"n_templates": 0}))
    with pytest.raises(InputError, match="more epochs") as raised:
        train_run(request(star, tmp_path / "run", resume=True, optimisation={"epochs": 1}))
    assert raised.value.expected == "--epochs 2 or more"


def test_settings_that_are_not_named_are_those_a_run_began_with(star: Path, tmp_path: Path) -> None:
    first = prepare_run(request(star, tmp_path / "run"))
    bare = TrainRequest(star, tmp_path / "run", packed=False, device="cpu", resume=True)
    assert prepare_run(bare).config == first.config


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [
        ("optimisation", "batch_size", 3),
        ("loss", "temperature", 0.3),
        ("model", "width", 16),
        ("views", "fresh_noise", 0.3),
    ],
)
def test_a_refusal_names_the_one_setting_that_differs(
    section: str, setting: str, value: float, star: Path, tmp_path: Path
) -> None:
    first = prepare_run(request(star, tmp_path / "run"))
    with pytest.raises(InputError) as raised:
        prepare_run(request(star, tmp_path / "run", resume=True, **{section: {setting: value}}))
    error, name = raised.value, f"{section}.{setting}"
    assert error.problem == f"this run began with another {name}"
    assert (error.expected, error.found) == (
        f"{name} {load_config(first.run)[section][setting]}",
        f"{name} {value}",
    )


@pytest.mark.parametrize(
    ("option", "name"),
    [({"seed": 4}, "seed"), ({"tilt_axis": "x"}, "input.tilt_axis"), ({"invert": True}, "input.invert")],
)
def test_a_refusal_names_the_one_option_that_differs(
    option: dict[str, Any], name: str, star: Path, tmp_path: Path
) -> None:
    prepare_run(request(star, tmp_path / "run"))
    resumed = TrainRequest(star, tmp_path / "run", packed=False, device="cpu", resume=True, **option)
    with pytest.raises(InputError) as raised:
        prepare_run(resumed)
    assert raised.value.problem == f"this run began with another {name}"
    assert raised.value.found == f"{name} {next(iter(option.values()))}"


def test_what_templates_tell_is_there_before_the_network(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates_run, "learn_templates", lambda *_, **__: some_templates())

    def kill(n_particles: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(request(star, tmp_path / "run"), Listener(on_batch=kill))
    run = RunFolder(tmp_path / "run")
    kept = load_codes(run)
    assert kept.template_content is not None
    assert not kept.of_network
    assert (run_status(run).steps[0].state, run_status(run).steps[0].told) == ("begun", "templates, 0 of 2 epochs")
    cluster_run(run, 2)
    train_run(request(star, tmp_path / "run", resume=True))
    resumed = load_codes(run)
    assert resumed.of_network
    assert resumed.template_content is not None
    # The network changes nothing of what was clustered.
    assert [step.state for step in run_status(run).steps[:2]] == ["done", "done"]


def test_a_network_may_be_left_out_and_trained_later(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates_run, "learn_templates", lambda *_, **__: some_templates())
    run, codes = train_run(request(star, tmp_path / "run", optimisation={"epochs": 0}))
    assert codes.template_content is not None
    assert not codes.of_network
    assert not run.log.exists()
    assert not run.checkpoints.exists()
    assert (run_status(run).steps[0].state, run_status(run).steps[0].told) == ("done", "templates, no network")
    with pytest.raises(InputError, match="no codes of a network") as raised:
        load_decoding(load_encoded(run), "network")
    assert "--resume --epochs" in raised.value.remedy
    load_decoding(load_encoded(run))
    train_run(request(star, tmp_path / "run", resume=True, optimisation={"epochs": 1}))
    assert load_codes(run).of_network
    load_decoding(load_encoded(run), "network")


@pytest.mark.parametrize(
    "sections",
    [
        {"templates": {"n_templates": 0}},
        {"templates": {"particles_per_template": 60}},
        {"model": {"name": "vae"}, "templates": {"n_templates": 0}},
    ],
)
def test_neither_network_nor_templates_is_an_error_before_anything_is_written(
    sections: dict[str, Any], star: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as raised:
        prepare_run(request(star, tmp_path / "run", optimisation={"epochs": 0}, **sections))
    assert raised.value.remedy == "leave --no-network out"
    assert not (tmp_path / "run").exists()


def test_templates_that_fail_without_a_network_are_an_error(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates_run, "learn_templates", lambda *_, **__: None)
    with pytest.raises(InputError, match="no templates could be learned") as raised:
        train_run(request(star, tmp_path / "run", optimisation={"epochs": 0}))
    assert raised.value.found is not None
    assert "no two groups of particles could be aligned" in raised.value.found


@pytest.mark.parametrize("error", [np.linalg.LinAlgError("SVD did not converge"), torch._C._LinAlgError("non-finite")])
def test_templates_that_do_not_hold_a_fit_are_left_out_with_a_warning(
    error: Exception, star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(templates_run, "learn_templates", fail)
    said: list[str] = []
    run, codes = train_run(request(star, tmp_path / "run"), Listener(on_warning=said.append))
    assert codes.template_content is None
    assert len(load_codes(run)) == _N
    assert len(said) == 1
    assert str(error) in said[0]
    assert "codes are those of the network" in said[0]


def test_templates_of_numbers_that_are_none_are_left_out(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(*_: object, **__: object) -> TemplateCode:
        made = some_templates()
        made.placed[3] = np.nan
        return made

    monkeypatch.setattr(templates_run, "learn_templates", learn)
    said: list[str] = []
    run, codes = train_run(request(star, tmp_path / "run"), Listener(on_warning=said.append))
    assert codes.template_content is None
    assert len(said) == 1
    assert [path.name for path in run.templates.iterdir()] == ["left_out.txt"]
    assert templates_left_out(run) == said[0]


def test_too_few_particles_for_templates_are_said_to_be(star: Path, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = request(star, tmp_path / "run", templates={"particles_per_template": 60})
    train_run(wanted, Listener(on_warning=said.append))
    assert said == [
        "templates were left out because 20 particles are fewer than 120: codes are those of the network, which tell "
        "less apart"
    ]


def test_templates_may_be_left_out_of_a_resumed_run(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates_run, "learn_templates", lambda *_, **__: some_templates())
    run, codes = train_run(request(star, tmp_path / "run"))
    assert codes.template_content is not None
    train_run(request(star, tmp_path / "run", resume=True, templates={"n_templates": 0}))
    assert load_codes(run).template_content is None
    assert list(run.templates.iterdir()) == []


@pytest.mark.parametrize("name", ["mps", "xpu", "meta", "mps:0", "vulkan"])
def test_a_device_of_another_kind_is_one_error_and_no_folder(name: str, star: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        choose_device(name)
    assert raised.value.expected == "auto, cpu, cuda or cuda:N"
    with pytest.raises(InputError):
        train_run(TrainRequest(star, tmp_path / "run", device=name))
    assert not (tmp_path / "run").exists()
