"""A folder of known structures, drawn on one grid, and decoys made of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cryodc.errors import InputError
from cryodc.geometry import random_rotations, resample
from cryodc.io import STRUCTURE_SUFFIXES, read_structure
from cryodc.simulation import MapSpecimen, prepare_map, prepare_structure, read_map
from cryodc.volumes import Volume

_MAP_SUFFIXES = (".mrc", ".map", ".ccp4", ".rec")
_STRETCH = (1.3, 1.7)


@dataclass(frozen=True)
class Known:
    """A structure of the library: its name, its file, and the map of it."""

    name: str
    file: Path
    specimen: MapSpecimen


@dataclass(frozen=True)
class Library:
    """Structures that a class can be, and why the others cannot: by name."""

    known: tuple[Known, ...]
    left_out: dict[str, str]


def library_files(folder: Path) -> dict[str, Path]:
    """Maps and structures in a folder and those within it, by name: that of the file, whole where two are alike.

    Raises
    ------
    InputError
        If there is no such folder, or it holds none.
    """
    if not folder.is_dir():
        raise InputError("there is no such library", file=folder, expected="a folder", remedy="check --library")
    suffixes = (*_MAP_SUFFIXES, *STRUCTURE_SUFFIXES)
    files = [path for path in sorted(folder.rglob("*")) if path.name.lower().removesuffix(".gz").endswith(suffixes)]
    if not files:
        raise InputError(
            "this library holds nothing to compare with",
            file=folder,
            expected=f"maps and structures: {', '.join(suffixes)}, .gz or not",
            remedy="put known structures there, for example from the PDB and EMDB",
        )
    stems = [path.name.removesuffix(".gz").rsplit(".", 1)[0] for path in files]
    names = [
        stem if stems.count(stem) == 1 else str(path.relative_to(folder))
        for stem, path in zip(stems, files, strict=True)
    ]
    return dict(zip(names, files, strict=True))


def read_library(folder: Path, box_size: int, spacing_angstrom: float) -> Library:
    """Read every map and structure, centred and scaled alike; those that do not fit the box are left out.

    Parameters
    ----------
    folder
        Maps, and PDB or mmCIF files, ``.gz`` or not.
    box_size, spacing_angstrom
        What they are drawn at.

    Raises
    ------
    InputError
        If there is nothing, a file is bad, or nothing fits.
    """
    known, left_out = [], {}
    for name, file in library_files(folder).items():
        is_map = file.name.lower().removesuffix(".gz").endswith(_MAP_SUFFIXES)
        content = read_map(file) if is_map else read_structure(file)
        try:
            if isinstance(content, Volume):
                specimen = prepare_map(name, content, box_size, spacing_angstrom)
            else:
                specimen = prepare_structure(name, content, box_size, spacing_angstrom)
        except InputError as error:
            left_out[name] = error.problem
            continue
        known.append(Known(name, file, specimen))
    if not known:
        raise InputError(
            "nothing in this library can be compared with the classes",
            file=folder,
            expected=f"structures within the box of {box_size * spacing_angstrom:.0f} Å",
            found="; ".join(left_out.values()),
        )
    return Library(tuple(known), left_out)


def make_decoys(known: tuple[Known, ...], n_decoys: int, seed: int) -> list[Known]:
    """Structures of no protein: those of the library in turn, stretched and squeezed along axes drawn at random.

    A decoy has the density, the size and the detail of a protein, and not its shape: one axis is longer by 1.3 to 1.7,
    one as much shorter, so the volume stays.

    Parameters
    ----------
    known
        What they are made of.
    n_decoys, seed
        How many, and what fixes them.
    """
    generator = torch.Generator().manual_seed(seed)
    decoys = []
    for number in range(n_decoys):
        source = known[number % len(known)]
        low, high = _STRETCH
        factor = low + (high - low) * float(torch.rand(1, generator=generator))
        axes = random_rotations(1, generator)[0].double()
        # Output to input: a longer axis reads the map in smaller steps.
        matrix = axes.T @ torch.diag(torch.tensor([1 / factor, factor, 1.0], dtype=torch.float64)) @ axes
        fine = resample(source.specimen.fine[None], matrix[None].float())[0]
        decoys.append(replace(source, name=f"decoy{number + 1:02d}", specimen=replace(source.specimen, fine=fine)))
    return decoys
