"""A script that several processes run together, as ``torchrun`` starts them."""

import os
import subprocess
import sys
from pathlib import Path

N_PROCESSES = 2


def run_together(script: Path, text: str, *arguments: Path) -> str:
    """Run a script in two processes on one thread each; what they printed.

    Parameters
    ----------
    script
        Where it is written.
    text
        Of the script.
    arguments
        Of the script.
    """
    script.write_text(text)
    places = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={N_PROCESSES}"]
    finished = subprocess.run(
        [*torchrun, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=480,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)},
    )
    assert finished.returncode == 0, finished.stderr[:6000]
    return finished.stdout
