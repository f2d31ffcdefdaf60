"""Thousands of damaged files: each is one error or read right, never a traceback, a hang or another answer.

``python -m benchmarks.files.mutations`` damages STAR, MRC, Dynamo, EM, CSV and settings files, the same ones each time,
and reads each with the package and with readers that share no code with it: starfile and a reader of characters for
STAR, mrcfile and struct for MRC, pandas for tables, struct for EM, PyYAML for settings. It prints how many were
refused, read as the others read them, and read wrongly.
"""

import argparse
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.files.mutation_readers import (
    DifferenceError,
    check_config,
    check_em,
    check_mrc,
    check_particles,
    check_picks,
)
from benchmarks.files.mutation_seeds import damage_bytes, damage_header, damage_text, em_seed, mrc_seed, text_seed
from cryodc.errors import InputError

LIMIT_SECONDS = 10.0
KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "particles": ("a.star", check_particles),
    "relion picks": ("a.star", check_picks),
    "stopgap picks": ("a.star", check_picks),
    "tbl": ("a.tbl", check_picks),
    "csv": ("a.csv", check_picks),
    "em": ("a.em", check_em),
    "mrc": ("a.mrc", check_mrc),
    "config": ("config.yaml", check_config),
}


@dataclass
class Tally:
    """How the files of one kind came out, and what was said of those that came out wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


class TooSlow(BaseException):
    """Raised by the alarm: no ``except Exception`` may catch it."""


def content_of(kind: str, number: int) -> bytes:
    """The damaged file of this number; one in ten is whole."""
    rng = random.Random(f"{kind} {number}")
    if kind == "mrc":
        content = mrc_seed(rng)
        damages: list[Callable[[bytes, random.Random], bytes]] = [damage_header, damage_header, damage_bytes]
    elif kind == "em":
        content, damages = em_seed(rng), [damage_bytes, damage_header]
    else:
        content, damages = text_seed(kind, rng).encode(), [damage_text, damage_text, damage_text, damage_bytes]
    for _ in range(rng.choice([0, 1, 1, 1, 1, 1, 2, 2, 2, 3])):
        content = rng.choice(damages)(content, rng)
    return content


def run(n_files: int, only: str | None = None) -> dict[str, Tally]:
    """Damage so many files in all, and read them.

    Parameters
    ----------
    n_files
        As many of each kind.
    only
        One kind; all if None.
    """
    kinds = [only] if only else list(KINDS)
    tallies = {kind: Tally() for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(n_files):
            kind, number = kinds[i % len(kinds)], i // len(kinds)
            name, check = KINDS[kind]
            path = Path(folder, name)
            path.write_bytes(content_of(kind, number))
            began = time.perf_counter()
            outcome, said = _outcome(path, check)
            tally = tallies[kind]
            tally.slowest_seconds = max(tally.slowest_seconds, time.perf_counter() - began)
            tally.counts[outcome] += 1
            if said:
                tally.faults.append(f"{kind} {number}: {outcome}\n{said}")
    return tallies


def _outcome(path: Path, check: Callable[[Path], None]) -> tuple[str, str]:
    try:
        with _alarm():
            check(path)
    except InputError as error:
        # A setting out of range is told by its own name.
        if error.file is None and not error.problem.startswith("setting "):
            return "unnamed", str(error)
        return "refused", ""
    except DifferenceError as difference:
        return "different", str(difference)
    except TooSlow:
        return "hang", f"over {LIMIT_SECONDS:g} s"
    except Exception:
        return "traceback", traceback.format_exc()
    return "right", ""


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Print a table of outcomes by kind, and every fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--only", choices=list(KINDS))
    options = parser.parse_args()
    tallies = run(options.files, options.only)
    outcomes = ["right", "refused", "different", "traceback", "hang", "unnamed"]
    print(f"{'':14}" + "".join(f"{outcome:>11}" for outcome in outcomes) + f"{'slowest':>11}")
    for kind, tally in tallies.items():
        cells = "".join(f"{tally.counts[outcome]:11d}" for outcome in outcomes)
        print(f"{kind:14}{cells}{tally.slowest_seconds:9.2f} s")
    total = sum((tally.counts for tally in tallies.values()), Counter())
    print(f"{'all':14}" + "".join(f"{total[outcome]:11d}" for outcome in outcomes))
    for tally in tallies.values():
        for fault in tally.faults:
            print(f"\n{fault}")


if __name__ == "__main__":
    main()
