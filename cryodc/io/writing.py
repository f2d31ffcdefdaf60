"""Write files that are there whole or not at all."""

import gzip
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cryodc.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success fsync it and rename it to ``path``.

    Whatever goes wrong, ``path`` keeps its old content and no temporary file stays.

    Raises
    ------
    InputError
        If the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
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
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
