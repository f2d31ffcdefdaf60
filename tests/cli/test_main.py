import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from cryodc_cli.main import VERBS, main

CRYODC = [sys.executable, "-m", "cryodc_cli.main"]


def cryodc(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([*CRYODC, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)


def test_help_is_quick_and_does_not_import_torch() -> None:
    probe = (
        "import sys; sys.argv = ['cryodc', '--help']\n"
        "from cryodc_cli.main import cli\n"
        "try: cli()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'scipy', 'napari', 'plotly'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=60).returncode == 0
    # Processor time: on an idle machine also the time a user waits, and the same on a busy one.
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = cryodc("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert finished.returncode == 0
    assert min(seconds) < 0.3


def test_help_lists_every_verb_under_its_group() -> None:
    text = cryodc("--help").stdout
    for name in (*VERBS, "Prepare", "Learn", "Look", "Take away"):
        assert name in text


def test_a_verb_has_help_with_an_example() -> None:
    finished = cryodc("train", "--help")
    assert finished.returncode == 0, finished.stderr
    assert "Example: cryodc train" in " ".join(finished.stdout.split())


def test_the_documented_help_is_what_the_verbs_say_each_with_an_example() -> None:
    from cryodc_cli.main import VERBS
    from cryodc_cli.reference import reference

    page = reference()
    for verb in VERBS:
        assert f"Example: cryodc {verb}" in " ".join(page.split())
    written = Path(__file__).parents[2] / "docs" / "commands.md"
    assert written.read_text(encoding="utf-8") == page, "run: python -m cryodc_cli.reference > docs/commands.md"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nothing.star"], "nothing.star"),
        (["import", "nothing.star"], "nothing.star"),
        (["pack", "nothing.star"], "nothing.star"),
        (["pack", "nothing.star", "--box", "16", "--spacing", "20"], "exclude each other"),
        (["train", "nothing.star", "--no-pack", "--pack", "."], "exclude each other"),
        (["train", "nothing.star", "--no-network", "--epochs", "3"], "exclude each other"),
        (["train", "nothing.star", "--pack", "nowhere.pack"], "nowhere.pack"),
        (["cluster"], "no run in this folder"),
        (["cluster", "nowhere/"], "not a run folder"),
        (["generate", "nowhere/"], "not a run folder"),
        (["average"], "no run in this folder"),
        (["report"], "no run in this folder"),
        (["train", "a.star", "--epochs", "many"], "many"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["cryodc", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_process_ends_with_one_message_and_exit_code_2(tmp_path: Path) -> None:
    finished = cryodc("train", "nothing.star", cwd=tmp_path)
    assert finished.returncode == 2
    assert "nothing.star" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []
