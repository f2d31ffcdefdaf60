"""Particles chosen by lists of names: read, found in a run, and made a run of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.clustering import write_class_stars
from cryodc.dry_run import Forecast, declare
from cryodc.errors import InputError
from cryodc.io import new_folder, read_text, require_empty
from cryodc.particles import name_label
from cryodc.runs import (
    Clusters,
    RunFolder,
    fingerprint_of_codes,
    load_codes,
    load_config,
    require,
    save_codes,
    save_config,
    write_clusters,
)
from cryodc.star import StarBlock, find_particle_block, read_star, write_star


@dataclass(frozen=True)
class NamedRun:
    """The run that was made: where, and how many particles each list has, in their order."""

    run: RunFolder
    sizes: tuple[int, ...]


def read_names(path: Path) -> dict[str, int]:
    """Names of particles, one a line, as the report's lasso writes them, and the line of each; others are skipped.

    Raises
    ------
    InputError
        If the file cannot be read, or names none.
    """
    named: dict[str, int] = {}
    for number, line in enumerate(read_text(path, "the list of names").splitlines(), start=1):
        if line.strip():
            named.setdefault(line.strip(), number)
    if not named:
        raise InputError(
            "the list names no particle", file=path, expected="a particle name on each line", found="no text"
        )
    return named


def particle_names(block: StarBlock) -> list[str]:
    """Name of the particle in each row: rlnTomoParticleName where it tells all apart, else rlnImageName."""
    cells = block.columns([label for label in ("rlnTomoParticleName", "rlnImageName") if label in block])
    return cells[name_label(cells)]


def rows_named(block: StarBlock, names: Path, source: Path) -> Int[NDArray[np.int64], " k"]:
    """Rows of the particles that a list names, in the order of the STAR.

    Raises
    ------
    InputError
        If the list names a particle that is not there.
    """
    at = {name: row for row, name in enumerate(particle_names(block))}
    asked = read_names(names)
    unknown = [(line, name) for name, line in asked.items() if name not in at]
    if unknown:
        first = next(iter(at))
        raise InputError(
            f"{len(unknown)} of {len(asked)} names are of no particle of this run",
            file=names,
            row=unknown[0][0],
            expected=f"names as in {source}, such as {first}",
            found=unknown[0][1],
            remedy="take the list from the report of this run",
        )
    return np.array(sorted(at[name] for name in asked), dtype=np.int64)


def run_of_names(run: RunFolder, lists: Sequence[Path], out: Path) -> NamedRun:
    """Make a run of the particles that lists name: each list is a class, the first class 1.

    The new run has the settings, codes and rows of the old one, and no averages yet: ``cryodc average`` makes them.

    Parameters
    ----------
    run
        Trained.
    lists
        Files of names, at least one.
    out
        The folder to make; it may not hold anything.

    Raises
    ------
    InputError
        If ``out`` is not empty, a name is of no particle, or a particle is in two lists.
    """
    require_empty(out)
    document = read_star(require(run.particles, "cryodc train"))
    block = find_particle_block(document)
    codes, config = load_codes(run), load_config(run)
    names = particle_names(block)
    label_of: dict[int, int] = {}
    for label, path in enumerate(lists):
        for row in rows_named(block, path, run.particles).tolist():
            if row in label_of:
                raise InputError(
                    "a particle is in two lists, and can have one class only",
                    file=path,
                    expected=f"names that are not in {lists[label_of[row]]}",
                    found=names[row],
                )
            label_of[row] = label
    rows = sorted(label_of)
    labels = np.array([label_of[row] for row in rows], dtype=np.int64)
    chosen = tuple(names[row] for row in rows)
    sizes = tuple(np.bincount(labels, minlength=len(lists)).tolist())
    kept = document.with_rows(block.name, rows)
    declare(Forecast(out, f"{len(names)} rows of {document.source}", bytes_written=1000.0 * len(rows)))
    with new_folder(out) as folder:
        made = RunFolder(folder)
        # A pack is of all particles of the old run: this one reads images, or makes its own pack.
        pack = None if config.get("pack") is None else config["pack"] | {"path": made.pack.name}
        dataset = config["dataset"] | {"n_particles": len(rows)}
        save_config(made, config | {"dataset": dataset, "pack": pack, "selected_from": str(run.path.resolve())})
        write_star(kept, made.particles)
        save_codes(made, codes.select(chosen))
        made.clusters.mkdir()
        write_class_stars(made.clusters, kept, labels, len(lists))
        told = f"{len(lists)} class{'' if len(lists) == 1 else 'es'}, chosen by name from {run.path.resolve()}"
        clusters = Clusters(chosen, labels, np.ones(len(rows)), 1.0, (), told)
        write_clusters(made.clusters, clusters, fingerprint_of_codes(made), requested="by hand", seed=config["seed"])
    return NamedRun(RunFolder(out), sizes)
