"""The settings of a run: config.yaml."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cryodc.dataset import InputOptions
from cryodc.errors import InputError
from cryodc.fourier import TiltAxis
from cryodc.io import read_yaml, write_text
from cryodc.runs.folder import RunFolder
from cryodc.runs.summaries import damaged
from cryodc.tilt_angles import read_tilt_ranges

Range = Annotated[list[float], Field(min_length=2, max_length=2)]
_WHAT = "the settings of a run"


class _Part(BaseModel):
    """What others read of a part of config.yaml; the rest of it is theirs who wrote it."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Voxels(_Part):
    box_size: int = Field(ge=2)
    spacing_angstrom: float = Field(gt=0)


class _Pack(_Voxels):
    path: str
    dtype: Literal["float32", "float16"]


class _Input(_Part):
    tilt_range: Range | None
    tilt_ranges: str | None
    tilt_axis: TiltAxis
    invert: bool


class _Model(_Part):
    name: str
    dims: Literal[2, 3]


class _Config(_Part):
    command: str
    preset: str
    seed: int
    image_folders: list[str]
    dataset: _Voxels
    input: _Input
    pack: _Pack | None = None
    model: _Model
    loss: dict[str, Any]
    views: dict[str, Any]
    optimisation: dict[str, Any]
    templates: dict[str, Any] = {}


def load_config(run: RunFolder) -> dict[str, Any]:
    """The run's config.yaml as a dictionary.

    Raises
    ------
    InputError
        If it cannot be read, or is not what `cryodc train` writes.
    """
    try:
        content = read_yaml(run.config, _WHAT)
        _Config.model_validate(content)
    except InputError as error:
        raise damaged(run.config, "cryodc train", error.found or error.problem) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise damaged(run.config, "cryodc train", f"{place}: {first['msg']}") from error
    return content


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
