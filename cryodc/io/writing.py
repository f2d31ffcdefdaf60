"""Write files that are there whole or not at all."""

import fcntl
import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cryodc.dry_run import Forecast, declare
from cryodc.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success fsync it and rename it to ``path``.

    Whatever goes wrong, ``path`` keeps its old content. The temporary has one fixed name, so that one left by a killed
    process is used again by the next, and it is locked, so that of two processes the second waits.

    Raises
    ------
    InputError
        If the folder cannot be written, or the disk is full.
    """
    declare(Forecast(path))
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    handle: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open_alone(temporary)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write: {error.strerror or error}",
            file=path,
            remedy="free space or choose a folder you may write to; what was there before is unchanged",
        ) from error
    finally:
        if handle is not None:
            # Before the lock is given up: afterwards the name may be another process's.
            try:
                temporary.unlink(missing_ok=True)
            finally:
                os.close(handle)


def _open_alone(path: Path) -> int:
    """An empty file that no other process writes: wait until the one that has it is done."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            # Some network file systems know no locks.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        # It was renamed to its final name while we waited.
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; one named ``.gz`` is gzipped.

    Bytes that were no UTF-8 where they were read are written as they were.
    """
    with atomic_stream(path) as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))


@contextmanager
def atomic_stream(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file to be written atomically; what goes into one named ``.gz`` is gzipped.

    The same content always gives the same bytes.

    Raises
    ------
    InputError
        As :func:`atomic_path`.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # Without the time and the name that gzip writes into a header.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            yield packed


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds anything: an output never overwrites.

    Raises
    ------
    InputError
        If it is a file, or a folder that is not empty.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(
            "refusing to overwrite",
            file=folder,
            expected="a folder that does not exist yet, or an empty one",
            remedy="choose another --out, or remove this one",
        )
