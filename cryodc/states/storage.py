"""Where what particles say of a map is kept: in memory, or in a file without a name that is gone when it is closed."""

import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cryodc.device import own_part


class FileRows:
    """An array ``(n, p)`` in a file; like a tensor it is indexed by rows and set by slices of rows.

    It is read and written rather than mapped: touched pages of a map count as memory of the process.

    Parameters
    ----------
    folder
        Of a file system with room for it. The file has no name there, and a crash leaves nothing behind.
    shape, dtype
        Of the array.
    device
        Where rows are wanted.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.folder, self.shape, self.dtype, self.device = folder, shape, dtype, device
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._row_bytes = shape[1] * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Int[Tensor, " b"] | slice) -> Tensor:
        wanted = torch.arange(len(self))[rows if isinstance(rows, slice) else rows.cpu()].tolist()
        found = torch.empty(len(wanted), self.shape[1], dtype=self.dtype)
        content = found.numpy().reshape(-1).view(np.uint8).data
        start = 0
        while start < len(wanted):
            # As many neighbours as there are, in one go.
            stop = start + 1
            while stop < len(wanted) and wanted[stop] == wanted[stop - 1] + 1:
                stop += 1
            self._read(content[start * self._row_bytes : stop * self._row_bytes], wanted[start] * self._row_bytes)
            start = stop
        return found.to(self.device)

    def __setitem__(self, rows: slice, values: Tensor) -> None:
        content = values.contiguous().cpu().numpy().reshape(-1).view(np.uint8).data
        place, done = (rows.start or 0) * self._row_bytes, 0
        while done < len(content):
            done += os.pwrite(self._file.fileno(), content[done:], place + done)

    def _read(self, buffer: memoryview, place: int) -> None:
        done = 0
        while done < len(buffer):
            n_bytes = os.preadv(self._file.fileno(), [buffer[done:]], place + done)
            if n_bytes == 0:
                raise EOFError(f"row {place // self._row_bytes} was never written")
            done += n_bytes


Rows = Tensor | FileRows
"""An array ``(n, p)``, wherever it is."""


@dataclass(frozen=True)
class Storage:
    """Makes arrays with a row for each particle that this process keeps, in memory if all of them fit there.

    Parameters
    ----------
    n_particles
        How many all processes keep together.
    memory_bytes
        How much may be held.
    folder
        For what does not fit.
    """

    n_particles: int
    memory_bytes: float = float("inf")
    folder: Path | None = None

    @property
    def held(self) -> slice:
        """Which of all particles this process keeps."""
        return own_part(self.n_particles)

    def empty(self, n_values: int, dtypes: tuple[torch.dtype, ...], device: torch.device) -> tuple[Rows, ...]:
        """Arrays of so many values a particle, all of them held or none.

        Parameters
        ----------
        n_values
            ``p``.
        dtypes
            Of each array.
        device
            Where rows are wanted.
        """
        n_rows, folder = self.held.stop - self.held.start, self.folder
        shape, n_bytes = (n_rows, n_values), n_rows * n_values * sum(dtype.itemsize for dtype in dtypes)
        if folder is None or n_bytes <= self.memory_bytes:
            return tuple(torch.empty(shape, dtype=dtype, device=device) for dtype in dtypes)
        return tuple(FileRows(folder, shape, dtype, device) for dtype in dtypes)


def empty_like(rows: Rows) -> Rows:
    """Another array of the same kind and shape."""
    if isinstance(rows, Tensor):
        return torch.empty_like(rows)
    return FileRows(rows.folder, rows.shape, rows.dtype, rows.device)
