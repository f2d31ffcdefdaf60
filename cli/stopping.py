"""Ctrl-C and SIGTERM: what to type to go on, and the exit code that shells expect."""

import itertools
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_GO_ON = ("import", "extract", "pack", "average", "states", "relion-job")
"""Verbs that go on where they were stopped when the same is typed again."""


class Stopped(BaseException):
    """The user or the system asked the process to stop; no ``except Exception`` catches it.

    Parameters
    ----------
    number
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` on SIGINT and SIGTERM meanwhile; what is ignored, as under ``nohup``, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _stop) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def how_to_go_on(words: Sequence[str]) -> str:
    """What to type after a command was stopped.

    Examples
    --------
    >>> how_to_go_on(["cluster", "my run"])
    "To begin this again: cryodc cluster 'my run'"
    >>> how_to_go_on(["average", "run/"])
    'To go on: cryodc average run/'
    """
    following = words_to_go_on(words)
    begun = _resumes(words) or (bool(words) and words[0] in _GO_ON)
    return f"{'To go on' if begun else 'To begin this again'}: {shlex.join(['cryodc', *following])}"


def words_to_go_on(words: Sequence[str]) -> list[str]:
    """The words of a command that goes on where it was stopped, or begins again where nothing was kept.

    Parameters
    ----------
    words
        From the verb on.
    """
    return [*words, *(["--resume"] if _resumes(words) and "--resume" not in words else [])]


def _resumes(words: Sequence[str]) -> bool:
    return bool(words) and words[0] == "train" and _begun(words)


def _begun(words: Sequence[str]) -> bool:
    """Whether the run that a `cryodc train` would make or go on with is there."""
    from cryodc.training import next_run_folder

    named = [after for word, after in itertools.pairwise(words) if word == "--out"]
    named += [word.removeprefix("--out=") for word in words if word.startswith("--out=")]
    return ((Path(named[-1]) if named else next_run_folder(resume=True)) / "config.yaml").is_file()


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
