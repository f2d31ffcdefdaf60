"""A command that is stopped says what to type to go on, and exits as shells expect."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryodc_cli.stopping import Stopped, how_to_go_on, stoppable

_WAITS = """
import os, sys, time
from cryodc_cli import main
def wait():
    print("waiting", flush=True)
    time.sleep(60)
main.cli.main = lambda prog_name: wait()
sys.argv = ["cryodc", "cluster", "my run"]
main.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_how_to_go_on(number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said == "Stopped. To begin this again: cryodc cluster 'my run'\n"


def test_training_that_has_begun_is_gone_on_with(tmp_path: Path) -> None:
    words = ["train", "a.star", "--out", str(tmp_path)]
    assert how_to_go_on(words) == f"To begin this again: cryodc train a.star --out {tmp_path}"
    (tmp_path / "config.yaml").write_text("cryodc_version: '1'")
    assert how_to_go_on(words) == f"To go on: cryodc train a.star --out {tmp_path} --resume"
    assert how_to_go_on([*words, "--resume"]) == f"To go on: cryodc train a.star --out {tmp_path} --resume"


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
