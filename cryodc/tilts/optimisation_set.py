"""Optimisation sets: which particles.star and tomograms.star belong together."""

from pathlib import Path

from cryodc.errors import InputError
from cryodc.io import ImageFinder
from cryodc.star import StarDocument, read_star

_PARTICLES, _TOMOGRAMS = "rlnTomoParticlesFile", "rlnTomoTomogramsFile"


def find_particles(star: Path, data_dir: Path | None) -> Path:
    """Find the particles.star a user means: the one named, or the one an optimisation set names.

    Parameters
    ----------
    star
        A particles.star or an optimisation_set.star.
    data_dir
        A third folder where named files are looked for.

    Raises
    ------
    InputError
        If there is no such file.
    """
    named = _named(read_star(star), _PARTICLES)
    return star if named is None else _find(star, named, data_dir, "particles")


def find_tomograms(star: Path, particles: Path, data_dir: Path | None) -> Path:
    """Find the tomograms.star that belongs to particles.

    The optimisation set ``star``, or one beside the particles (``NAME_optimisation_set.star``,
    ``optimisation_set.star``), names it; else it is ``NAME_tomograms.star`` or ``tomograms.star`` beside them.

    Raises
    ------
    InputError
        If there is no such file.
    """
    if star != particles and (named := _named(read_star(star), _TOMOGRAMS)) is not None:
        return _find(star, named, data_dir, "tomograms")
    name = particles.name.removesuffix(".gz").removesuffix(".star")
    # RELION's run_it025_data.star stands beside run_it025_optimisation_set.star.
    stems = dict.fromkeys([f"{name}_", f"{name.removesuffix('_data')}_", ""])
    sets = [particles.parent / f"{stem}optimisation_set.star" for stem in stems]
    for beside in sets:
        if beside.is_file() and (named := _named(read_star(beside), _TOMOGRAMS)) is not None:
            found = ImageFinder.beside(beside, data_dir).find(named)
            if found is not None:
                return Path(found)
    tomogram_stars = [particles.parent / f"{stem}tomograms.star" for stem in stems]
    for beside in tomogram_stars:
        if beside.is_file():
            return beside
    raise InputError(
        "the tomograms.star of these particles is not known: it says how each tilt was projected and focused",
        file=particles,
        expected="one of " + ", ".join(path.name for path in sets + tomogram_stars) + " beside the particles",
        found="none that names or is a tomograms.star",
        remedy="name it: --tomograms FILE, or give the optimisation_set.star instead of the particles",
    )


def _named(document: StarDocument, label: str) -> str | None:
    block = next((block for block in document.blocks if label in block), None)
    cells = [] if block is None else block.column(label)
    return cells[0] if cells and cells[0] else None


def _find(star: Path, name: str, data_dir: Path | None, kind: str) -> Path:
    finder = ImageFinder.beside(star, data_dir)
    found = finder.find(name)
    if found is None:
        raise InputError(
            f"the {kind} file of the optimisation set does not exist",
            file=star,
            expected=finder.describe(name),
            found=f"{name}: no such file",
            remedy="run from the folder the paths are relative to, or name it with --data-dir",
        )
    return Path(found)
