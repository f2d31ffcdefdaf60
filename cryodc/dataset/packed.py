"""Rows of a pack as tensors, read on demand."""

import os
import weakref
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.dataset.pack_files import PackRecipe
from cryodc.errors import InputError


class PackedArray:
    """An array of a pack; indexing it reads rows as float32, in the order asked.

    Rows are read rather than mapped: every page of a memory map that was touched counts as memory of the process,
    and a file cut short under a map kills it.

    Parameters
    ----------
    folder, name
        The file: ``volumes.npy`` or ``weights.npy``.
    recipe
        Of the pack.

    Raises
    ------
    InputError
        If the file cannot be opened; on reading, if it has become shorter.
    """

    def __init__(self, folder: Path, name: str, recipe: PackRecipe) -> None:
        self.path, self.shape = folder / name, recipe.shapes[name]
        self._dtype = torch.float16 if recipe.dtype == "float16" else torch.float32
        self._start, self._row_bytes = len(recipe.header(name)), recipe.row_bytes(name)
        try:
            self._file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(
                f"cannot open the pack: {error.strerror}",
                file=self.path,
                expected="the file that `cryodc pack` or `cryodc train` wrote there",
                remedy="put it back where it was and make it readable, or pack the particles again",
            ) from error
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b d h w"]:
        rows = indices.numpy()
        found = torch.empty((len(rows), *self.shape[1:]), dtype=self._dtype)
        content, n = found.numpy().reshape(-1).view(np.uint8).data, self._row_bytes
        wanted = [(content[i * n : (i + 1) * n], self._start + int(rows[i]) * n) for i in np.argsort(rows)]
        # Rows that are in the page cache first; a disk is then asked for all others at once.
        missing = [(buffer, place) for buffer, place in wanted if not self._read_cached(buffer, place)]
        if hasattr(os, "posix_fadvise"):
            for _, place in missing:
                os.posix_fadvise(self._file, place, n, os.POSIX_FADV_WILLNEED)
        for buffer, place in missing:
            self._read(buffer, place)
        return found.float()

    def _read_cached(self, buffer: memoryview, place: int) -> bool:
        try:
            return hasattr(os, "RWF_NOWAIT") and os.preadv(self._file, [buffer], place, os.RWF_NOWAIT) == len(buffer)
        except OSError:
            # It would have to wait, or this file system cannot tell.
            return False

    def _read(self, buffer: memoryview, place: int) -> None:
        done = 0
        while done < len(buffer):
            n_bytes = os.preadv(self._file, [buffer[done:]], place + done)
            if n_bytes == 0:
                raise InputError(
                    "the pack was cut short while it was in use",
                    file=self.path,
                    expected=f"{len(self)} rows of {self._row_bytes} bytes",
                    remedy="delete its folder and pack the particles again",
                )
            done += n_bytes
