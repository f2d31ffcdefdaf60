"""A pack on disk: a folder of standardised particles that are read a few at a time.

``volumes.npy`` and ``weights.npy`` grow by whole chunks; after each, its checksums go into ``journal.jsonl``.
``index.json`` is written last and makes the folder a pack. ``docs/pack.md`` gives the layout,
:mod:`cryodc.dataset.pack_writer` writes it.
"""

import hashlib
import io
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryodc.errors import InputError

PackDtype = Literal["float16", "float32"]
FORMAT = "cryodc pack 1"
"""Another number where other bytes would be written of the same recipe."""
FILES = ("index.json", "journal.jsonl", "volumes.npy", "weights.npy", "weight_index.npy", "names.txt")
_CHUNK_BYTES = 32 * 2**20
_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class PackRecipe:
    """What a pack is made of, and how: two packs of one recipe have the same bytes.

    Parameters
    ----------
    particles
        SHA-256 over names, and sections, sizes and times of the files of every particle and weight.
    n_particles, n_weights
        Rows of the two arrays.
    box_size, spacing_angstrom
        Of the packed volumes.
    dtype
        ``float16`` or ``float32``.
    tilt_range, tilt_ranges, tilt_axis, invert
        As in :class:`cryodc.dataset.reading.InputOptions`, reduced to what these particles need.
    """

    particles: str
    n_particles: int
    n_weights: int
    box_size: int
    spacing_angstrom: float
    dtype: PackDtype
    tilt_range: list[float] | None
    tilt_ranges: dict[str, list[float]] | None
    tilt_axis: str
    invert: bool

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything above, and the format."""
        return hashlib.sha256(json.dumps([FORMAT, asdict(self)], sort_keys=True).encode()).hexdigest()

    @property
    def shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """Shape of the array in each of the two large files."""
        n = self.box_size
        return {
            "volumes.npy": (self.n_particles, n, n, n),
            "weights.npy": (self.n_weights, n, n, n // 2 + 1),
        }

    @property
    def chunk_particles(self) -> int:
        """Particles written between two lines of the journal."""
        return max(1, _CHUNK_BYTES // (np.dtype(self.dtype).itemsize * self.box_size**3))

    @property
    def n_chunks(self) -> int:
        """How many of them there are."""
        return math.ceil(self.n_particles / self.chunk_particles)

    def header(self, name: str) -> bytes:
        """First bytes of a large file: the header of the ``.npy`` format."""
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer,
            {"shape": self.shapes[name], "fortran_order": False, "descr": np.dtype(self.dtype).newbyteorder("<").str},
        )
        return buffer.getvalue()

    def row_bytes(self, name: str) -> int:
        """Bytes of one volume or weight."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shapes[name][1:])

    def file_bytes(self, name: str) -> int:
        """Length of a large file once it is complete."""
        return len(self.header(name)) + self.row_bytes(name) * self.shapes[name][0]


def read_recipe(folder: Path) -> PackRecipe:
    """The recipe of a finished pack.

    Raises
    ------
    InputError
        If the folder holds no finished pack.
    """
    return PackRecipe(**_read_index(folder)["recipe"])


def is_finished(folder: Path) -> bool:
    """Whether this folder claims to be a pack; :func:`find_problem` tells whether it is a good one."""
    return (folder / "index.json").exists()


def unfinished_fingerprint(folder: Path) -> str | None:
    """The recipe an interrupted packing was following, by its fingerprint; None where there was none."""
    journal = folder / "journal.jsonl"
    lines = read_journal(journal) if journal.exists() else []
    return str(lines[0].get("fingerprint")) if lines else None


def find_problem(folder: Path, wanted: PackRecipe, *, verify: bool = True) -> InputError | None:
    """What keeps a folder from being the pack of a recipe; None if nothing does.

    Parameters
    ----------
    folder
        To look at.
    wanted
        What it should have been made of.
    verify
        Read everything and compare the checksums; without, only recipe and file lengths are.
    """
    try:
        index = _read_index(folder)
        _require_recipe(folder, PackRecipe(**index["recipe"]), wanted)
        _require_lengths(folder, wanted)
        if verify:
            _require_checksums(folder, wanted, index)
    except InputError as problem:
        return problem
    return None


