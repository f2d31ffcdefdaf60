"""The codes of a run: codes.npz."""

import numpy as np

from cryodc.codes import Codes
from cryodc.io import atomic_path
from cryodc.runs.folder import RunFolder
from cryodc.runs.summaries import damaged
from cryodc.runs.tables import read_arrays


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
            **of_templates,
        )


def load_codes(run: RunFolder) -> Codes:
    """Read codes.npz.

    Raises
    ------
    InputError
        If training has not finished, or the file is damaged.
    """
    arrays = read_arrays(run.codes, "cryodc train --resume")
    try:
        return Codes(
            tuple(str(name) for name in arrays["names"]),
            arrays["content"],
            arrays["transformation"],
            arrays["content_log_variance"],
            arrays["transformation_log_variance"],
            bool(arrays["directional"]),
            arrays.get("template_content"),
            arrays.get("template_pose"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(run.codes, "cryodc train --resume", str(error)) from error
