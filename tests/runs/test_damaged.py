"""Files of a run that are damaged: one error that names the file and the command to run again, or read right."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.look.report import report

from benchmarks.files.mutation_seeds import damage_text
from cryodc.errors import InputError
from cryodc.figures import fsc_figure, loss_figure
from cryodc.generate import GenerateRequest, generate_run, load_encoded, read_traversals
from cryodc.runs import (
    FSC_COLUMNS,
    RunFolder,
    current_classes,
    current_states,
    load_codes,
    load_config,
    load_run_dataset,
    read_table,
    require_averages,
)
from cryodc.states import find_states
from cryodc.templates import load_template_decoder
from cryodc.templates.groups import TemplateGroups
from cryodc.training import load_model


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(small_run, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("name", ["log.csv", "averages/fsc.csv"])
@pytest.mark.parametrize("content", [b"", b"class;shell;fsc\n1;2\n", b"epoch,class\n1,2,3\n4\n", b"\x00\xff\xfe" * 50])
def test_a_damaged_table_is_one_error_that_names_it(run: RunFolder, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)
    done = CliRunner().invoke(report, [str(run.path)])
    assert isinstance(done.exception, InputError), done.exception
    assert done.exception.file == run.path / name
    assert "cryodc" in (done.exception.remedy or "")


def test_words_where_numbers_belong_are_told(run: RunFolder) -> None:
    table = run.averages / "fsc.csv"
    lines = table.read_text().splitlines()
    head = lines[0].split(",").index("fsc")
    cells = lines[4].split(",")
    cells[head] = "good"
    table.write_text("\n".join([*lines[:4], ",".join(cells), *lines[5:]]) + "\n")
    with pytest.raises(InputError, match="no numbers in fsc") as error:
        find_states(run, 1)
    assert error.value.file == table


@pytest.fixture(scope="module")
def whole(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The small run with everything a run may have; each test puts back the file that it damages."""
    run = RunFolder(Path(shutil.copytree(small_run, tmp_path_factory.mktemp("whole") / "run")))
    find_states(run, 1, 2, n_starts=1)
    generate_run(run, GenerateRequest(n_columns=2, n_steps=3, n_axes=1, n_particles=2, device="cpu"))
    values = np.random.default_rng(0).normal(size=(1, 2, 16, 16, 16)).astype(np.float32)
    eye, zeros = np.eye(3, dtype=np.float32)[None], np.zeros((1, 3), np.float32)
    run.templates.mkdir(exist_ok=True)
    np.savez(run.templates / "groups.npz", **vars(TemplateGroups(zeros, values[:, 0], values[:, 1:], eye, zeros)))
    return run


def read_summaries(run: RunFolder) -> None:
    require_averages(run)
    clusters = current_classes(run)
    assert len(clusters.labels) == len(clusters.confidence) == 24
    current_states(run)
    read_traversals(run, load_codes(run), clusters.labels)


def read_settings(run: RunFolder) -> None:
    load_config(run)
    load_run_dataset(run)
    assert load_encoded(run).spacing_angstrom > 0


def read_fsc(run: RunFolder) -> None:
    fsc_figure(read_table(run.averages / "fsc.csv", FSC_COLUMNS, "cryodc average")).to_json()


def read_log(run: RunFolder) -> None:
    loss_figure(read_table(run.log, ("epoch", "seconds", "total"), "cryodc train")).to_json()


def read_weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return dict(load_model(run.checkpoints / "last.pt")[0].state_dict())


def read_groups(run: RunFolder) -> dict[str, torch.Tensor]:
    decoder = load_template_decoder(run, torch.device("cpu"))
    assert decoder is not None
    return dict(decoder.parts)


def read_codes(run: RunFolder) -> dict[str, torch.Tensor]:
    codes = load_codes(run)
    return {name: torch.from_numpy(getattr(codes, name)) for name in ("content", "transformation")}


# Archives have checksums: what is read of them is what was written.
ARCHIVES: dict[str, Callable[[RunFolder], dict[str, torch.Tensor]]] = {
    "checkpoints/last.pt": read_weights,
    "templates/groups.npz": read_groups,
    "codes.npz": read_codes,
}
TEXTS: dict[str, Callable[[RunFolder], None]] = {
    "config.yaml": read_settings,
    "log.csv": read_log,
    "averages/fsc.csv": read_fsc,
    "clusters/summary.json": read_summaries,
    "averages/summary.json": read_summaries,
    "states/class001/summary.json": read_summaries,
    "generated/class001/summary.json": read_summaries,
}


def flip(content: bytes, rng: random.Random) -> bytes:
    """Flip bits anywhere, or where headers and the table of an archive lie."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 4])):
        place = rng.choice(["anywhere", "head", "tail"])
        reach = len(damaged) if place == "anywhere" else min(1500, len(damaged))
        at = rng.randrange(reach)
        damaged[-1 - at if place == "tail" else at] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def damage(content: bytes, name: str, number: int) -> bytes:
    """Nothing, noise, a part, flipped bits, or, of texts, other words and lines."""
    rng = random.Random(f"{name} {number}")
    if number < 2:
        return rng.randbytes(200 * number)
    ways = [lambda: content[: rng.randrange(len(content))], lambda: flip(content, rng)]
    if name in TEXTS:
        ways += [lambda: damage_text(content, rng)] * 3
    return rng.choice(ways)()


@pytest.mark.parametrize("name", [*ARCHIVES, *TEXTS])
def test_a_damaged_file_of_a_run_is_one_error_or_is_read_right(name: str, whole: RunFolder) -> None:
    path = whole.path / name
    content, read = path.read_bytes(), {**ARCHIVES, **TEXTS}[name]
    expected: Any = read(whole)
    n_refused = 0
    try:
        for number in range(60):
            path.write_bytes(damage(content, name, number))
            found: Any = None
            refused: InputError | None = None
            try:
                found = read(whole)
            except InputError as error:
                refused = error
            n_refused += refused is not None
            assert refused is None or refused.file is not None, number
            if name in ARCHIVES and refused is None:
                assert all(torch.equal(found[key], expected[key]) for key in expected), number
    finally:
        path.write_bytes(content)
    assert n_refused >= 10


def test_final_classes_of_another_number_of_particles_are_refused(run: RunFolder) -> None:
    summary = require_averages(run).model_dump(by_alias=True, mode="json")
    summary["classification"] = {"verdict": "as the test says", "labels": [0, 1], "confidence": [1.0, 1.0]}
    (run.averages / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="2 labels of 24 particles"):
        current_classes(run)
