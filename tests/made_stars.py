"""STAR files of particles, and the images they name, as tests write them; the sample files of other programs."""

from pathlib import Path

import numpy as np

from cryodc.io import write_volume
from cryodc.volumes import Volume

# What each STAR of the sample folder is: (particles, box size, spacing) where it is read, else why it is not.
SAMPLES: dict[str, tuple[int, int, float] | str] = {
    "cryocat_R5_tutorial_run_data.star.gz": "stacks of 2D tilt images",
    "cryocat_R5_tutorial_run_tomograms.star": "holds no particles",
    "cryocat_relion5_1_run_it025_data.star.gz": (7488, 120, 4.828),
    "cryocat_relion_3.0.star": (3, 0, 5.364),
    "cryocat_relion_3.1_optics2.star": (3, 118, 3.446),
    "cryocat_relion_4.0.star.gz": (1746, 64, 3.942),
    "cryocat_warp2_matching_optimisation_set.star": "holds no particles",
    "cryocat_warp2_matching_tomograms.star": "holds no particles",
    "cryocat_warp2_particles_matching.star": "stacks of 2D tilt images",
    "cylindra_run_it025_data.star": "stacks of 2D tilt images",
    "czportal_relion_4_star.star": (6, 128, 1.0),
    "dynamo2m_example.star": (1399, 0, 5.0),
    "relion31.6opticsgroups.star": "2D single-particle images",
    "relion31.v2.star": "2D single-particle images",
    "starfile_empty_loop.star": "holds no particles",
    "starfile_loop_double_quote.star": "holds no particles",
    "starfile_single_line_middle_of_multiblock.star": "several blocks could be the particles",
    "tom_test_2018.star": (9, 256, 2.619996),
}


def _data_star(folder: Path, text: str, name: str = "particles.star") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _volumes(folder: Path, names: list[str], box: int = 8, spacing: float = 10.0) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        write_volume(folder / name, Volume(rng.standard_normal((box, box, box)).astype(np.float32), spacing))


def _star_31(rows: list[str], labels: str = "rlnImageName rlnOpticsGroup", spacing: float = 10.0, box: int = 8) -> str:
    header = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels.split(), start=1))
    return (
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n_rlnImageSize #3\n"
        "_rlnImageDimensionality #4\n"
        f"1 {spacing} {box} 3\n\n\ndata_particles\n\nloop_\n{header}\n" + "\n".join(rows) + "\n"
    )
