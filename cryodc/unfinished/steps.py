"""Steps of a long verb: what is done is kept in the folder that it builds, so that the same command goes on.

A step's result is taken in its plain form (:func:`cryodc.unfinished.state.plain`) whether it was just made or was kept.
So what follows rests on the same numbers in both cases, to the last bit. Where several processes share the work, the
leader reads and writes, and all take what it has.
"""

import hashlib
import shlex
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryodc.device import by_leader
from cryodc.io import STATE, stopped_folders, write_text
from cryodc.unfinished.state import load_state, plain, save_state

State = dict[str, Any]
_COMMAND = "command.txt"


class DoneSteps:
    """Results of the steps that are done.

    Parameters
    ----------
    folder
        Where they are kept; None to keep none.
    tell
        Called with a line where the first of them is taken up.
    """

    def __init__(self, folder: Path | None = None, tell: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.tell = folder, tell

    @classmethod
    def within(cls, building: Path, tell: Callable[[str], None] | None) -> "DoneSteps":
        """Those of a folder that is built with a key; the command that builds it is kept beside them."""
        by_leader(lambda: keep_command(building))
        return cls(building / STATE, tell or (lambda text: None))

    def once(self, name: str, make: Callable[["DoneSteps"], State]) -> State:
        """The result of a step, in its plain form: as it was kept, or made now and kept.

        Parameters
        ----------
        name
            Of its file.
        make
            Gets what keeps the steps within this one, which goes when this one is done.
        """
        if self.folder is None:
            made = self._plain(make(self))
            return by_leader(lambda: made)
        path, inner = self.folder / f"{name}.pt", self.folder / name
        state = by_leader(lambda: load_state(path))
        if state is None:
            made = self._plain(make(DoneSteps(inner, self.tell)))
            state = by_leader(lambda: self._saved(path, made))
        else:
            self.tell(f"{name}: done before")
        by_leader(lambda: shutil.rmtree(inner, ignore_errors=True))
        return state

    def quietly(self, name: str) -> "DoneSteps":
        """Many steps under one name, that are taken up without a line for each."""
        return DoneSteps(None if self.folder is None else self.folder / name)

    def sequence(self, name: str, save: Callable[[], State], load: Callable[[State], None]) -> "Sequence":
        """Steps that change one state; see :class:`Sequence`."""
        return Sequence(None if self.folder is None else self.folder / f"{name}.pt", save, load, self.tell)

    def _saved(self, path: Path, state: State) -> State:
        save_state(path, state)
        return state

    def _plain(self, state: State) -> State:
        found: State = plain(state)
        return found


class Sequence:
    """Steps that each change one state, of which the last is kept, with what each of them returned.

    Whoever goes on runs through the same steps again. Those that are done only return what they had returned, and the
    last of them gives the state back. So between steps nothing may look at the state.

    Parameters
    ----------
    path
        Where it is kept; None to keep nothing.
    save, load
        Give and take the state.
    tell
        Called with a line where steps are taken up.
    """

    def __init__(
        self,
        path: Path | None,
        save: Callable[[], State],
        load: Callable[[State], None],
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path, self.save, self.load, self.tell = path, save, load, tell
        kept = None if path is None else by_leader(lambda: load_state(path))
        self.returned: list[Any] = [] if kept is None else kept["returned"]
        self.kept: State = {} if kept is None else kept["state"]
        self.n_done = 0

    def do(self, name: str, step: Callable[[], Any]) -> Any:
        """Do a step, or return what it had returned; numbers, texts, tensors, and lists and dictionaries of these.

        Parameters
        ----------
        name
            Said where steps are taken up.
        step
            Changes the state.
        """
        self.n_done += 1
        if self.n_done <= len(self.returned):
            if self.n_done == len(self.returned):
                self.load(self.kept)
                self.tell(f"going on after {name}")
            return self.returned[self.n_done - 1]
        returned = plain(step())
        self.returned.append(by_leader(lambda: returned))
        path = self.path
        if path is not None:
            state = plain(self.save())
            by_leader(lambda: save_state(path, {"returned": self.returned, "state": state}))
            # What follows rests on what was kept, here as where it is taken up.
            self.load(state)
        return self.returned[-1]


def key_of(*parts: object) -> str:
    """Name all that a result follows from: the version, and ``parts`` as ``repr`` writes them."""
    return hashlib.sha256(repr((version("cryodc"), *parts)).encode()).hexdigest()[:16]


def stamp(path: Path) -> tuple[str, int, int]:
    """Tell an input from what it was: its place, size and time; of a folder those of all files in it."""
    found = [file.stat() for file in (path.rglob("*") if path.is_dir() else [path])]
    return (
        str(path.resolve()),
        sum(file.st_size for file in found),
        max((file.st_mtime_ns for file in found), default=0),
    )


def typed_command() -> str:
    """The command that this process was started with."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def keep_command(building: Path) -> None:
    """Write the command into a folder that it builds with a key, for whoever asks what was stopped."""
    write_text(building / STATE / _COMMAND, typed_command() + "\n")


def stopped_command(path: Path) -> str | None:
    """The command that was stopped while it made a folder; None where none was.

    Parameters
    ----------
    path
        Where the folder was to be.
    """
    for folder in stopped_folders(path):
        try:
            return (folder / STATE / _COMMAND).read_text(encoding="utf-8").strip()
        except OSError:
            continue
    return None
