"""The summaries of a run, one for each folder that a verb writes: their fields, and their sources."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cryodc.errors import InputError
from cryodc.io import write_text
from cryodc.maps import Kind
from cryodc.runs.classes import Trial
from cryodc.runs.folder import require

SUMMARY = "summary.json"
_CLASS = AliasChoices("class", "class_number")


class Summary(BaseModel):
    """The fields that every summary has.

    Parameters
    ----------
    version
        Of its fields.
    made_of
        :func:`fingerprint` of the files it was made of.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    made_of: str


Requested = Literal["auto", "by hand"]
"""How many clusters there are to be was left to `cryodc cluster`, or a user chose the particles of each."""


class ClusterSummary(Summary):
    """clusters/summary.json; made of codes.npz."""

    n_clusters: int = Field(ge=1)
    requested: int | Requested
    sizes: list[int]
    stability: float
    verdict: str
    trials: list[Trial]
    seed: int
    names: list[str]
    labels: list[int]
    confidence: list[float]

    @model_validator(mode="after")
    def _whole(self) -> "ClusterSummary":
        if not len(self.names) == len(self.labels) == len(self.confidence):
            raise ValueError("names, labels and confidence differ in length")
        if any(not 0 <= label < self.n_clusters for label in self.labels):
            raise ValueError("a label is of no cluster")
        return self


class ClassSummary(BaseModel):
    """One class in averages/summary.json; see docs/averages.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    class_number: int = Field(validation_alias=_CLASS, serialization_alias="class", ge=1)
    n_particles: int
    fraction: float
    fraction_interval: tuple[float, float]
    resolution_angstrom: float | None
    b_factor: float | None
    fourier_measured: float
    fourier_efficiency: float
    fourier_evenness: float
    aligned: bool
    score: float
    note: str
    verdict: Kind
    reason: str
    shape: dict[str, float]
    brightness: float
    roundness: float | None


class ClassificationSummary(BaseModel):
    """The result of classification. Only ``verdict`` is set if no cluster could be aligned.

    Parameters
    ----------
    labels, confidence
        Final class of each particle in the order of the clusters, 0-based, −1 for none, and its probability.
    warnings
        Reasons for doubt about the classes, a sentence each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: str
    settled: bool = False
    changed: int = 0
    unassigned: int = 0
    unaligned_clusters: list[int] = []
    false_positive_rate: float | None = None
    excess_threshold: list[float] | None = None
    cluster_to_class: list[list[int]] = []
    cluster_to_unassigned: list[int] = []
    labels: list[int] | None = None
    confidence: list[float] | None = None
    warnings: list[str] = []


class AverageSummary(Summary):
    """averages/summary.json; made of clusters/summary.json."""

    poses: Literal["star", "aligned"]
    half_sets: str
    seed: int
    classes: list[ClassSummary]
    masks: dict[str, str] = {}
    classification: ClassificationSummary | None = None

    def of_class(self, number: int) -> ClassSummary | None:
        """The summary of a class, or None if there is no such class."""
        return next((entry for entry in self.classes if entry.class_number == number), None)


class StatesSummary(Summary):
    """states/classKKK/summary.json; made of averages/summary.json and averages/particles.star."""

    class_number: int = Field(validation_alias=_CLASS, serialization_alias="class", ge=1)
    n_particles: int
    n_states: int = Field(ge=1)
    requested: int | Literal["auto"]
    verdict: str
    stability: float
    states: list[dict[str, Any]]
    trials: list[dict[str, Any]]
    axes: int = Field(ge=0)
    axes_supported: int = Field(ge=0)
    axis_steps: list[float]
    transformation_codes: dict[str, Any] | None
    finest_angstrom: float
    mask: str
    relaxed_symmetry: str
    moved_to_a_mate: int
    half_sets: str
    seed: int


class IdentifySummary(Summary):
    """identified/summary.json; made of averages/summary.json and averages/particles.star.

    ``classes`` says of each its ``class``, ``name`` and ``why``.
    """

    library: str
    left_out: dict[str, str]
    n_decoys: int
    seed: int
    classes: list[dict[str, Any]]


class DecodedSummary(Summary):
    """What every summary in generated/ says; made of the codes and the classes that were decoded."""

    view: Literal["slices", "projection"]
    decoded_codes: Literal["templates", "network"]
    seed: int


class GridSummary(DecodedSummary):
    """generated/grid/summary.json."""

    content_of: list[str]
    transformation_of: list[str]
    variance_by_content: float
    variance_by_transformation: float
    variance_by_both_together: float


class TraversedAxis(BaseModel):
    """One axis in generated/classKKK/summary.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variance_share: float
    change: float
    direction: list[float]


class TraversalSummary(DecodedSummary):
    """generated/classKKK/summary.json."""

    class_number: int = Field(validation_alias=_CLASS, serialization_alias="class", ge=1)
    n_particles: int
    n_steps: int
    axes: list[TraversedAxis]


class GivenSummary(Summary):
    """summary.json of a folder for other programs; made of the averages, as states are.

    Parameters
    ----------
    verb
        Which wrote it.
    run
        The run folder.
    settings
        As the user gave them.
    """

    verb: Literal["export", "map-back"]
    run: str
    settings: dict[str, Any]


S = TypeVar("S", bound=Summary)


def write_summary(folder: Path, summary: Summary) -> None:
    """Write summary.json into its folder."""
    write_text(folder / SUMMARY, summary.model_dump_json(indent=2, by_alias=True) + "\n")


def read_summary(folder: Path, kind: type[S], made_by: str) -> S:
    """The summary in a folder.

    Parameters
    ----------
    folder
        Of the run, or of what is being written.
    kind
        What it must be.
    made_by
        The command that makes it, for the error message.

    Raises
    ------
    InputError
        If there is none, it cannot be read, or it is not of this kind or version.
    """
    path = require(folder / SUMMARY, made_by)
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = f"{where}: {first['msg']}" if where else first["msg"]
    except OSError as error:
        found = str(error.strerror)
    raise damaged(path, made_by, found)


def damaged(path: Path, made_by: str, found: str) -> InputError:
    """The error for a damaged file of a run."""
    return InputError(
        "this file of the run is damaged, or another version wrote it",
        file=path,
        expected=f"as `{made_by}` writes it",
        found=found.splitlines()[0] if found else None,
        remedy=f"run `{made_by}` again",
    )


def fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 over the content of files, in this order."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(
                f"cannot read: {error.strerror}",
                file=path,
                expected="a file of the run",
                remedy="make it readable; where it is gone, `cryodc status` names the command that makes it",
            ) from error
    return digest.hexdigest()
