"""Tables of a run: log.csv, fsc.csv, fractions.csv; and arrays: codes.npz, groups.npz."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.runs.folder import require
from cryodc.runs.summaries import damaged

FSC_COLUMNS = ("class", "shell", "frequency_inverse_angstrom", "fsc")
"""Columns of fsc.csv that are read."""


def read_table(path: Path, columns: tuple[str, ...], made_by: str, text: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table that a verb wrote.

    Parameters
    ----------
    path
        The file.
    columns
        Columns that it must have, numbers all.
    made_by
        The command that writes it.
    text
        Columns that are text, which it must have too.

    Raises
    ------
    InputError
        If there is no such file, or it is not what that command writes.
    """
    kinds: dict[str, Any] = dict.fromkeys(text, str)
    try:
        table = pd.read_csv(require(path, made_by), dtype=kinds, keep_default_na=not text)
        missing = [name for name in (*columns, *text) if name not in table]
        wrong = [name for name in columns if name in table and not pd.api.types.is_numeric_dtype(table[name])]
    except (OSError, ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise damaged(path, made_by, str(error)) from error
    if missing or wrong or table.empty:
        found = f"no column {missing[0]}" if missing else f"no numbers in {wrong[0]}" if wrong else "no rows"
        raise damaged(path, made_by, found)
    return table


def read_arrays(path: Path, made_by: str) -> dict[str, NDArray[Any]]:
    """The arrays, by name, that a verb wrote into one file.

    Parameters
    ----------
    path
        The file, ``.npz``.
    made_by
        The command that writes it.

    Raises
    ------
    InputError
        If there is no such file, or it is damaged.
    """
    try:
        with require(path, made_by).open("rb") as file, np.load(file) as arrays:
            # An array whose header has become shorter would be read without its checksum.
            broken = arrays.zip.testzip()
            if broken is not None:
                raise zipfile.BadZipFile(f"the checksum of {broken} is another")
            return dict(arrays)
    except InputError:
        raise
    # What a damaged archive raises is up to zlib, zipfile, tokenize and numpy.
    except Exception as error:
        raise damaged(path, made_by, str(error) or type(error).__name__) from error
