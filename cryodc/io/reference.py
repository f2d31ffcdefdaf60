"""Where the voxels of one particle lie: a file, or a section of a stack."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, init=False)
class ImageReference:
    """A subtomogram's place on disk: an MRC file, or one section (0-based) of a stack of volumes.

    The file is kept as text: a Path takes ten times the time and memory, and a STAR may name a million.
    """

    file: str
    section: int | None

    def __init__(self, path: Path | str, section: int | None = None) -> None:
        object.__setattr__(self, "file", str(path))
        object.__setattr__(self, "section", section)

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.file)

    def __str__(self) -> str:
        return self.file if self.section is None else f"{self.section + 1:06d}@{self.file}"
