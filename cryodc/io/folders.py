"""Write folders that are there whole or not at all: built beside their place under a hidden name, then put there.

What takes long is built under a name that says what it will be: its ``key``, of all that the result follows from. Where
the process is killed, the next call with this key goes on with the folder.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryodc.dry_run import Forecast, declare
from cryodc.errors import InputError
from cryodc.io.writing import require_empty

STATE = ".state"
"""Folder in one that is built with a key: what the work has come to. It is no part of the result."""
_AT_CWD = -2 if sys.platform == "darwin" else -100
_EXCHANGE = 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def replace_folder(path: Path, key: str | None = None) -> Iterator[Path]:
    """Give an empty folder beside ``path``; on success it takes the place of ``path``, whose old content goes.

    Old and new change places in one step of the file system. So a reader finds the old folder whole or the new one
    whole, whenever this process is killed. What a killed process left is removed by the next one, unless that has the
    same key: then it is given with what it holds. Its files are whole.

    Raises
    ------
    InputError
        If the folder cannot be written, or the disk is full.
    """
    with _built(path, key) as building:
        if key and not (building / STATE).exists():
            # New, or the old one, where a process was killed as soon as the two had changed places.
            _empty(building)
        yield building
        _put(building, path)
        shutil.rmtree(path / STATE, ignore_errors=True)


@contextmanager
def new_folder(path: Path, key: str | None = None) -> Iterator[Path]:
    """As :func:`replace_folder`, for a folder that may not exist yet, or must be empty.

    Raises
    ------
    InputError
        If ``path`` holds anything, or the folder cannot be written.
    """
    require_empty(path)
    with _built(path, key) as building:
        yield building
        require_empty(path)
        shutil.rmtree(building / STATE, ignore_errors=True)
        building.rename(path)


def stopped_folders(path: Path) -> list[Path]:
    """What stopped processes have built with a key, to be put at a path."""
    return sorted(path.parent.glob(f".{path.name}.begun.*"))


def recover_folder(path: Path) -> None:
    """Put back a folder that a killed process had moved aside, where a file system cannot exchange two folders."""
    for aside in [] if path.exists() else sorted(path.parent.glob(f".{path.name}.aside.*")):
        with suppress(OSError):
            aside.rename(path)
            return


@contextmanager
def _built(path: Path, key: str | None) -> Iterator[Path]:
    declare(Forecast(path))
    building: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(path)
        building, held = _begun(path, key) if key else _begin(path)
        try:
            _remove_leftovers(path)
            yield building
            key = None
        finally:
            os.close(held)
    except OSError as error:
        key = None
        raise InputError(
            f"cannot write: {error.strerror or error}",
            file=path,
            remedy="free space or choose a folder you may write to; what was there before is unchanged",
        ) from error
    except InputError:
        # Whatever is wrong with the input, the same again would not go better.
        key = None
        raise
    finally:
        if building is not None and not key:
            shutil.rmtree(building, ignore_errors=True)


def _begin(path: Path) -> tuple[Path, int]:
    """A folder to build in that no other process has, and the lock on it."""
    building = Path(tempfile.mkdtemp(prefix=f".{path.name}.building.", dir=path.parent))
    umask = os.umask(0)
    os.umask(umask)
    building.chmod(0o777 & ~umask)
    held = os.open(building, os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return building, held


def _begun(path: Path, key: str) -> tuple[Path, int]:
    """The folder that is built with a key, as a killed process left it, and the lock on it.

    Raises
    ------
    InputError
        If another process builds it.
    """
    building = path.with_name(f".{path.name}.begun.{key}")
    while True:
        building.mkdir(exist_ok=True)
        held = os.open(building, os.O_RDONLY)
        try:
            # Some network file systems know no locks.
            with suppress(OSError):
                _lock(held, path)
            if building.exists() and os.path.samestat(os.fstat(held), building.stat()):
                return building, held
        except BaseException:
            os.close(held)
            raise
        # The other process was done while we waited.
        os.close(held)


def _lock(held: int, path: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            "another process is making this folder", file=path, remedy="wait until it is done, or stop it"
        ) from error


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _put(building: Path, path: Path) -> None:
    """Put a folder in the place of another; the other is then where the first was."""
    if not path.exists():
        building.rename(path)
    elif not _exchange(building, path):
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.aside.", dir=path.parent))
        path.rename(aside)
        building.rename(path)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders change places in one step; False where the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "renameatx_np" if sys.platform == "darwin" else "renameat2", None)
    if function is None:
        return False
    sys.audit("os.rename", str(first), str(second), -1, -1)
    if function(_AT_CWD, os.fsencode(first), _AT_CWD, os.fsencode(second), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(second))


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes built in vain. Who still builds holds a lock, which dies with the process."""
    for leftover in [*path.parent.glob(f".{path.name}.building.*"), *stopped_folders(path)]:
        with suppress(OSError):
            held = os.open(leftover, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(held)
    for aside in path.parent.glob(f".{path.name}.aside.*") if path.exists() else []:
        shutil.rmtree(aside, ignore_errors=True)
