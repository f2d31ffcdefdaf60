"""A job of RELION: how its parameters become options of verbs, and what it says of its end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import starfile
from click.testing import CliRunner, Result
from cryodc_cli.main import load_verb
from cryodc_cli.take_away.relion_job import _by_verb

from cryodc.errors import InputError

COMMANDS = {verb: load_verb(verb) for verb in ("train", "cluster", "average", "report")}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # RELION passes a value of two words without quotes.
        ("--tilt_range -60 60", {"train": ["--tilt-range", "-60", "60"]}),
        ("--k 4", {"cluster": ["-k", "4"]}),
        ("--classify", {"average": ["--classify"]}),
        ("--classify Yes --junk No", {"average": ["--classify", "--no-junk"]}),
        ("--classify no --invert No", {"average": ["--no-classify"]}),
        ("--seed 3", {verb: ["--seed", "3"] for verb in ("train", "cluster", "average")}),
        ("--symmetry C3 2:D7", {"average": ["--symmetry", "C3", "--symmetry", "2:D7"]}),
        ("--tilt-axis x", {"train": ["--tilt-axis", "x"]}),
    ],
)
def test_a_parameter_goes_to_every_verb_that_has_such_an_option(given: str, expected: dict[str, list[str]]) -> None:
    words = _by_verb(COMMANDS, tuple(given.split()))
    assert {verb: found for verb, found in words.items() if found} == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--tilt_rang -60 60", "--tilt_range"),
        ("--out elsewhere", "no option"),
        ("--in_mics micrographs.star", "only input"),
        ("--tilt_range -60", "expected: 2"),
        ("--k 2 3", "expected: 1"),
        ("--k", "found:    0"),
        ("--classify maybe", "Yes or No"),
        ("stray", "without a label"),
    ],
)
def test_a_wrong_parameter_is_told(given: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        _by_verb(COMMANDS, tuple(given.split()))
    assert said in str(error.value)


def marks(folder: Path) -> list[str]:
    return sorted(path.name.removeprefix("RELION_JOB_") for path in folder.glob("RELION_JOB_*"))


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the job in a project folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Result:
        texts = [str(word) for word in ("--o", "External/job001/", "--j", 1, *words)]
        return CliRunner().invoke(load_verb("relion-job"), texts)

    return call


def test_a_job_leaves_what_later_jobs_take(run: Run, small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "model: {width: 8, max_channels: 16}\noptimisation: {epochs: 1, batch_size: 8}\n"
    )
    folder = tmp_path / "External/job001"
    folder.mkdir(parents=True)
    (folder / "RELION_JOB_EXIT_FAILURE").touch()
    (folder / "RELION_JOB_ABORT_NOW").touch()
    result = run("--in_parts", small_run.parent / "sim/particles.star", "--config", "small.yaml", "--k", 2)
    assert result.exit_code == 0, result.output
    assert marks(folder) == ["EXIT_SUCCESS"]
    assert "Next:" not in result.output
    nodes = starfile.read(folder / "RELION_OUTPUT_NODES.star")
    assert all((tmp_path / name).is_file() for name in nodes.rlnPipeLineNodeName)
    assert nodes.rlnPipeLineNodeName[0] == "External/job001/particles.star"
    assert nodes.rlnPipeLineNodeTypeLabel[0] == "ParticleGroupMetadata.star.relion"
    written = starfile.read(folder / "particles.star")["particles"]
    assert set(written.rlnClassNumber) == {1, 2}
    trained = (folder / "run/codes.npz").stat().st_mtime_ns
    averaged = (folder / "run/averages/summary.json").read_text()
    again = run("--in_parts", small_run.parent / "sim/particles.star", "--config", "small.yaml", "--k", 3)
    assert again.exit_code == 0, again.output
    assert (folder / "run/codes.npz").stat().st_mtime_ns == trained
    assert (folder / "run/averages/summary.json").read_text() != averaged
    assert set(starfile.read(folder / "particles.star")["particles"].rlnClassNumber) == {1, 2, 3}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--in_parts", "nothing.star"],
        ["--in_parts", "nothing.star", "--no_such", 1],
        ["--in_parts", "nothing.star", "--epochs", "many"],
    ],
)
def test_a_mistake_marks_the_job_as_failed_before_anything_is_computed(
    run: Run, tmp_path: Path, words: list[object]
) -> None:
    result = run(*words)
    assert result.exit_code != 0
    assert marks(tmp_path / "External/job001") == ["EXIT_FAILURE"]
    assert not (tmp_path / "External/job001/run").exists()
