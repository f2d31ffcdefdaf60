"""What a user asks of ``cryodc train``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryodc.dataset import InputOptions
from cryodc.models import Preset


@dataclass(frozen=True)
class TrainRequest:
    """What a user asks of ``cryodc train``.

    Parameters
    ----------
    star
        Particles, read-only: subtomograms, or the 2D images of single particles.
    out
        The run folder to make.
    preset, overrides
        Settings, see :func:`cryodc.models.presets.preset_config`.
    data_dir
        Where images are looked for after the current folder and the STAR's.
    tilt_range, tilt_ranges_csv, tilt_axis, invert
        See :class:`cryodc.dataset.reading.InputOptions`.
    packed
        Read particles from a pack; otherwise all are held in memory.
    pack
        One of these particles, made with the same options; by default one is made in the run folder.
    seed
        Of everything random.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    resume
        Go on with the run in ``out``, under the settings it began with.
    """

    star: Path
    out: Path
    preset: Preset = "default"
    overrides: dict[str, dict[str, Any]] | None = None
    data_dir: Path | None = None
    tilt_range: tuple[float, float] | None = None
    tilt_ranges_csv: Path | None = None
    tilt_axis: str = "y"
    invert: bool = False
    packed: bool = True
    pack: Path | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False

    def __post_init__(self) -> None:
        # A range that is none is a mistake, though the particles may have weights that make it needless.
        InputOptions(tilt_range=self.tilt_range)
