"""Sets of particles that the benchmarks measure."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from benchmarks.command import positive
from benchmarks.measurements import RESULTS
from cryodc.errors import InputError
from cryodc.io import Atoms, read_structure
from cryodc.simulation import Phantom, SimulatedTiltSeries, SimulationConfig, read_map
from cryodc.volumes import Volume


@dataclass(frozen=True)
class Source:
    """A file below the data folder, and how many degrees its density is twisted about z every 100 Å of height."""

    file: str
    twist_degrees: float = 0.0

    @property
    def name(self) -> str:
        """Of the protein made from it."""
        stem = Path(self.file).name.removesuffix(".gz").rsplit(".", 1)[0]
        return f"{stem}_twist{self.twist_degrees:+.0f}" if self.twist_degrees else stem


@dataclass(frozen=True)
class Recipe:
    """What is simulated.

    Parameters
    ----------
    families
        Sources of each protein; several are its conformations.
    n_per_map
        Particles of each source.
    snr
        Variance of the clean box over that of the white noise, before the wedge.
    published
        The families of each protein as a published set counts them, where it counts otherwise.
    """

    families: dict[str, tuple[Source, ...]]
    n_per_map: int
    snr: float
    published: dict[str, tuple[str, ...]] | None = None

    @property
    def sources(self) -> list[Source]:
        """Every source, in order."""
        return [source for sources in self.families.values() for source in sources]

    def family_of_source(self) -> Int[NDArray[np.int64], " k"]:
        """Family of each source."""
        return np.repeat(np.arange(len(self.families)), [len(sources) for sources in self.families.values()])

    def published_of_source(self) -> Int[NDArray[np.int64], " k"] | None:
        """Published protein of each source; None where they are the families."""
        if self.published is None:
            return None
        of_family = {family: place for place, families in enumerate(self.published.values()) for family in families}
        return np.array([of_family[family] for family in self.families], dtype=np.int64)[self.family_of_source()]


def _maps(*names: str) -> dict[str, tuple[Source, ...]]:
    return {name: (Source(f"maps/{name}.mrc.gz"),) for name in names}


_TETRASOME = "structures/nucleosome/1KX5_cryst_tetrasome_coiled_for_web_state{}.pdb.gz"

SETS = {
    "easy": Recipe(_maps("3j9i", "4cr2", "4v4r", "1bxn"), 400, 0.1),
    "hard": Recipe(_maps("3j9i", "3cf3", "1f4a", "1bxn", "1qvr", "4v4r_50S"), 300, 0.05),
    "paper": Recipe(
        {
            "nucleosome": (Source("structures/nucleosome/1kx5.pdb.gz"),),
            "tetrasome": tuple(Source(_TETRASOME.format(state)) for state in range(6)),
            "spike": tuple(Source(f"structures/spike/{name}.pdb.gz") for name in ("6vxx", "6vyb", "6vsb", "6xcm")),
            # The paper's own deformations are not published; these are made up.
            "fas": tuple(Source("maps/2uv8.mrc.gz", twist) for twist in (-15.0, 0.0, 15.0)),
        },
        100,
        0.1,
        # Three proteins: a tetrasome is a state of the nucleosome there.
        {"nucleosome": ("nucleosome", "tetrasome"), "spike": ("spike",), "fas": ("fas",)},
    ),
}


def read_proteins(recipe: Recipe, data: Path) -> dict[str, Volume | Phantom | Atoms]:
    """The proteins of a set, by name of their source.

    Raises
    ------
    InputError
        If a file is not there.
    """
    for source in recipe.sources:
        if not (data / source.file).exists():
            raise InputError(
                "no such file of this set", file=data / source.file, remedy="--data holds maps/, structures/"
            )
    proteins: dict[str, Volume | Phantom | Atoms] = {}
    for source in recipe.sources:
        file = data / source.file
        if ".mrc" in file.name:
            proteins[source.name] = twist(read_map(file), source.twist_degrees)
        else:
            proteins[source.name] = read_structure(file)
    return proteins


def twist(volume: Volume, degrees_per_100_angstrom: float) -> Volume:
    """A map whose slices are turned about z, in the plane from y to x, by an angle that grows with their height."""
    if degrees_per_100_angstrom == 0:
        return volume
    box = volume.box_size
    middle = np.array([box // 2, box // 2])
    turned = []
    for z, image in enumerate(volume.voxels):
        angle = np.radians(degrees_per_100_angstrom * (z - box // 2) * volume.spacing_angstrom / 100)
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned.append(affine_transform(image, matrix, middle - matrix @ middle, order=1))
    return Volume(np.stack(turned).astype(np.float32), volume.spacing_angstrom)


def simulation_config(recipe: Recipe, arguments: argparse.Namespace) -> SimulationConfig:
    """Settings of one simulation: 10 Å, box 32, ±60°, shifts up to 1.5 voxels."""
    return SimulationConfig(
        n_per_map=arguments.n or recipe.n_per_map,
        snr=recipe.snr,
        seed=arguments.seed,
        tilt_series=SimulatedTiltSeries() if arguments.tilt_series else None,
    )


def common_parser(
    description: str | None, sets: Sequence[str] = tuple(SETS), data_required: bool = True
) -> argparse.ArgumentParser:
    """Options that every benchmark on one of these sets takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--set", choices=sorted(sets), default="easy")
    parser.add_argument("--data", type=Path, required=data_required, help="holds maps/")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--n", type=positive, help="particles of each file; by default those of the set")
    parser.add_argument("--tilt-series", action="store_true", help="simulate every tilt image instead of a wedge")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def set_name(arguments: argparse.Namespace) -> str:
    """The set, with what was changed of it: results of different particles never share a name."""
    parts = [arguments.set, "tilts" if arguments.tilt_series else "", f"n{arguments.n}" if arguments.n else ""]
    return "-".join(part for part in parts if part)