def _read_index(folder: Path) -> dict[str, Any]:
    if not is_finished(folder):
        started = (folder / "journal.jsonl").exists()
        raise InputError(
            "this packing was interrupted" if started else "this is not a pack",
            file=folder,
            expected="a folder with index.json",
            remedy=f"run `cryodc pack` again{', which goes on where it stopped' if started else ''}",
        )
    try:
        index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise _damaged(folder, "index.json", FORMAT, str(index["format"]))
        if index["fingerprint"] != PackRecipe(**index["recipe"]).fingerprint:
            raise _damaged(folder, "index.json", "the fingerprint of its recipe", index["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, "index.json", "the index of a pack", str(error)) from error
    return index


def _require_recipe(folder: Path, found: PackRecipe, wanted: PackRecipe) -> None:
    if found.particles != wanted.particles:
        raise InputError(
            "this pack was made of other particles, or their files have changed since",
            file=folder,
            expected=f"{wanted.n_particles} particles, fingerprint {wanted.particles[:12]}",
            found=f"{found.n_particles} particles, fingerprint {found.particles[:12]}",
            remedy="pack them into another folder: `cryodc pack`",
        )
    made, asked = asdict(found), asdict(wanted)
    for name in made:
        if made[name] != asked[name]:
            raise InputError(
                f"this pack was made with another {name.replace('_', ' ')}",
                file=folder,
                expected=str(asked[name]),
                found=str(made[name]),
                remedy="give the options it was made with, or pack into another folder: `cryodc pack`",
            )


def _require_lengths(folder: Path, recipe: PackRecipe) -> None:
    for name in recipe.shapes:
        path, expected = folder / name, recipe.file_bytes(name)
        n_bytes = path.stat().st_size if path.exists() else 0
        if n_bytes != expected:
            raise _damaged(folder, name, f"{expected} bytes", f"{n_bytes} bytes" if path.exists() else "no such file")
        with path.open("rb") as file:
            if file.read(len(recipe.header(name))) != recipe.header(name):
                raise _damaged(folder, name, f"the .npy header of {recipe.shapes[name]} {recipe.dtype}", "another")


def _require_checksums(folder: Path, recipe: PackRecipe, index: dict[str, Any]) -> None:
    try:
        for name in ("weight_index.npy", "names.txt"):
            if zlib.crc32((folder / name).read_bytes()) != index["crc32"][name]:
                raise _damaged(folder, name, "the checksum of index.json", "another")
        weight_index = np.load(folder / "weight_index.npy")
        pairs = zip(index["crc32"]["volumes.npy"], index["crc32"]["weights.npy"], strict=True)
        lines = [dict(zip(recipe.shapes, pair, strict=True)) for pair in pairs]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, "index.json", "checksums of every file", str(error)) from error
    if len(lines) != recipe.n_chunks:
        raise _damaged(folder, "index.json", f"checksums of {recipe.n_chunks} chunks", f"of {len(lines)}")
    for name, chunk in bad_chunks(folder, recipe, weight_index, lines):
        start = chunk * recipe.chunk_particles
        stop = min(start + recipe.chunk_particles, recipe.n_particles)
        raise _damaged(folder, name, "the checksum of index.json", f"another, within particles {start + 1} to {stop}")


def bad_chunks(
    folder: Path, recipe: PackRecipe, weight_index: NDArray[np.int64], lines: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, int]]:
    """File and number of each chunk whose checksum does not fit its bytes.

    Parameters
    ----------
    folder
        The pack.
    recipe
        What it was made of.
    weight_index
        ``(n,)`` which weight each particle has.
    lines
        The journal.
    """
    for name in recipe.shapes:
        with (folder / name).open("rb") as file:
            end = file.seek(len(recipe.header(name)))
            for chunk, line in enumerate(lines):
                begin, end = end, length_after(recipe, weight_index, chunk + 1, name)
                if _crc32_of(file, end - begin) != line.get(name):
                    yield name, chunk


def _crc32_of(file: io.BufferedReader, n_bytes: int) -> int:
    checksum = 0
    while n_bytes > 0 and (block := file.read(min(n_bytes, _BLOCK_BYTES))):
        checksum = zlib.crc32(block, checksum)
        n_bytes -= len(block)
    return checksum


def length_after(recipe: PackRecipe, weight_index: NDArray[np.int64], n_chunks: int, name: str) -> int:
    """Length of a large file when so many chunks are in it.

    Parameters
    ----------
    recipe
        What the pack is made of.
    weight_index
        ``(n,)`` which weight each particle has.
    n_chunks
        Chunks that are written.
    name
        The file.
    """
    if n_chunks == 0:
        return 0
    n_rows = min(n_chunks * recipe.chunk_particles, recipe.n_particles)
    if name == "weights.npy":
        n_rows = int(weight_index[:n_rows].max()) + 1
    return len(recipe.header(name)) + recipe.row_bytes(name) * n_rows


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Lines of the journal up to the first that was not written to its end."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(dict(json.loads(text)))
        except (ValueError, TypeError):
            break
    return lines


def _damaged(folder: Path, name: str, expected: str, found: str) -> InputError:
    return InputError(
        "this pack is damaged",
        file=folder / name,
        expected=expected,
        found=found,
        remedy="delete its folder and pack the particles again",
    )
