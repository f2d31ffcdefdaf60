"""The folder of a RELION External job: marks that RELION waits for, and the files it offers to later jobs.

RELION calls an executable with ``--o External/job012/ --in_parts particles.star --LABEL VALUE … --j N`` in the folder
of the project. How the job ended is said by an empty file ``RELION_JOB_EXIT_…``. What it made stands in
``RELION_OUTPUT_NODES.star``: with the number of its type for RELION 3.1, with a label for RELION 4 and 5. Source:
RELION's ``pipeliner.cpp`` and ``pipeline_control.h``.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryodc.io import atomic_path, write_text
from cryodc.runs import RunFolder, current_averages
from cryodc.star import star_table

_MARK = "RELION_JOB_EXIT_"
_ABORT = "RELION_JOB_ABORT_NOW"

_PARTICLES = ("3", "ParticleGroupMetadata.star.relion")
_MAP = ("6", "DensityMap.mrc")
_MASK = ("7", "Mask3D.mrc")
_HALF_MAP = ("10", "DensityMap.mrc.halfmap")
_MAPS = (
    ("class{:03d}.mrc", _MAP),
    ("class{:03d}_half1.mrc", _HALF_MAP),
    ("class{:03d}_half2.mrc", _HALF_MAP),
    ("class{:03d}_mask.mrc", _MASK),
)


@dataclass(frozen=True)
class RelionJob:
    """One External job of a RELION project.

    Parameters
    ----------
    folder
        Its folder, as RELION names it from the folder of the project.
    """

    folder: Path

    @property
    def run(self) -> RunFolder:
        """The run folder of the job: a run has a folder of its own, and RELION writes into the job's."""
        return RunFolder(self.folder / "run")

    @property
    def particles(self) -> Path:
        """The particles with their classes, for later jobs."""
        return self.folder / "particles.star"

    @property
    def done(self) -> Path:
        """Which steps are done, and with which options."""
        return self.folder / "cryodc_job.json"

    def begin(self) -> None:
        """Make the folder, and take away what an earlier attempt said of its end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for mark in (*self.folder.glob(f"{_MARK}*"), self.folder / _ABORT):
            mark.unlink(missing_ok=True)

    def end(self, how: Literal["SUCCESS", "FAILURE", "ABORTED"]) -> None:
        """Say how the job ended."""
        (self.folder / f"{_MARK}{how}").touch()

    def abort_asked(self) -> bool:
        """Whether RELION wants the job to stop."""
        return (self.folder / _ABORT).exists()

    def offer(self) -> list[Path]:
        """Write the particles and RELION_OUTPUT_NODES.star: what later jobs may take.

        Particles are those of ``average``, with classes, half sets and poses; of images, which are not averaged, those
        of ``cluster``. Every other character of the input STAR stays.

        Returns
        -------
        What is offered.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        averages = current_averages(self.run)
        source = self.run.clusters / "clusters.star" if averages is None else self.run.averages / "particles.star"
        with atomic_path(self.particles) as temporary:
            shutil.copyfile(source, temporary)
        offered = [(self.particles, _PARTICLES)]
        for one in [] if averages is None else averages.classes:
            named = [(self.run.averages / name.format(one.class_number), kind) for name, kind in _MAPS]
            offered += [(path, kind) for path, kind in named if path.exists()]
        columns = {
            "rlnPipeLineNodeName": [str(path) for path, _ in offered],
            "rlnPipeLineNodeType": [number for _, (number, _) in offered],
            "rlnPipeLineNodeTypeLabel": [label for _, (_, label) in offered],
        }
        write_text(self.folder / "RELION_OUTPUT_NODES.star", star_table("output_nodes", columns))
        return [path for path, _ in offered]
