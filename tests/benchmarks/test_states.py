"""The superposition that the benchmark of states of structures rests on."""

from pathlib import Path

import gemmi
import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.maps.structure_states import superpose


def chain(name: str, positions: np.ndarray) -> gemmi.Chain:
    made = gemmi.Chain(name)
    for number, position in enumerate(positions, start=1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(str(number))
        atom = gemmi.Atom()
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*position)
        residue.add_atom(atom)
        made.add_residue(residue)
    return made


def write(path: Path, chains: list[np.ndarray]) -> Path:
    structure, model = gemmi.Structure(), gemmi.Model("1")
    for name, positions in zip("ABC", chains, strict=True):
        model.add_chain(chain(name, positions))
    structure.add_model(model)
    structure.setup_entities()
    structure.write_pdb(str(path))
    return path


def test_turned_and_renamed_protomers_lie_on_the_first_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    protomer = generator.normal(size=(40, 3)) * 8 + (25, 0, 0)
    turns = Rotation.from_rotvec([[0, 0, 2 * np.pi * k / 3] for k in range(3)])
    protomers = [turn.apply(protomer) for turn in turns]
    # One protomer is another state: its second half is moved.
    protomers[1] = protomers[1] + np.where(np.arange(40)[:, None] >= 20, (0, 0, 12), 0)
    turn, move = Rotation.from_euler("zyz", [40, 70, 10], degrees=True), np.array([30, -12, 5])
    moved = [turn.apply(positions) + move for positions in (protomers[2], protomers[0], protomers[1])]
    files = (write(tmp_path / "a.pdb", protomers), write(tmp_path / "b.pdb", moved))
    (tmp_path / "out").mkdir()
    found = superpose(files, (1, 40), tmp_path / "out")
    placed = [
        {c.name: np.array([r[0].pos.tolist() for r in c]) for c in gemmi.read_structure(str(f))[0]} for f in found
    ]
    for before, after in (("A", "B"), ("B", "C"), ("C", "A")):
        np.testing.assert_allclose(placed[1][after], placed[0][before], atol=5e-3)
