"""What every benchmark's command line has in common."""

import argparse
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cryodc.errors import InputError

Overrides = dict[str, dict[str, Any]]
"""Settings by section and name, in place of a preset's."""


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {number}")
    return number


def hardware() -> dict[str, Any]:
    """What a figure was measured on."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def run_steps(steps: dict[str, tuple[list[str], Path]]) -> dict[str, int]:
    """Run ``cryodc`` step by step, as a user types it; CPU seconds of every step whose product was not there."""
    seconds = {}
    for name, (words, product) in steps.items():
        if not product.exists():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-m", "cryodc_cli.main", *words], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[name] = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return seconds


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; a user's mistake is one line and exit code 2, without a traceback."""
    try:
        main()
    except InputError as error:
        print("Error: " + "; ".join(" ".join(line.split()) for line in str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
