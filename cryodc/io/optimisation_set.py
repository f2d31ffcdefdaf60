"""Optimisation sets: which particles.star and tomograms.star belong together."""

from pathlib import Path

from cryodc.errors import InputError
from cryodc.io.images import ImageFinder
from cryodc.io.star_text import StarDocument, read_star

_PARTICLES, _TOMOGRAMS = "rlnTomoParticlesFile", "rlnTomoTomogramsFile"


def find_star_files(star: Path, tomograms: Path | None, data_dir: Path | None) -> tuple[Path, Path]:
    """Find the particles.star and the tomograms.star that a user means.

    Parameters
    ----------
    star
        An optimisation_set.star, which names both; or a particles.star, whose tomograms are looked for in an
        optimisation set beside it (``optimisation_set.star``, ``NAME_optimisation_set.star``), then in
        ``NAME_tomograms.star`` and ``tomograms.star``.
    tomograms
        The tomograms.star, if the user names it.
    data_dir
        A third folder where named files are looked for.

    Raises
    ------
    InputError
        If there is no such file.
    """
    document = read_star(star)
    finder = ImageFinder.beside(star, data_dir)
    particles = star
    candidates = []
    if (named := _named(document, _PARTICLES)) is not None:
        particles = _find(finder, star, named, "particles")
        named_tomograms = _named(document, _TOMOGRAMS)
        if tomograms is None and named_tomograms is not None:
            tomograms = _find(finder, star, named_tomograms, "tomograms")
    if tomograms is not None:
        return particles, tomograms
    name = particles.name.removesuffix(".gz").removesuffix(".star")
    for optimisation_set in (f"{name}_optimisation_set.star", "optimisation_set.star"):
        beside = particles.parent / optimisation_set
        candidates.append(beside)
        if beside.is_file() and (named := _named(read_star(beside), _TOMOGRAMS)) is not None:
            found = ImageFinder.beside(beside, data_dir).find(named)
            if found is not None:
                return particles, found
    for tomogram_set in (f"{name}_tomograms.star", "tomograms.star"):
        candidates.append(particles.parent / tomogram_set)
        if candidates[-1].is_file():
            return particles, candidates[-1]
    raise InputError(
        "the tomograms.star of these particles is not known: it says how each tilt was projected and focused",
        file=star,
        expected="one of " + ", ".join(str(path) for path in candidates),
        found="none that names or is a tomograms.star",
        remedy="name it: --tomograms FILE, or give the optimisation_set.star instead of the particles",
    )


def _named(document: StarDocument, label: str) -> str | None:
    block = next((block for block in document.blocks if label in block), None)
    cells = [] if block is None else block.column(label)
    return cells[0] if cells and cells[0] else None


def _find(finder: ImageFinder, star: Path, name: str, kind: str) -> Path:
    found = finder.find(name)
    if found is None:
        raise InputError(
            f"the {kind} file of the optimisation set does not exist",
            file=star,
            expected=finder.describe(name),
            found=f"{name}: no such file",
            remedy="run from the folder the paths are relative to, or name it with --data-dir",
        )
    return found
