"""A Slurm of one node for tests: ``sbatch`` and ``srun`` in a folder for PATH."""

import os
import sys
from pathlib import Path

SBATCH = """#!/bin/bash
# Keeps the file, says a number, and runs it when it has been put away, as a scheduler does.
cp "$1" "{folder}/submitted.sh"
echo "Submitted batch job 7"
tasks=$(sed -n 's/^#SBATCH --ntasks-per-node=//p' "$1")
export SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_NTASKS=$tasks SLURM_JOB_NODELIST=localhost
( bash "{folder}/submitted.sh"; echo $? > "{folder}/code" ) > "{folder}/job.log" 2>&1 &
"""
SRUN = """#!{python}
import os, subprocess, sys

command = sys.argv[sys.argv.index("{python}"):]
ranks = map(str, range(int(os.environ["SLURM_NTASKS"])))
tasks = [subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": r, "SLURM_LOCALID": r}}) for r in ranks]
sys.exit(max(task.wait() for task in tasks))
"""


def put_slurm(folder: Path) -> dict[str, str]:
    """An environment in which there is such a Slurm, whose files are in a folder."""
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN)):
        script = folder / name
        script.write_text(text.format(folder=folder, python=sys.executable))
        script.chmod(0o755)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
