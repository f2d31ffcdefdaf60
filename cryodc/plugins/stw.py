"""cryodc in the table of ``stw``, the wrapper that compares subtomogram classification packages; imported by it only.

An adapter runs ``cryodc relion-job`` on a STAR of the particles that ``stw`` names, and gives their classes.
Source: ``stw/adapters/base.py`` of github.com/jblaser2/subtomogram-classification-wrapper, 0.1.0.dev0.
"""

import csv
import time
from pathlib import Path
from typing import Any

from stw.adapters.base import Adapter, PlannedStep
from stw.capabilities import Capabilities
from stw.io.predictions import write_predictions
from stw.process import run_streaming
from stw.progress import NullSink
from stw.requirements import InstallTier, ReqKind, Requirement
from stw.results import PackageResult
from stw.spec import AlignmentState, MaskKind, WedgeKind

from cryodc.io import write_text
from cryodc.star import find_particle_block, read_star, read_whole_numbers, star_table


class CryodcAdapter(Adapter):  # type: ignore[misc]
    """Content codes of templates, clustered; each class averaged, and aligned from nothing where particles are not."""

    name = "cryodc"
    display_name = "cryodc"
    tier = InstallTier.C_GUIDED
    algorithm = (
        "Templates learned from the particles without labels; how well each particle matches each of them, in all "
        "orientations and where it was measured, is clustered."
    )
    requirements = (Requirement(ReqKind.EXECUTABLE, "cryodc", install_hint="in a clone of cryodc: pip install ."),)
    steps = ("particles", "classify", "collect")
    capabilities = Capabilities(
        mask_kinds=frozenset({MaskKind.NONE, MaskKind.AUTO}),
        wedge=frozenset({WedgeKind.NONE, WedgeKind.UNIFORM, WedgeKind.PER_PARTICLE}),
        alignment_states=frozenset(AlignmentState),
        does_own_alignment=True,
        deterministic=True,
        seed_semantics="true_seed",
        gpu="optional",
        emits_native_class_averages=True,
        parallelism="threads",
    )

    def plan(self, job: Any) -> list[Any]:
        """The steps, with the command of the one that computes."""
        inside = {step: ["<in-process>", self.name, step] for step in self.steps}
        return [PlannedStep(step, argv) for step, argv in (inside | {"classify": _command(job)}).items()]

    def run(self, job: Any, progress: Any = None) -> Any:
        """Classify the particles of a job; a failure is told in the result."""
        sink, started = progress or NullSink(), time.monotonic()
        sink.start_job(self.name, list(self.steps))
        try:
            sink.step(self.name, "particles", 1, len(self.steps))
            _write_particles(job)
            sink.step(self.name, "classify", 2, len(self.steps))
            code, _ = run_streaming(_command(job), package=self.name, log_path=job.log_path, sink=sink)
            if code != 0:
                raise RuntimeError(f"cryodc ended with code {code}; see {job.log_path}")
            sink.step(self.name, "collect", 3, len(self.steps))
            labels = self.collect(job)
            write_predictions(job.predictions_csv, labels)
        except Exception as error:
            sink.finish_job(self.name, ok=False, message=str(error))
            return PackageResult(self.name, job.k, job.seed, "failed", log=job.log_path, error=str(error))
        seconds = time.monotonic() - started
        sizes = {number: list(labels.values()).count(number) for number in sorted(set(labels.values()))}
        maps = {number: _folder(job) / f"run/averages/class{number:03d}.mrc" for number in sizes}
        sink.finish_job(self.name, ok=True, message=f"{seconds:.1f}s")
        return PackageResult(
            self.name,
            job.k,
            job.seed,
            "ok",
            predictions=job.predictions_csv,
            labels=labels,
            class_averages={number: path for number, path in maps.items() if path.exists()},
            n_per_class=sizes,
            elapsed_sec=seconds,
            log=job.log_path,
        )

    def collect(self, job: Any) -> dict[str, int]:
        """The class of each particle, by its file, from 1."""
        document = read_star(_folder(job) / "particles.star")
        block = find_particle_block(document)
        names = [Path(name).name for name in block.column("rlnImageName")]
        return dict(zip(names, read_whole_numbers(document, block, "rlnClassNumber").tolist(), strict=True))


def _folder(job: Any) -> Path:
    return Path(job.workdir) / "cryodc"


def _command(job: Any) -> list[str]:
    """``cryodc relion-job``, with the wedge of the job and its options."""
    words = ["cryodc", "relion-job", "--in_parts", str(Path(job.workdir) / "particles.star"), "--o", str(_folder(job))]
    # As many classes as were asked for: alignment would split and merge them.
    words += ["--j", str(job.threads), "--k", str(job.k), "--seed", str(job.seed), "--no-classify"]
    if job.wedge.kind == WedgeKind.UNIFORM:
        words += ["--tilt-range", f"{job.wedge.tilt_min:g}", f"{job.wedge.tilt_max:g}"]
        words += ["--tilt-axis", job.wedge.tilt_axis]
    elif job.wedge.kind == WedgeKind.PER_PARTICLE:
        words += ["--tilt-ranges", str(Path(job.workdir) / "tilt_ranges.csv")]
    else:
        # Everything counts as measured.
        words += ["--tilt-range", "-90", "90"]
    return words + [word for key, value in job.options.items() for word in (f"--{key}", str(value))]


def _write_particles(job: Any) -> None:
    """The job's particles as a STAR; each is its own tomogram, so that each may have its own tilt range."""
    particles, work = job.particles, Path(job.workdir)
    stems = [Path(name).stem for name in particles.files]
    optics = {
        "rlnOpticsGroup": ["1"],
        "rlnImagePixelSize": [f"{particles.pixel_size:g}"],
        "rlnImageSize": [str(particles.box)],
        "rlnImageDimensionality": ["3"],
    }
    columns = {
        "rlnMicrographName": stems,
        "rlnImageName": [str(particles.path_for(name)) for name in particles.files],
        "rlnOpticsGroup": ["1"] * len(stems),
    }
    if job.alignment_state != AlignmentState.UNALIGNED:
        labels = [f"rlnAngle{name}" for name in ("Rot", "Tilt", "Psi")] + [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
        columns |= {label: ["0.000000"] * len(stems) for label in labels}
    blocks = (star_table("optics", optics), star_table("particles", columns))
    write_text(work / "particles.star", "".join(f"\n# version 30001\n\n{block}\n" for block in blocks))
    if job.wedge.kind == WedgeKind.PER_PARTICLE:
        with Path(job.wedge.table).open(encoding="utf-8") as file:
            rows = [(Path(row["particle"]).stem, row["tilt_min"], row["tilt_max"]) for row in csv.DictReader(file)]
        lines = ["tomogram,tilt_min,tilt_max", *(",".join(row) for row in rows)]
        write_text(work / "tilt_ranges.csv", "\n".join(lines) + "\n")
