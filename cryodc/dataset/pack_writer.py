"""Write a pack: chunk by chunk, each in the journal once it is on disk, so that an interrupted packing goes on."""

import fcntl
import io
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.dataset.pack_files import (
    FILES,
    FORMAT,
    PackDtype,
    PackRecipe,
    bad_chunks,
    is_finished,
    length_after,
    read_journal,
    unfinished_fingerprint,
)
from cryodc.errors import InputError
from cryodc.io import atomic_path, write_json, write_text

Produce = Callable[[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Volumes of the particles from one position to another, and the weights that come up among them first."""


def write_pack(
    folder: Path,
    recipe: PackRecipe,
    names: Sequence[str],
    weight_index: Int[NDArray[np.int64], " n"],
    produce: Produce,
    on_progress: Callable[[int], None] = lambda n_particles: None,
    *,
    replace: bool = False,
) -> None:
    """Write a pack, or go on with one whose writing was interrupted.

    Parameters
    ----------
    folder
        Made if it does not exist.
    recipe
        What is packed.
    names
        Of the particles.
    weight_index
        ``(n,)`` which weight each particle has; weights are numbered in the order they come up.
    produce
        Gives each chunk.
    on_progress
        Called with the number of particles packed since the last call.
    replace
        Write over another pack, finished or not.

    Raises
    ------
    InputError
        If the folder holds anything else and is not to be replaced, another process is packing into it, the disk is
        full or would be, or ``produce`` raises it. What has been packed stays, and the next call goes on from there.
    """
    if not replace:
        _require_free(folder, recipe)
    with _writing(folder), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        journal = stack.enter_context(_locked(folder / "journal.jsonl"))
        if replace:
            (folder / "index.json").unlink(missing_ok=True)
        else:
            # Another process may have been here until the lock was free.
            _require_free(folder, recipe)
        lines = _good_chunks(folder, recipe, weight_index)
        _require_space(folder, recipe)
        files = {name: stack.enter_context((folder / name).open("ab")) for name in recipe.shapes}
        for name, file in files.items():
            file.truncate(length_after(recipe, weight_index, len(lines), name))
            if not lines:
                file.write(recipe.header(name))
        _rewrite_journal(journal, recipe, lines)
        n_done = min(len(lines) * recipe.chunk_particles, recipe.n_particles)
        on_progress(n_done)
        for start in range(n_done, recipe.n_particles, recipe.chunk_particles):
            stop = min(start + recipe.chunk_particles, recipe.n_particles)
            rows = dict(zip(files, produce(start, stop), strict=True))
            lines.append({name: _append(file, rows[name], recipe.dtype) for name, file in files.items()})
            journal.write(json.dumps(lines[-1]) + "\n")
            _sync(journal)
            on_progress(stop - start)
        _finish(folder, recipe, names, weight_index, lines)


def _append(file: BinaryIO, rows: NDArray[np.float32], dtype: PackDtype) -> int:
    """Write rows to the end of a file and to the disk; their checksum."""
    content = _cast(rows, dtype)
    file.write(content)
    _sync(file)
    return zlib.crc32(content)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _finish(
    folder: Path, recipe: PackRecipe, names: Sequence[str], weight_index: NDArray[np.int64], lines: list[dict[str, Any]]
) -> None:
    with atomic_path(folder / "weight_index.npy") as temporary, temporary.open("wb") as file:
        np.save(file, weight_index.astype("<i8"))
    write_text(folder / "names.txt", "".join(f"{name}\n" for name in names))
    index = {
        "format": FORMAT,
        "fingerprint": recipe.fingerprint,
        "recipe": asdict(recipe),
        "chunk_particles": recipe.chunk_particles,
        "crc32": {
            **{name: [line[name] for line in lines] for name in recipe.shapes},
            **{name: zlib.crc32((folder / name).read_bytes()) for name in ("weight_index.npy", "names.txt")},
        },
    }
    write_json(folder / "index.json", index)
    (folder / "journal.jsonl").unlink()


def _good_chunks(folder: Path, recipe: PackRecipe, weight_index: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Journal lines of the leading chunks that are on disk as the journal says."""
    lines = read_journal(folder / "journal.jsonl")[1:]
    ours = unfinished_fingerprint(folder) == recipe.fingerprint
    if not ours or not lines or not all((folder / name).exists() for name in recipe.shapes):
        return []
    bad = [chunk for _, chunk in bad_chunks(folder, recipe, weight_index, lines)]
    return lines[: min(bad)] if bad else lines


def _rewrite_journal(journal: io.TextIOWrapper, recipe: PackRecipe, lines: list[dict[str, Any]]) -> None:
    journal.seek(0)
    journal.truncate()
    for line in ({"fingerprint": recipe.fingerprint}, *lines):
        journal.write(json.dumps(line) + "\n")
    journal.flush()


def _cast(rows: NDArray[np.float32], dtype: PackDtype) -> bytes:
    with np.errstate(over="ignore"):
        cast = rows.astype(np.dtype(dtype).newbyteorder("<"))
    if dtype == "float16" and not np.isfinite(cast).all():
        raise InputError(
            "a weight is too large for float16",
            expected=f"at most {np.finfo(np.float16).max:g}",
            found=f"{np.abs(rows).max():g}",
            remedy="pack with --dtype float32",
        )
    return cast.tobytes()


def _require_free(folder: Path, recipe: PackRecipe) -> None:
    """Nothing but an interrupted packing of the same recipe may be in the folder."""
    if not folder.exists():
        return
    found = None
    if not folder.is_dir():
        found = "a file"
    elif is_finished(folder):
        found = "a pack"
    elif unfinished_fingerprint(folder) not in (None, recipe.fingerprint):
        found = "an interrupted packing of other particles, or with other options"
    elif any(path.name not in FILES and not path.name.startswith(".") for path in folder.iterdir()):
        found = "other files"
    if found is not None:
        raise InputError(
            "a pack cannot be written here: nothing is overwritten",
            file=folder,
            expected="no such folder, or an empty one",
            found=found,
            remedy="choose another --out, or delete this one",
        )


def _require_space(folder: Path, recipe: PackRecipe) -> None:
    # What is there already is kept or gives its space back.
    written = sum((folder / name).stat().st_size for name in recipe.shapes if (folder / name).exists())
    needed = sum(recipe.file_bytes(name) for name in recipe.shapes) - written
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            "the pack does not fit on this disk",
            file=folder,
            expected=f"{needed / 2**30:.2f} GiB free",
            found=f"{free / 2**30:.2f} GiB",
            remedy="free space, pack as float16 or to a smaller --box, or train with --no-pack",
        )


@contextmanager
def _locked(journal: Path) -> Iterator[io.TextIOWrapper]:
    with journal.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "another process is packing into this folder",
                file=journal.parent,
                remedy="wait for it, or choose another --out",
            ) from error
        except OSError:
            # Some network file systems have no locks.
            pass
        yield file


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write the pack: {error.strerror or error}",
            file=folder,
            remedy="free space or choose a folder you may write to, and run it again: it goes on where it stopped",
        ) from error
