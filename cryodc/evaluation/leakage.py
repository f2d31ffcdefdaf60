"""The leakage table: every factor from both codes, kept in the run folder as leakage.json."""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryodc.codes import Codes
from cryodc.errors import InputError
from cryodc.evaluation.factors import Factor, FactorName, run_factors
from cryodc.evaluation.probes import LinearProbe, Probe
from cryodc.evaluation.sources import RunSources
from cryodc.io import write_json
from cryodc.runs import RunFolder, load_codes

MAX_PARTICLES = 2000
SIGNIFICANT = 0.01
_LAYOUT = 1
_LEVELS = (0.1, 0.3)
TITLES: Mapping[FactorName, str] = {
    "orientation": "How it is turned",
    "shift": "Where it lies",
    "wedge_particle": "Wedge on the particle",
    "wedge_tomogram": "Wedge of the tomogram",
    "tomogram": "Which tomogram",
    "defocus": "Defocus",
    "signal": "How clear it is",
    "identity": "What it is",
}


@dataclass(frozen=True)
class LeakageRow:
    """One factor from both codes.

    Parameters
    ----------
    name, source, note
        As in :class:`cryodc.evaluation.factors.Factor`.
    content, transformation
        What each code tells of it.
    """

    name: FactorName
    source: str
    note: str
    content: Probe
    transformation: Probe

    @property
    def title(self) -> str:
        """In plain words."""
        return TITLES[self.name]

    @property
    def content_verdict(self) -> str:
        """What the content code holds of it, in words."""
        return verdict(self.content, wanted=self.name == "identity")

    @property
    def transformation_verdict(self) -> str:
        """What the transformation code holds of it, in words."""
        return verdict(self.transformation, wanted=self.name in ("orientation", "shift", "wedge_particle"))


@dataclass(frozen=True)
class LeakageTable:
    """What both codes hold of everything that is known of the particles.

    Parameters
    ----------
    rows
        One for each factor.
    n_particles, n_measured
        Of the run, and how many of them were drawn at random to be judged.
    seed
        Of the draw, folds and shufflings.
    """

    rows: tuple[LeakageRow, ...]
    n_particles: int
    n_measured: int
    seed: int

    @property
    def leaks(self) -> tuple[LeakageRow, ...]:
        """Rows of the content code that are a leak, the largest first."""
        found = [row for row in self.rows if "leak" in row.content_verdict and row.content_verdict != "no leak"]
        return tuple(sorted(found, key=lambda row: -row.content.corrected))

    @property
    def summary(self) -> str:
        """One sentence on the content code."""
        judged = [row for row in self.rows if not row.content.reason and row.name != "identity"]
        if not judged:
            return "Nothing could be judged: the reason stands in each row."
        if not self.leaks:
            return f"No leak found: of {len(judged)} quantities it should not hold, the content code holds none."
        listed = "; ".join(f"{row.title[0].lower()}{row.title[1:]} ({row.content_verdict})" for row in self.leaks)
        return f"Of {len(judged)} quantities it should not hold, the content code holds {len(self.leaks)}: {listed}."

    def to_json(self) -> dict[str, Any]:
        """As plain numbers; nan is None."""
        return {
            "n_particles": self.n_particles,
            "n_measured": self.n_measured,
            "seed": self.seed,
            "summary": self.summary,
            "rows": [
                {
                    "name": row.name,
                    "title": row.title,
                    "source": row.source,
                    "note": row.note,
                    "content": {**probe_json(row.content), "verdict": row.content_verdict},
                    "transformation": {**probe_json(row.transformation), "verdict": row.transformation_verdict},
                }
                for row in self.rows
            ],
        }


def verdict(probe: Probe, wanted: bool) -> str:
    """What a probe found, in words.

    Found is what at most 1 % of the shufflings reach and is better than chance; it is a trace below 0.1 of the way from
    chance to perfect, strong from 0.3. Chance is the shuffled mean, or R² 0 and AUC 0.5 where that is less, as it is
    after overfitting.

    Parameters
    ----------
    probe
        The measurement.
    wanted
        Whether the code is there to hold this.
    """
    if probe.reason:
        return "not computable"
    words = (
        ("not held", "trace held", "held", "well held") if wanted else ("no leak", "trace leak", "leak", "strong leak")
    )
    share = min(probe.corrected, probe.value if probe.measure == "R2" else 2 * probe.value - 1)
    if probe.p_value > SIGNIFICANT or share <= 0:
        return words[0]
    return words[1 + sum(share >= level for level in _LEVELS)]


