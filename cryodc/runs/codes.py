"""The codes of a run: codes.npz."""

import zipfile

import numpy as np

from cryodc.codes import Codes
from cryodc.io import atomic_path
from cryodc.runs.folder import RunFolder, require
from cryodc.runs.summaries import damaged


def save_codes(run: RunFolder, codes: Codes) -> None:
    """Write codes.npz."""
    of_templates = {
        name: getattr(codes, name) for name in ("template_content", "template_pose") if getattr(codes, name) is not None
    }
    with atomic_path(run.codes) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            names=np.array(codes.names),
            content=codes.content,
            transformation=codes.transformation,
            content_log_variance=codes.content_log_variance,
            transformation_log_variance=codes.transformation_log_variance,
            directional=np.array(codes.directional),
            awaits_templates=np.array(codes.awaits_templates),
            **of_templates,
        )


def load_codes(run: RunFolder) -> Codes:
    """Read codes.npz.

    Raises
    ------
    InputError
        If training has not finished, or the file is damaged.
    """
    path = require(run.codes, "cryodc train")
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return Codes(
                tuple(str(name) for name in arrays["names"]),
                arrays["content"],
                arrays["transformation"],
                arrays["content_log_variance"],
                arrays["transformation_log_variance"],
                bool(arrays["directional"]),
                arrays.get("template_content"),
                arrays.get("template_pose"),
                bool(arrays["awaits_templates"]),
            )
    # What a damaged archive raises is up to zlib, zipfile and numpy.
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        zipfile.error,
        zipfile.BadZipFile,
        NotImplementedError,
        MemoryError,
        SyntaxError,
    ) as error:
        raise damaged(path, "cryodc train --resume", str(error) or type(error).__name__) from error
