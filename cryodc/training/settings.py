"""Settings a user gives: a YAML file, options, and what is wrong with them."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cryodc.errors import InputError
from cryodc.io import read_yaml
from cryodc.models import Preset, TrainConfig, preset_config


def read_overrides(path: Path | None) -> dict[str, dict[str, Any]]:
    """Settings from a YAML file with sections model, loss, views and optimisation; none for no file.

    Raises
    ------
    InputError
        If it is no YAML, or holds anything but these sections.
    """
    if path is None:
        return {}
    content = read_yaml(path, "settings")
    sections = set(TrainConfig.model_fields)
    if not set(content) <= sections:
        found = ", ".join(map(str, content))
        raise InputError(
            "unknown section",
            file=path,
            expected=", ".join(sorted(sections)),
            found=found,
            remedy="copy these sections from the config.yaml of a run",
        )
    for section, values in content.items():
        if not isinstance(values, dict):
            raise InputError(
                f"section {section} is no table of settings",
                file=path,
                expected=f"{section}:, and its settings in lines below, indented",
                found=type(values).__name__,
            )
    return {section: dict(values) for section, values in content.items()}


def checked_config(
    preset: Preset,
    box_size: int,
    overrides: dict[str, dict[str, Any]] | None = None,
    n_particles: int | None = None,
) -> TrainConfig:
    """:func:`cryodc.models.presets.preset_config`, with a mistake told as one.

    Parameters
    ----------
    preset, box_size, overrides, n_particles
        As it takes them.

    Raises
    ------
    InputError
        If a setting is unknown or out of range.
    """
    try:
        return preset_config(preset, box_size, overrides, n_particles)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"setting {name}: {first['msg'][0].lower()}{first['msg'][1:]}",
            found=str(first.get("input")),
            remedy="see `cryodc train --help` for the range of every setting",
        ) from error
