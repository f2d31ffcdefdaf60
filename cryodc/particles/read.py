"""Read the particles of a STAR file into the frozen table that the rest of the package works on."""

from pathlib import Path

from cryodc.particles.inspection import Inspection, inspect_particles, raise_first
from cryodc.particles.table import ParticleSet


def read_particles(path: Path, data_dir: Path | None = None, check_images: bool = True) -> ParticleSet:
    """Read a particle STAR of RELION 3.0, 3.1, 4, 5 (3D) or WarpTools ``--3d``.

    Paths resolve as: current folder, the STAR's folder, ``data_dir``. Names are rlnTomoParticleName, else
    rlnImageName. The STAR's spacing and box win where it has them; MRC headers fill in and must agree.

    Parameters
    ----------
    path
        ``.star`` or ``.star.gz``.
    data_dir
        A third folder to look for images in.
    check_images
        Read the header of every image and weight. Without, a box size or spacing that the STAR does not state
        is 0, and no file needs to exist.

    Raises
    ------
    InputError
        At the first problem of :func:`cryodc.particles.inspection.inspect_particles`, saying how many there are.
    """
    return require_particles(inspect_particles(path, data_dir, check_images))


def require_particles(inspection: Inspection) -> ParticleSet:
    """The particles of an inspection that found no problem.

    Raises
    ------
    InputError
        At its first problem, saying how many there are.
    """
    raise_first(inspection)
    if inspection.particles is None:
        raise RuntimeError("an inspection without problems has particles")
    return inspection.particles
