"""Rows of a pack as tensors, read when they are asked for."""

import os
import weakref
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.errors import InputError
from cryodc.io.pack import PackRecipe


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
        self._dtype = np.dtype(recipe.dtype)
        self._start, self._row_bytes = len(recipe.header(name)), recipe.row_bytes(name)
        try:
            self._file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"cannot open the pack: {error.strerror}", file=self.path) from error
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b d h w"]:
        rows = indices.numpy()
        found = np.empty((len(rows), *self.shape[1:]), self._dtype)
        buffers = found.reshape(len(rows), -1).view(np.uint8)
        # In the order of the file: a disk reads ahead.
        for place in np.argsort(rows, kind="stable"):
            self._read_into(memoryview(buffers[place]), int(rows[place]))
        # torch widens float16 ten times faster than numpy.
        return torch.from_numpy(found).float()

    def _read_into(self, buffer: memoryview, row: int) -> None:
        done = 0
        while done < self._row_bytes:
            n_bytes = os.preadv(self._file, [buffer[done:]], self._start + row * self._row_bytes + done)
            if n_bytes == 0:
                raise InputError(
                    "the pack was cut short while it was in use",
                    file=self.path,
                    expected=f"{len(self)} rows of {self._row_bytes} bytes",
                    remedy="delete its folder and pack the particles again",
                )
            done += n_bytes
