"""States of real complexes: spikes with their RBD down or up, tetrasomes as their DNA turns.

python -m benchmarks.maps.structure_states --data PATH --set spike-6vyb --poses estimated --snr 0.1 --seeds 3 4 5

PATH holds structures/. The states are superposed on the first: spikes on S2 (residues 700 to 1140, protomers in the
cyclic order that fits best), tetrasomes on all Cα. Particles are simulated from them (box 32, 10 Å, ±60°), and what
``cryodc states`` does after ``cryodc average`` is asked for as many states as there are, and for its own number: in
true poses, or in those that ``cryodc average`` finds from nothing, without and with the point group relaxed. What
has been measured is not measured again.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from benchmarks.command import run
from benchmarks.maps.states import analyse, posed_particles, supported_shells
from benchmarks.measurements import RESULTS, find_result, save_result
from cryodc.alignment import START_SHELLS
from cryodc.averaging import place_class
from cryodc.fourier import ParticleStack
from cryodc.io import read_structure
from cryodc.maps import average_particles
from cryodc.simulation import SimulationConfig, draw_truth, prepare_specimens
from cryodc.states import Conformations, find_conformations, measure, put_on_axes, relax_symmetry

_TETRASOME = "nucleosome/1KX5_cryst_tetrasome_coiled_for_web_state{}.pdb.gz"

SETS = {
    "spike-6vyb": (("spike/6vxx.pdb.gz", "spike/6vyb.pdb.gz"), (700, 1140), 400, "C3"),
    "spike-6vsb": (("spike/6vxx.pdb.gz", "spike/6vsb.pdb.gz"), (700, 1140), 400, "C3"),
    "spike-6vxx": (("spike/6vxx.pdb.gz",), (700, 1140), 400, "C3"),
    "tetrasome": (tuple(_TETRASOME.format(k) for k in range(6)), None, 100, "C2"),
}
"""Files, the residues they are superposed on, how many particles of each, and the point group that is relaxed."""

Chains = list[dict[int, gemmi.Position]]
Particles = tuple[torch.Tensor, ...]
Labels = NDArray[np.int64]


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


def true_poses(particles: Particles, labels: Labels, seed: int) -> dict[str, Any]:
    """What is found in true poses."""
    n_states = int(labels.max()) + 1
    told, chosen = analyse(particles, seed, (n_states, None))
    return compared(labels, told, chosen)


def estimated_poses(particles: Particles, labels: Labels, seed: int, symmetry: str) -> dict[str, Any]:
    """What is found in poses aligned from nothing, as they are and with the point group relaxed."""
    volumes, weights, index = particles[:3]
    unknown = torch.eye(3).expand(len(volumes), 3, 3), torch.zeros(len(volumes), 3)
    placed = place_class(
        volumes, weights, index, unknown, None, False, seed, 2, None, None, START_SHELLS, "C1", lambda _: None
    )
    poses = (placed.rotations, placed.origins_voxels)
    maps = average_particles(ParticleStack(volumes, weights, index), *poses, placed.half_sets, placed.independent)
    shells = supported_shells(maps)
    poses, mask = put_on_axes(maps.average, maps.mask, poses, symmetry, float(shells))
    measured, average = measure(lambda: [(volumes, weights[index], *poses)], mask, shells)
    n_states = int(labels.max()) + 1
    plain = find_conformations(measured, placed.half_sets, n_states, seed=seed)
    relaxed = relax_symmetry(measured, average, placed.half_sets, symmetry, seed)[0]
    told, chosen = (find_conformations(relaxed, placed.half_sets, n, seed=seed) for n in (n_states, None))
    as_aligned = round(float(adjusted_rand_score(labels, plain.labels)), 3)
    return {"aligned": placed.aligned, "ari_not_relaxed": as_aligned} | compared(labels, told, chosen)


def compared(labels: Labels, told: Conformations, chosen: Conformations) -> dict[str, Any]:
    """States found, the number given or not, against the true ones."""
    return {
        "ari": round(float(adjusted_rand_score(labels, told.labels)), 3),
        "n_states_found": chosen.n_states,
        "ari_found": round(float(adjusted_rand_score(labels, chosen.labels)), 3),
        "verdict": chosen.verdict,
    }


def main() -> None:
    """Measure and keep what has not been measured, for every SNR and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="holds structures/")
    parser.add_argument("--set", choices=sorted(SETS), default="spike-6vyb")
    parser.add_argument("--poses", choices=("true", "estimated"), default="true")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--n", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    names, residues, n_default, symmetry = SETS[arguments.set]
    n = arguments.n or n_default
    with tempfile.TemporaryDirectory() as folder:
        files = superpose(tuple(arguments.data / "structures" / name for name in names), residues, Path(folder))
        for snr, seed in itertools.product(arguments.snr, arguments.seeds):
            particles_of = f"{arguments.set}-snr{snr:g}" + (f"-n{n}" if n != n_default else "")
            method = f"states-{arguments.poses}"
            kept = find_result(arguments.results, particles_of, method, seed)
            if kept:
                print(json.dumps(kept))
                continue
            particles, labels = simulate(files, n, snr, seed)
            begun = time.perf_counter()
            if arguments.poses == "true":
                found = true_poses(particles, labels, seed)
            else:
                found = estimated_poses(particles, labels, seed, symmetry)
            settings = {"set": particles_of, "method": method, "seed": seed, "snr": snr, "n": n}
            save_result(arguments.results, settings | found | {"seconds": round(time.perf_counter() - begun, 1)})


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
