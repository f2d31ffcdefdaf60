"""What a reader sees at every moment of a verb, and a process that is killed at one of its file operations."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")


class Killed(BaseException):
    """No ``except`` of the library catches it."""


_watchers: list[Callable[[str, str], None]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _watchers:
        return
    opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if opened or event in _WRITES:
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        for watcher in _watchers:
            watcher(event, path)


sys.addaudithook(_hook)


@contextmanager
def at_every_operation(within: Path, act: Callable[[], None]) -> Iterator[list[str]]:
    """Call ``act`` before every operation that changes files in a folder; gives the list of these operations."""
    seen: list[str] = []
    busy = False

    def watch(event: str, path: str) -> None:
        nonlocal busy
        if busy or not path.startswith(str(within)):
            return
        busy = True
        try:
            act()
        finally:
            busy = False
        seen.append(f"{event} {path}")

    _watchers.append(watch)
    try:
        yield seen
    finally:
        _watchers.remove(watch)


@contextmanager
def killed_at(within: Path, k: int) -> Iterator[None]:
    """The process dies at the k-th operation that changes files in a folder: that and all after it fail."""
    count = 0

    def watch(event: str, path: str) -> None:
        nonlocal count
        if path.startswith(str(within)):
            count += 1
            if count >= k:
                raise Killed(f"{event} {path}")

    _watchers.append(watch)
    try:
        yield
    except Killed:
        pass
    finally:
        _watchers.remove(watch)


def content(folder: Path) -> dict[str, bytes]:
    """Every file that a reader sees, by its name; hidden ones are nobody's to read."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def hidden(folder: Path) -> list[str]:
    """Names of hidden files and folders in a folder: temporary files, locks, and what was begun."""
    return sorted(path.name for path in folder.rglob(".*"))
