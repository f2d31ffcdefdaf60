"""The settings of a run: config.yaml."""

from pathlib import Path
from typing import Any

import yaml

from cryodc.dataset import InputOptions
from cryodc.io import read_tilt_ranges, write_text
from cryodc.runs.folder import RunFolder
from cryodc.runs.summaries import damaged

_SECTIONS = {"dataset": dict, "input": dict, "model": dict, "image_folders": list, "seed": int}


def load_config(run: RunFolder) -> dict[str, Any]:
    """The run's config.yaml as a dictionary.

    Raises
    ------
    InputError
        If it cannot be read, or is not what `cryodc train` writes.
    """
    try:
        content = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise damaged(run.config, "cryodc train", str(error)) from error
    sections = content if isinstance(content, dict) else {}
    missing = [name for name, kind in _SECTIONS.items() if not isinstance(sections.get(name), kind)]
    if missing:
        raise damaged(run.config, "cryodc train", f"no section {missing[0]}")
    return dict(sections)


def save_config(run: RunFolder, config: dict[str, Any]) -> None:
    """Write config.yaml."""
    write_text(run.config, yaml.safe_dump(config, sort_keys=False))


def input_options(given: dict[str, Any]) -> InputOptions:
    """The ``input`` section of config.yaml as options."""
    tilt_range, csv = given["tilt_range"], given["tilt_ranges"]
    return InputOptions(
        tilt_range=None if tilt_range is None else (tilt_range[0], tilt_range[1]),
        tilt_ranges=None if csv is None else read_tilt_ranges(Path(csv)),
        tilt_axis=given["tilt_axis"],
        invert=given["invert"],
    )