def measure_leakage(codes: Codes, factors: Sequence[Factor], *, seed: int = 0) -> LeakageTable:
    """Probe both codes for every factor.

    The content code is taken as clustering takes it. Of more than 2,000 particles as many are drawn.

    Parameters
    ----------
    codes
        Of every particle.
    factors
        In the order of the codes.
    seed
        Draw, folds, shufflings and resamplings.
    """
    n = len(codes)
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[:MAX_PARTICLES])
    content, transformation = (
        _prober(block[drawn], seed) for block in (codes.content_points, codes.transformation_told)
    )
    rows = []
    for factor in (_drawn(factor, drawn) for factor in factors):
        hidden = replace(factor, reason=factor.content_reason) if factor.content_reason else factor
        rows.append(LeakageRow(factor.name, factor.source, factor.note, content(hidden), transformation(factor)))
    return LeakageTable(tuple(rows), n, len(drawn), seed)


def run_leakage(run: RunFolder, symmetries: Mapping[int, str] | None = None, *, seed: int = 0) -> LeakageTable:
    """The leakage table of a run without truth; from leakage.json if nothing it rests on has changed.

    Parameters
    ----------
    run
        Trained.
    symmetries
        Point group by rlnClassNumber; None takes what leakage.json was measured with, or C1.
    seed
        As in :func:`measure_leakage`.

    Raises
    ------
    InputError
        If the run has no codes yet, its files do not name the same particles, or a class or symmetry is unknown.
    """
    codes = load_codes(run)
    fingerprint = _fingerprint(run)
    kept = _read_table(run, fingerprint, symmetries, seed)
    if kept is not None:
        return kept
    table = measure_leakage(codes, run_factors(RunSources(run, codes.names), symmetries), seed=seed)
    groups = {str(number): group for number, group in (symmetries or {}).items()}
    # It can be measured again: a run that may only be read is no reason to fail.
    with contextlib.suppress(InputError):
        write_json(run.leakage, {"fingerprint": fingerprint, "symmetries": groups, **table.to_json()})
    return table


def probe_json(probe: Probe) -> dict[str, Any]:
    """A probe as plain numbers; nan is None."""
    return {
        key: (round(value, 4) if math.isfinite(value) else None) if isinstance(value, float) else value
        for key, value in asdict(probe).items()
    }


def _prober(codes: NDArray[np.float32], seed: int) -> Callable[[Factor], Probe]:
    """A function that probes these codes, and fits particles and strata it has seen before only once."""
    probes: dict[bytes, LinearProbe] = {}

    def probe(factor: Factor) -> Probe:
        measure: Literal["R2", "AUC"] = (
            "AUC" if factor.labels is not None or factor.name in ("tomogram", "identity") else "R2"
        )
        if factor.reason:
            return Probe(measure, reason=factor.reason)
        strata = factor.strata
        if factor.values is not None:
            strata = np.where(np.isfinite(factor.values).all(axis=1), strata, -1)
        key = strata.tobytes()
        if key not in probes:
            probes[key] = LinearProbe(codes, strata, seed)
        if factor.labels is not None:
            return probes[key].labels(factor.labels)
        if factor.values is None:
            raise ValueError(f"factor {factor.name} has neither values, labels nor a reason")
        return probes[key].values(factor.values)

    return probe


def _drawn(factor: Factor, drawn: NDArray[np.int64]) -> Factor:
    return replace(
        factor,
        strata=factor.strata[drawn],
        values=None if factor.values is None else factor.values[drawn],
        labels=None if factor.labels is None else factor.labels[drawn],
    )


def _fingerprint(run: RunFolder) -> str:
    """SHA-256 over every file the table rests on."""
    digest = hashlib.sha256(f"leakage {_LAYOUT}\n".encode())
    averages = (run.averages / "summary.json", run.averages / "particles.star")
    for path in (run.codes, run.particles, run.clusters / "summary.json", *averages):
        digest.update(f"{path.name} {path.exists()}\n".encode())
        if path.exists():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _read_table(
    run: RunFolder, fingerprint: str, symmetries: Mapping[int, str] | None, seed: int
) -> LeakageTable | None:
    """The table kept in the run folder, if it is whole and of these files, symmetries and seed."""
    try:
        content = json.loads(run.leakage.read_text(encoding="utf-8"))
        same = content["fingerprint"] == fingerprint and content["seed"] == seed
        groups = {int(number): group for number, group in content["symmetries"].items()}
        if not same or (symmetries is not None and groups != dict(symmetries)):
            return None
        rows = [
            LeakageRow(
                row["name"], row["source"], row["note"], _read_probe(row["content"]), _read_probe(row["transformation"])
            )
            for row in content["rows"]
        ]
        return LeakageTable(tuple(rows), content["n_particles"], content["n_measured"], seed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read_probe(content: dict[str, Any]) -> Probe:
    fields: dict[str, Any] = {key: math.nan if value is None else value for key, value in content.items()}
    del fields["verdict"]
    return Probe(**fields)
