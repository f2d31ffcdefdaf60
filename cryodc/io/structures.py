"""Atomic models, PDB or mmCIF: the atoms of the first biological assembly, and how strongly each scatters electrons.

An asymmetric unit is often a part of the particle (half a RuBisCO in 1BXN). The operators of assembly 1 – PDB's
``REMARK 350``, mmCIF's ``_pdbx_struct_assembly_gen`` and ``_pdbx_struct_oper_list`` – make the whole.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cryodc.errors import InputError
from cryodc.io.reading import read_bytes

STRUCTURE_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")


@dataclass(frozen=True)
class Atoms:
    """The atoms of a particle.

    Parameters
    ----------
    positions_angstrom
        ``(n, 3)`` zyx, the file's frame.
    masses
        ``(n,)`` daltons, times occupancy.
    scattering
        ``(n,)`` electron scattering factor at zero frequency, Å, times occupancy (International Tables C, 4.3.2.2).
    assembly
        The assembly whose operators were applied; None where the file has none.
    """

    positions_angstrom: Float[NDArray[np.float64], "n 3"]
    masses: Float[NDArray[np.float64], " n"]
    scattering: Float[NDArray[np.float64], " n"]
    assembly: str | None

    def __len__(self) -> int:
        return len(self.masses)

    @property
    def centre_angstrom(self) -> Float[NDArray[np.float64], " 3"]:
        """Centre of mass, zyx, in the file's frame."""
        return np.asarray(np.average(self.positions_angstrom, axis=0, weights=self.masses))


def read_structure(path: Path) -> Atoms:
    """Read the first model of a PDB or mmCIF file, ``.gz`` too, as its first biological assembly.

    Water and atoms of no known element are left out. Where there is no assembly, the atoms are taken as they are.

    Raises
    ------
    InputError
        If the file cannot be read or holds no atom that scatters.
    """
    import gemmi

    _require_suffix(path)
    if path.suffix == ".gz":
        # gemmi unpacks whatever there is.
        read_bytes(path, "the structure")
    assembly: str | None = None
    try:
        structure = gemmi.read_structure(str(path))
        if len(structure) == 0:
            raise _no_atoms(path)
        model = structure[0]
        if structure.assemblies:
            # "1" is the assembly that author and software put first, in both formats.
            chosen = next((each for each in structure.assemblies if each.name == "1"), structure.assemblies[0])
            model, assembly = gemmi.make_assembly(chosen, model, gemmi.HowToNameCopiedChain.AddNumber), chosen.name
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot read the structure: {str(error).strip() or 'not one'}",
            file=path,
            expected="a PDB or mmCIF file whose assembly names chains that it has",
            remedy="download it again, for example from the PDB",
        ) from error
    return _atoms(model, assembly, path)


def _atoms(model: Any, assembly: str | None, path: Path) -> Atoms:
    factors: dict[str, tuple[float, float]] = {}
    rows = []
    for place in model.all():
        atom = place.atom
        if place.residue.is_water():
            continue
        name = atom.element.name
        if name not in factors:
            known = atom.element.atomic_number > 0
            factors[name] = (atom.element.weight, atom.element.c4322.calculate_sf(0.0)) if known else (0.0, 0.0)
        mass, scattering = factors[name]
        rows.append((atom.pos.z, atom.pos.y, atom.pos.x, mass * atom.occ, scattering * atom.occ))
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    table = table[(table[:, 3] > 0) & (table[:, 4] > 0)]
    if len(table) == 0:
        raise _no_atoms(path)
    if not np.isfinite(table).all():
        raise InputError("an atom has no position", file=path, expected="finite coordinates", remedy="remove that atom")
    return Atoms(np.ascontiguousarray(table[:, :3]), table[:, 3], table[:, 4], assembly)


def _require_suffix(path: Path) -> None:
    if not path.name.lower().removesuffix(".gz").endswith(STRUCTURE_SUFFIXES):
        raise InputError(
            "not the name of a structure",
            file=path,
            expected=" or ".join(STRUCTURE_SUFFIXES) + ", .gz or not",
            found=path.name,
            remedy="give density maps with --map",
        )
    if not path.is_file():
        raise InputError("there is no such structure", file=path, remedy="check the name")


def _no_atoms(path: Path) -> InputError:
    return InputError(
        "the structure holds no atoms",
        file=path,
        expected="ATOM or HETATM records, or an _atom_site loop, of a first model",
        remedy="give the coordinate file, not the sequence or the structure factors",
    )
