"""The adapter of stw, against a stand-in that has what its protocol asks of adapters: stw is on no package index."""

import sys
from pathlib import Path

import pytest
import starfile

from tests.plugins.conftest import Answer

STAND_IN = {
    "adapters/base.py": """
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
@dataclass(frozen=True)
class PlannedStep:
    name: str
    argv: list
    env: dict = field(default_factory=dict)
    cwd: object = None
    cached: bool = False
class Adapter(ABC):
    @abstractmethod
    def plan(self, job): ...
    @abstractmethod
    def run(self, job, progress=None): ...
""",
    "capabilities.py": """
from dataclasses import dataclass
@dataclass(frozen=True)
class Capabilities:
    mask_kinds: frozenset
    wedge: frozenset
    alignment_states: frozenset
    does_own_alignment: bool
    deterministic: bool
    seed_semantics: str
    gpu: str
    emits_native_class_averages: bool
    parallelism: str
    min_particles: int = 8
""",
    "io/predictions.py": """
import csv
def write_predictions(path, labels, class_names=None):
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["particle", "class_int", "class_name"])
        rows.writerows([name, number, f"class_{number}"] for name, number in sorted(labels.items()))
""",
    "process.py": """
import subprocess
def run_streaming(argv, *, package="", env_extra=None, cwd=None, log_path=None, sink=None, progress_patterns=()):
    with open(log_path, "w") as log:
        return subprocess.run(argv, cwd=cwd, stdout=log, stderr=log).returncode, None
""",
    "progress.py": """
class NullSink:
    def __getattr__(self, name):
        return lambda *arguments, **named: None
""",
    "requirements.py": """
from dataclasses import dataclass
from enum import Enum
ReqKind = Enum("ReqKind", {"EXECUTABLE": "executable"})
InstallTier = Enum("InstallTier", {"C_GUIDED": "detect_and_guide"})
@dataclass(frozen=True)
class Requirement:
    kind: ReqKind
    name: str
    install_hint: str = ""
""",
    "results.py": """
from dataclasses import dataclass, field
@dataclass
class PackageResult:
    package: str
    k: int
    seed: int
    status: str
    predictions: object = None
    labels: object = None
    class_averages: dict = field(default_factory=dict)
    n_per_class: dict = field(default_factory=dict)
    elapsed_sec: object = None
    log: object = None
    error: object = None
""",
    "spec.py": """
from enum import Enum
AlignmentState = Enum("AlignmentState", {"UNALIGNED": "unaligned", "ROUGH": "rough", "FINE": "fine"})
MaskKind = Enum("MaskKind", {"NONE": "none", "AUTO": "auto"})
WedgeKind = Enum("WedgeKind", {"NONE": "none", "UNIFORM": "uniform", "PER_PARTICLE": "per_particle"})
""",
}

SCRIPT = """
import json, sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace as Of
from stw.spec import AlignmentState, WedgeKind
adapter = next(iter(entry_points(group="stw.adapters", name="cryodc"))).load()()
folder, kind, table = Path(FOLDER), KIND, Path.cwd() / "tilts.csv"
files = tuple(sorted(path.name for path in folder.glob("*.mrc")))
if kind == "PER_PARTICLE":
    table.write_text("particle,tilt_min,tilt_max\\n" + "".join(f"{name},-60,60\\n" for name in files))
work = Path.cwd() / "work"
work.mkdir()
job = Of(
    particles=Of(files=files, box=24, pixel_size=15.0, path_for=lambda name: folder / name),
    wedge=Of(kind=WedgeKind[kind], tilt_min=-60.0, tilt_max=60.0, tilt_axis="y", table=table),
    alignment_state=AlignmentState.FINE, k=2, seed=0, threads=1, workdir=work,
    predictions_csv=work / "predictions.csv", log_path=work / "run.log", options=OPTIONS,
)
result = adapter.run(job)
print(json.dumps({
    "plan": [step.argv[0] for step in adapter.plan(job)], "status": result.status, "error": result.error,
    "labels": result.labels, "sizes": result.n_per_class,
    "maps": [path.exists() for path in result.class_averages.values()],
}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "stw_here"
    for name, text in STAND_IN.items():
        file = folder / "stw" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text)
    (folder / "stw/__init__.py").touch()
    (folder / "small.yaml").write_text(
        "model: {width: 8, max_channels: 16}\noptimisation: {epochs: 1, batch_size: 8}\n"
    )
    return folder


def script(particles: Path, kind: str, options: dict[str, object]) -> str:
    return (
        SCRIPT.replace("FOLDER", repr(str(particles))).replace("KIND", repr(kind), 1).replace("OPTIONS", repr(options))
    )


@pytest.mark.parametrize("kind", ["UNIFORM", "PER_PARTICLE"])
def test_every_particle_has_a_class_and_every_class_a_map(
    ask_python: Answer, folder: Path, small_run: Path, kind: str
) -> None:
    particles = small_run.parent / "sim/subtomograms"
    told = ask_python(sys.executable, script(particles, kind, {"config": "small.yaml"}), folder)
    assert told["status"] == "ok", told["error"]
    assert told["plan"] == ["<in-process>", "cryodc", "<in-process>"]
    assert sorted(told["labels"]) == sorted(path.name for path in particles.glob("*.mrc"))
    assert set(told["labels"].values()) == {1, 2}
    assert sum(told["sizes"].values()) == 24
    assert told["maps"] == [True, True]
    written = (folder / "work/predictions.csv").read_text().splitlines()
    assert written[0] == "particle,class_int,class_name"
    assert len(written) == 1 + 24
    # Aligned particles are averaged as they lie.
    averaged = starfile.read(folder / "work/cryodc/particles.star")["particles"]
    assert (averaged[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]] == 0).all(axis=None)


def test_a_failure_is_told_in_the_result(ask_python: Answer, folder: Path, small_run: Path) -> None:
    told = ask_python(sys.executable, script(small_run.parent / "sim/subtomograms", "UNIFORM", {"no_such": 1}), folder)
    assert told["status"] == "failed"
    assert "run.log" in told["error"]
    assert "no_such" in (folder / "work/run.log").read_text()
