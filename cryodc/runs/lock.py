"""Only one process writes into a run folder at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryodc.dry_run import is_planning
from cryodc.errors import InputError
from cryodc.runs.folder import RunFolder

_NAME = ".lock"


@contextmanager
def writing(run: RunFolder, verb: str) -> Iterator[None]:
    """Hold a run folder while a verb writes into it. A crash leaves no lock.

    Parameters
    ----------
    run
        The run; its folder is made if it is missing.
    verb
        Named in the error that a second process gets.

    Raises
    ------
    InputError
        If another process writes into it, or it cannot be written.
    """
    if is_planning():
        yield
        return
    was_there = run.path.exists()
    handle = _hold(run)
    try:
        # Only a message to others: on a full disk the lock holds without it.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, f"cryodc {verb}, process {os.getpid()}".encode())
        yield
    finally:
        try:
            _leave_nothing(run.path, was_there)
        finally:
            os.close(handle)


def written_by(run: RunFolder) -> str | None:
    """The process that holds a run folder, as it called itself; None where none does."""
    try:
        handle = os.open(run.path / _NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(handle, 200).decode(errors="replace").strip() or "another process"
    except OSError:
        # Some network file systems know no locks.
        return None
    finally:
        os.close(handle)
    return None


def _hold(run: RunFolder) -> int:
    """The lock's file, which no other process has."""
    path = run.path / _NAME
    while True:
        handle = _open(path)
        try:
            _lock(handle, run)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BaseException:
            os.close(handle)
            raise
        # Whoever had it was done, and removed it, while we opened it.
        os.close(handle)


def _lock(handle: int, run: RunFolder) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held_by = os.read(handle, 200).decode(errors="replace").strip()
        raise InputError(
            "another process is writing into this run",
            file=run.path,
            found=held_by or None,
            remedy="wait until it is done, or stop it",
        ) from error
    except OSError:
        # Some network file systems know no locks.
        pass


def _leave_nothing(folder: Path, was_there: bool) -> None:
    """Remove the lock, and the folder where it was made for nothing: a first step was refused."""
    with suppress(OSError):
        (folder / _NAME).unlink()
        if not was_there:
            folder.rmdir()


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise InputError(
            f"cannot write: {error.strerror or error}", file=path.parent, remedy="make the run folder writable"
        ) from error
