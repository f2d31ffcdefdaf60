"""Other programs on the same particles, where they are installed."""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from cryodc.bench.stages import PROTEINS, Done, Timed, Work, compare_poses
from cryodc.errors import InputError
from cryodc.geometry import rotation_grid
from cryodc.io import read_volume
from cryodc.particles import Poses, read_particles
from cryodc.star import find_particle_block, read_star, write_star

_RELION = {
    "iter": 1,
    "particle_diameter": 280,
    "ini_high": 40,
    "oversampling": 1,
    "offset_range": 4,
    "offset_step": 2,
    "pad": 2,
    "sym": "C1",
    "j": 1,
}
"""One iteration on a given map: shifts 1 voxel apart after oversampling."""
_FEW = 8
"""Particles of a search that takes a second or more for each."""
_RELION_FLAGS = ("firstiter_cc", "ctf", "norm", "scale", "flatten_solvent", "zero_mask", "dont_check_norm")
_STEP_DEGREES, _REACH_VOXELS = 25.0, 3.0


@dataclass(frozen=True)
class Rival:
    """Another program: whether it is here, how to get it, and what makes it ready."""

    installed: Callable[[], bool]
    remedy: str
    begin: Callable[[Work], Timed]


def _relion(work: Work, healpix_order: int, most: int | None) -> Timed:
    """The poses of one class, or of a few particles of it, on its true map, by one iteration of ``relion_refine``."""
    document, truth = read_star(work.star), work.truth()
    rows = work.rows()[:most]
    star, out = work.star.with_name("one.star"), work.folder / "relion"
    write_star(document.with_rows(find_particle_block(document).name, rows), star)
    out.mkdir(exist_ok=True)
    options = _RELION | {"i": star.name, "o": out / "run", "ref": f"maps/{PROTEINS[0]}.mrc", "random_seed": work.seed}
    options["healpix_order"] = healpix_order
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = ["relion_refine", *words, *(f"--{flag}" for flag in _RELION_FLAGS)]

    def refine() -> Done:
        done = subprocess.run(command, cwd=star.parent, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise InputError(
                "relion_refine has failed",
                found=said[-1] if said else f"exit code {done.returncode}",
                remedy="see whether relion_refine runs by itself, or leave RELION out of the path while measuring",
            )
        found = read_particles(out / "run_it001_data.star", data_dir=star.parent)
        assert found.poses is not None
        # RELION sorts particles by tomogram.
        place = {name: row for row, name in enumerate(truth.names)}
        return compare_poses(found.poses, truth, np.array([place[name] for name in found.names]))

    return refine


def _acryo(work: Work) -> Timed:
    """The poses of a few particles of one class on its true map, on one grid of rotations."""
    from acryo.alignment import PCCAlignment
    from acryo.tilt import single_axis
    from scipy.spatial.transform import Rotation

    truth = work.truth()
    rows = work.rows()[:_FEW]
    particles = work.dataset()
    images = particles.gather(torch.from_numpy(rows)).volumes.numpy()
    average = read_volume(work.star.parent / "maps" / f"{PROTEINS[0]}.mrc")
    # Vectors are xyz there.
    grid = Rotation.from_matrix(rotation_grid(_STEP_DEGREES).double().numpy()[:, ::-1, ::-1])
    model = PCCAlignment(average.voxels, rotations=grid, tilt=single_axis((-60, 60), axis="y"))
    none, origin, reach = np.array([0.0, 0.0, 0.0, 1.0], np.float32), np.zeros(3, np.float32), (_REACH_VOXELS,) * 3
    # The turned templates are made on the first call, and kept.
    model.align(images[0], reach, none, origin)

    def align() -> Done:
        found = [model.align(image, reach, none, origin).affine_matrix(image.shape)[:3, :3] for image in images]
        turned = Poses(np.stack(found).astype(np.float64), truth.poses.origins_angstrom[rows])
        return Done(len(rows), compare_poses(turned, truth, rows).error_degrees)

    return align


def _has_relion() -> bool:
    return shutil.which("relion_refine") is not None


_GET_RELION = "install RELION (Debian: apt-get install relion)"
RIVALS = {
    "relion": Rival(_has_relion, _GET_RELION, partial(_relion, healpix_order=1, most=None)),
    "relion-fine": Rival(_has_relion, _GET_RELION, partial(_relion, healpix_order=2, most=_FEW)),
    "acryo": Rival(lambda: importlib.util.find_spec("acryo") is not None, "install the Python package acryo", _acryo),
}
"""By name: one iteration of RELION with rotations 15° and 7.5° apart, and acryo's search of a grid 25° apart."""
