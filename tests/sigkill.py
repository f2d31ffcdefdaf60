"""Verbs in processes that the system kills at a file operation: ``python -m tests.sigkill RUN``; prints what was found.

``python -m tests.sigkill RUN new`` kills verbs that make a folder of their own, and the learning of templates.

What lasts is killed ten times in a row, each time as it goes on after the last: so all moments cost little more than
one verb. What begins again is killed at five moments by itself.

A process of its own, since one that has threads cannot be forked.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryodc.averaging import AverageRequest, average_run
from cryodc.clustering import cluster_run
from cryodc.export import export_run, map_back
from cryodc.generate import GenerateRequest, generate_run
from cryodc.io import write_array
from cryodc.models import TemplateConfig
from cryodc.picks import ExtractRequest, extract_subtomograms
from cryodc.runs import RunFolder, current_classes, require_averages
from cryodc.simulation import SimulationConfig, choose_proteins, simulate_particles, write_simulation
from cryodc.states import find_states
from cryodc.templates.learn import learn_templates
from cryodc.templates.matcher import TemplateCode
from cryodc.tilts import import_tilt_stacks
from cryodc.training import EncodeRequest, encode_new
from tests.kills import at_every_operation, content, hidden
from tests.simulated import as_dataset
from tests.templates.small import make_small
from tests.tilts.test_image_series import Series

_SEED = 18
"""Of the moments at which verbs are killed."""
_N_IN_A_ROW = 9
"""Kills one after the other; of most verbs the tenth is at the last operation."""
_N_OF_THE_START = 8
"""Operations after which even the first step of a verb is kept."""
_said: list[str] = []
_say = _said.append


VERBS: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "cluster": (lambda run: cluster_run(run, 3), "clusters"),
    "average": (
        lambda run: average_run(run, AverageRequest(ignore_poses=True, classify=False, n_starts=1, seed=3), _say),
        "averages",
    ),
    "states": (lambda run: find_states(run, 1, 2, n_starts=1, progress=_say), "states"),
    "export": (lambda run: export_run(run, run.path / "exported", ["relion"]), "exported"),
}


LONG = ("extract", "import")
"""Verbs that make a folder and go on where they were stopped."""


def new_folders(run: RunFolder, work: Path) -> dict[str, Callable[[Path], object]]:
    """Verbs that make a folder, of small input that is made in ``work``."""
    rng = np.random.default_rng(0)
    write_array(work / "TS_1.mrc", rng.standard_normal((24, 40, 40)).astype(np.float32), 10.0)
    (work / "picks.csv").write_text("x,y,z\n10,10,12\n20,25,11\n28,14,12\n")
    series = Series(work / "series").write()
    star = run.path.parent / "sim/particles.star"
    decoding = GenerateRequest(n_columns=2, n_steps=3, n_axes=1, n_particles=2, device="cpu", n_rows=2)
    extraction = ExtractRequest([work / "TS_1.mrc"], work / "picks.csv", work, 8, tilt_range=(-60, 60))
    simulation = SimulationConfig(n_per_map=3, n_tomograms=2, box_size=24, spacing_angstrom=15.0)
    return {
        "export": lambda out: export_run(run, out, ["relion", "warp", "dynamo"]),
        "extract": lambda out: extract_subtomograms(replace(extraction, out=out)),
        "import": lambda out: import_tilt_stacks(series, out, device="cpu"),
        "generate": lambda out: generate_run(run, replace(decoding, out=out)),
        "map-back": lambda out: map_back(run, out, size_xyz=(40, 40, 24)),
        "encode": lambda out: encode_new(EncodeRequest(star, out, run)),
        "simulate": lambda out: write_simulation(choose_proteins(["bilobe"], []), simulation, out),
    }


def try_new(work: Path, verb: Callable[[Path], object]) -> dict[str, object]:
    """Kill a verb at operations from the first to the last of its folder; then run it again."""
    out = work / "out"
    with at_every_operation(work, lambda: None) as operations:
        verb(out)
    whole, n = names_and_sizes(out), len(operations)
    found: dict[str, object] = {"files": len(whole)}
    counts = {"killed": 0, "none": 0, "whole": 0, "part": 0, "same": 0}
    places = sorted({1, 3, n // 2, n - 1, n})
    for k in places:
        shutil.rmtree(out)
        counts["killed"] += kill_at(work, lambda: verb(out), k)
        seen = names_and_sizes(out)
        counts["none" if not seen else "whole" if seen == whole else "part"] += 1
        if not out.exists():
            verb(out)
        counts["same"] += names_and_sizes(out) == whole and hidden(work) == []
    shutil.rmtree(out)
    return {**found, **counts, "tried": len(places)}


def names_and_sizes(folder: Path) -> dict[str, int]:
    """Every file that a reader sees; some hold the time, so that bytes differ."""
    return {name: len(text) for name, text in content(folder).items()}


def kill_at(within: Path, verb: Callable[[], object], k: int) -> bool:
    """Run a verb in a process that gets SIGKILL before its k-th operation in a folder; whether it was killed."""
    child = os.fork()
    if child == 0:
        n_operations = 0

        def count() -> None:
            nonlocal n_operations
            n_operations += 1
            if n_operations == k:
                os.kill(os.getpid(), signal.SIGKILL)

        with at_every_operation(within, count):
            verb()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kill_in_a_row(within: Path, verb: Callable[[], object], n_operations: int, n_kills: int) -> Iterator[bool]:
    """Kill a verb so many times, each time as it goes on after the last; says of each process whether it was killed.

    Parameters
    ----------
    within
        Folder whose operations count.
    verb
        What is done. Where it came to its end, whoever iterates lets it begin anew.
    n_operations
        That it takes if nobody kills it.
    n_kills
        How many times.
    """
    drawn, most = random.Random(_SEED), max(min(n_operations, _N_OF_THE_START), n_operations // 3)
    n_killed = 0
    while n_killed < n_kills:
        killed = kill_at(within, verb, drawn.randint(1, most))
        n_killed += killed
        yield killed


def try_verb(run: RunFolder, name: str) -> dict[str, object]:
    """Kill a verb nine times in a row, then at its last operation, and let it end; the run is left as it was."""
    verb, folder = VERBS[name]
    kept = Path(shutil.copytree(run.path, run.path.with_name("kept")))
    old = content(run.path / folder)
    with at_every_operation(run.path, lambda: None) as operations:
        verb(run)
    new, n = content(run.path / folder), len(operations)
    found = {"killed": 0, "old": 0, "new": 0, "mixed": 0, "ended": 0, "same": 0, "went_on": 0}

    def begin() -> None:
        shutil.rmtree(run.path)
        shutil.copytree(kept, run.path)

    def end() -> None:
        found["ended"] += 1
        found["same"] += content(run.path / folder) == new and hidden(run.path) == []

    def look() -> bool:
        seen = content(run.path / folder)
        found["old" if seen == old else "new" if seen == new else "mixed"] += 1
        # Readers take what is there.
        current_classes(run)
        if name != "cluster":
            require_averages(run)
        return seen == old

    begin()
    for killed in kill_in_a_row(run.path, lambda: verb(run), n, _N_IN_A_ROW):
        found["killed"] += killed
        if not look():
            found["ended"] += not killed
            found["same"] += not killed and hidden(run.path) == []
            begin()
    _said.clear()
    verb(run)
    found["went_on"] += _went_on()
    end()
    begin()
    found["killed"] += kill_at(run.path, lambda: verb(run), n)
    if look() or name != "export":
        verb(run)
        end()
    shutil.rmtree(run.path)
    kept.rename(run.path)
    return {**found, "differ": old != new}


def try_long(work: Path, verb: Callable[[Path], object]) -> dict[str, object]:
    """Kill a verb that makes a folder at its last operation and nine times in a row, then let it come to its end."""
    out = work / "out"
    with at_every_operation(work, lambda: None) as operations:
        verb(out)
    whole, n = names_and_sizes(out), len(operations)
    found = {"files": len(whole), "killed": 0, "none": 0, "whole": 0, "part": 0, "same": 0}
    shutil.rmtree(out)
    in_a_row = kill_in_a_row(work, lambda: verb(out), n, _N_IN_A_ROW)
    for killed in itertools.chain([kill_at(work, lambda: verb(out), n)], in_a_row):
        found["killed"] += killed
        seen = names_and_sizes(out)
        found["none" if not seen else "whole" if seen == whole else "part"] += 1
        if seen:
            shutil.rmtree(out)
    verb(out)
    found["same"] += names_and_sizes(out) == whole and hidden(work) == []
    shutil.rmtree(out)
    return {**found}


def try_templates(work: Path) -> dict[str, object]:
    """Kill the learning of templates ten times in a row; then the codes of a learning that nobody killed."""
    config = SimulationConfig(n_per_map=24, box_size=16, spacing_angstrom=20.0, snr=0.5, max_shift_voxels=0.5, seed=1)
    made = simulate_particles(choose_proteins(["wheel", "barrel"], []), config)
    dataset = as_dataset(made.volumes, made.weights, torch.as_tensor(made.weight_index))
    settings = TemplateConfig(n_templates=2, particles_per_template=20, n_axes=1)
    out, found = work / "learned", {"killed": 0, "same": 0, "went_on": 0}

    def learn() -> TemplateCode:
        out.mkdir(exist_ok=True)
        code = learn_templates(dataset, settings, seed=2, progress=_say, kept=out / "learning.pt")
        assert code is not None
        return code

    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        with at_every_operation(out, lambda: None) as operations:
            whole = learn()
        shutil.rmtree(out)
        for killed in kill_in_a_row(out, learn, len(operations), _N_IN_A_ROW + 1):
            found["killed"] += killed
            if not killed:
                shutil.rmtree(out)
        _said.clear()
        again = learn()
    found["went_on"] += _went_on()
    found["same"] += all(
        np.array_equal(getattr(again, n), getattr(whole, n)) for n in ("points", "placed", "templates")
    )
    return {**found}


def _went_on() -> bool:
    return any("done before" in text or "going on" in text for text in _said)


if __name__ == "__main__":
    there = RunFolder(Path(sys.argv[1]))
    if sys.argv[2:] == ["new"]:
        with tempfile.TemporaryDirectory() as temporary:
            made = Path(temporary)
            tried = {
                name: (try_long if name in LONG else try_new)(made, verb)
                for name, verb in new_folders(there, made).items()
            }
            tried["templates"] = try_templates(made)
    else:
        tried = {name: try_verb(there, name) for name in VERBS}
    sys.stdout.write(json.dumps(tried))
