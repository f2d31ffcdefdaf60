"""Verbs in processes that the system kills at a file operation: ``python -m tests.sigkill RUN``; prints what was found.

A process of its own, since one that has threads cannot be forked.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from cryodc.averaging import AverageRequest, average_run
from cryodc.clustering import cluster_run
from cryodc.export import export_run
from cryodc.runs import RunFolder, current_classes, require_averages
from tests.kills import at_every_operation, content, hidden

VERBS: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "cluster": (lambda run: cluster_run(run, 3), "clusters"),
    "average": (lambda run: average_run(run, AverageRequest(seed=3)), "averages"),
    "export": (lambda run: export_run(run, run.path / "exported", ["relion"]), "exported"),
}


def kill_at(run: RunFolder, verb: Callable[[RunFolder], object], k: int) -> bool:
    """Run a verb in a process that gets SIGKILL before its k-th file operation; whether it was killed."""
    child = os.fork()
    if child == 0:
        n_operations = 0

        def count() -> None:
            nonlocal n_operations
            n_operations += 1
            if n_operations == k:
                os.kill(os.getpid(), signal.SIGKILL)

        with at_every_operation(run.path, count):
            verb(run)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def try_verb(run: RunFolder, name: str) -> dict[str, object]:
    """Kill a verb at operations from the first to the last; the run is left as it was found."""
    verb, folder = VERBS[name]
    kept = Path(shutil.copytree(run.path, run.path.with_name("kept")))
    old = content(run.path / folder)
    with at_every_operation(run.path, lambda: None) as operations:
        verb(run)
    new, n = content(run.path / folder), len(operations)
    found = {"killed": 0, "old": 0, "new": 0, "mixed": 0, "again": 0}
    places = (n // 2, n - 2, n)
    for k in places:
        shutil.rmtree(run.path)
        shutil.copytree(kept, run.path)
        found["killed"] += kill_at(run, verb, k)
        seen = content(run.path / folder)
        found["old" if seen == old else "new" if seen == new else "mixed"] += 1
        # Readers take what is there.
        current_classes(run)
        if name != "cluster":
            require_averages(run)
        if name != "export" or not seen:
            verb(run)
        found["again"] += content(run.path / folder) == new and hidden(run.path) == []
    shutil.rmtree(run.path)
    kept.rename(run.path)
    return {**found, "differ": old != new, "tried": len(places)}


if __name__ == "__main__":
    there = RunFolder(Path(sys.argv[1]))
    sys.stdout.write(json.dumps({name: try_verb(there, name) for name in VERBS}))
