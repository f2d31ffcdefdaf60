"""States of real complexes in true poses: spikes with their RBD down or up, tetrasomes as their DNA turns.

python -m benchmarks.structure_states --data PATH --set spike-6vyb --snr 0.1 --seeds 3 4 5

PATH holds structures/. The states are superposed on the first: spikes on S2 (residues 700 to 1140, protomers in the
cyclic order that fits best), tetrasomes on all Cα. Particles are simulated from them (box 32, 10 Å, ±60°), and what
``cryodc states`` does after ``cryodc average`` is asked for as many states as there are, and for its own number. One
line of JSON each.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

import gemmi
import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from benchmarks.recipes import run
from benchmarks.states import analyse, posed_particles
from cryodc.data.simulate import SimulationConfig, draw_truth
from cryodc.data.specimens import prepare_specimens
from cryodc.io.structures import read_structure

_TETRASOME = "nucleosome/1KX5_cryst_tetrasome_coiled_for_web_state{}.pdb.gz"

SETS = {
    "spike-6vyb": (("spike/6vxx.pdb.gz", "spike/6vyb.pdb.gz"), (700, 1140), 400),
    "spike-6vsb": (("spike/6vxx.pdb.gz", "spike/6vsb.pdb.gz"), (700, 1140), 400),
    "tetrasome": (tuple(_TETRASOME.format(k) for k in range(6)), None, 100),
}
"""Files, the residues they are superposed on, and how many particles of each."""

Chains = list[dict[int, gemmi.Position]]


def superpose(files: tuple[Path, ...], residues: tuple[int, int] | None, out: Path) -> list[Path]:
    """Write each structure where it lies best on the first, and say where."""
    found, target = [], None
    for number, file in enumerate(files):
        structure = gemmi.read_structure(str(file))
        # Sugars are resolved in some states and not in others.
        structure.setup_entities()
        structure.remove_ligands_and_waters()
        chains = _carbons(structure[0], residues)
        if target is None:
            target = chains
        best = min((_fit(target, chains, turn) for turn in range(len(chains))), key=lambda fit: fit.rmsd)
        for chain in structure[0]:
            for residue in chain:
                for atom in residue:
                    atom.pos = gemmi.Position(best.transform.apply(atom.pos))
        # The assembly of a file is of the frame it had.
        structure.assemblies.clear()
        structure.raw_remarks = []
        found.append(out / f"state{number}.pdb")
        structure.write_pdb(str(found[-1]))
    return found


def simulate(files: list[Path], n: int, snr: float, seed: int) -> tuple[tuple[torch.Tensor, ...], np.ndarray]:
    """Particles of superposed structures in true poses, and which structure each is of."""
    config = SimulationConfig(n_per_map=n, snr=snr, seed=seed)
    structures = {file.stem: read_structure(file) for file in files}
    specimens = prepare_specimens(structures, config.box_size, config.spacing_angstrom)
    truth = draw_truth(specimens, config)
    return posed_particles(specimens, truth, config), truth.labels


def main() -> None:
    """Print a line for every SNR and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="holds structures/")
    parser.add_argument("--set", choices=sorted(SETS), default="spike-6vyb")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--n", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    arguments = parser.parse_args()
    names, residues, n_default = SETS[arguments.set]
    with tempfile.TemporaryDirectory() as folder:
        files = superpose(tuple(arguments.data / "structures" / name for name in names), residues, Path(folder))
        for snr, seed in itertools.product(arguments.snr, arguments.seeds):
            particles, labels = simulate(files, arguments.n or n_default, snr, seed)
            begun = time.perf_counter()
            told, chosen = (analyse(particles, seed, n_states) for n_states in (len(files), None))
            print(
                json.dumps(
                    {
                        "set": arguments.set,
                        "snr": snr,
                        "seed": seed,
                        "n": arguments.n or n_default,
                        "ari": round(float(adjusted_rand_score(labels, told.labels)), 3),
                        "n_states_found": chosen.n_states,
                        "ari_found": round(float(adjusted_rand_score(labels, chosen.labels)), 3),
                        "seconds": round(time.perf_counter() - begun, 1),
                        "verdict": chosen.verdict,
                        "cores": os.cpu_count(),
                    }
                ),
                flush=True,
            )


def _carbons(model: gemmi.Model, residues: tuple[int, int] | None) -> Chains:
    """Cα by residue number of every chain that has many."""
    low, high = residues or (-(10**6), 10**6)
    chains = []
    for chain in model:
        carbons = {
            residue.seqid.num: atom.pos
            for residue in chain
            for atom in residue
            if atom.name == "CA" and atom.element == gemmi.Element("C") and low <= residue.seqid.num <= high
        }
        if len(carbons) >= 20:
            chains.append(carbons)
    return chains


def _fit(
    target: list[dict[int, gemmi.Position]], chains: list[dict[int, gemmi.Position]], turn: int
) -> gemmi.SupResult:
    """How the chains, in a cyclic order, lie best on those of the target."""
    pairs = [
        (fixed[number], moved[number])
        for fixed, moved in zip(target, chains[turn:] + chains[:turn], strict=False)
        for number in fixed.keys() & moved.keys()
    ]
    return gemmi.superpose_positions([fixed for fixed, _ in pairs], [moved for _, moved in pairs])


if __name__ == "__main__":
    run(main)
