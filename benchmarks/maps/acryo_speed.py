"""CPU seconds per particle to search one grid of poses exhaustively: ours against acryo's phase cross-correlation.

python -m benchmarks.maps.acryo_speed --seed 3

Both get the same particles (bilobe phantom, box 32, 10 Å, ±60°, SNR 0.5), the same reference, the same rotations,
shifts within the same range, and one thread. acryo finds a shift to a tenth of a voxel from its correlation peak; ours
scores whole-voxel shifts, as its global searches do before they are refined. Turned references are made before the
clock starts in both, which counts CPU time, so that other work on the machine does not matter. Prints one JSON line;
``error_degrees`` is the median angle to the true pose, which no search on a grid can bring below about half its step.
"""

import argparse
import json
import time

import numpy as np
import torch
from acryo.alignment import PCCAlignment
from acryo.tilt import single_axis
from scipy.spatial.transform import Rotation

from cryodc.fourier import (
    ball_spectra,
    ball_weights,
    chunks,
    fine_spectrum,
    fourier_ball,
    score_poses,
    shift_lattice,
    slices,
    standardise,
)
from cryodc.geometry import geodesic_degrees, rotation_grid
from cryodc.simulation import SimulationConfig, phantom, simulate_particles

PROTEIN = "bilobe"
REACH_VOXELS = 3.0


def main() -> None:
    """Time both on one set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--step", type=float, default=25.0, help="degrees between rotations")
    parser.add_argument("--particles", type=int, default=40, help="for ours")
    parser.add_argument("--acryo-particles", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = SimulationConfig(n_per_map=options.particles, snr=0.5, seed=options.seed)
    particles = simulate_particles({PROTEIN: phantom(PROTEIN)}, config)
    volumes, rotations = standardise(particles.volumes), rotation_grid(options.step)
    truth = particles.truth.poses.rotations
    ours, ours_seconds = align_ours(volumes, particles.weights, particles.weight_index, particles.maps[0], rotations)
    few = volumes[: options.acryo_particles]
    theirs, acryo_seconds = align_acryo(few, particles.maps[0], rotations)
    record = {
        "box_size": config.box_size,
        "rotations": len(rotations),
        "ours_seconds_per_particle": round(ours_seconds, 4),
        "acryo_seconds_per_particle": round(acryo_seconds, 3),
        "ratio": round(acryo_seconds / ours_seconds, 1),
        "ours_error_degrees": round(float(np.median(geodesic_degrees(ours, truth))), 1),
        "acryo_error_degrees": round(float(np.median(geodesic_degrees(theirs, truth[: len(few)]))), 1),
        "threads": 1,
        "seed": options.seed,
    }
    print(json.dumps(record))


def align_ours(
    volumes: torch.Tensor,
    weights: torch.Tensor,
    weight_index: torch.Tensor,
    reference: torch.Tensor,
    rotations: torch.Tensor,
) -> tuple[np.ndarray, float]:
    """Best rotation of each particle, and seconds for one."""
    ball = fourier_ball(volumes.shape[-1], 0.8 * volumes.shape[-1] / 2)
    fine = fine_spectrum(reference[None])[0]
    columns = torch.cat([slices(fine, ball, rotations[c]) for c in chunks(len(rotations), 64)])
    shifts, transfer = shift_lattice(REACH_VOXELS, 1.0), ball_weights(weights, ball)
    began = time.process_time()
    best = []
    for c in chunks(len(volumes), 4):
        spectra = ball_spectra(volumes[c], ball)
        scores = score_poses(spectra, transfer, weight_index[c], columns, ball, shifts)
        best.append(scores.amax(dim=1).argmax(dim=1))
    seconds = (time.process_time() - began) / len(volumes)
    return rotations[torch.cat(best)].double().numpy(), seconds


def align_acryo(volumes: torch.Tensor, reference: torch.Tensor, rotations: torch.Tensor) -> tuple[np.ndarray, float]:
    """The same with acryo."""
    model = PCCAlignment(
        reference.numpy().astype(np.float32),
        rotations=Rotation.from_matrix(rotations.double().numpy()[:, ::-1, ::-1]),
        tilt=single_axis((-60, 60), axis="y"),
    )
    identity, origin = np.array([0.0, 0.0, 0.0, 1.0], np.float32), np.zeros(3, np.float32)
    reach = (REACH_VOXELS,) * 3
    images = volumes.numpy().astype(np.float32)
    # The turned templates are made on the first call, and kept.
    model.align(images[0], reach, identity, origin)
    began = time.process_time()
    found = [model.align(image, reach, identity, origin) for image in images]
    seconds = (time.process_time() - began) / len(images)
    return np.stack([result.affine_matrix(images[0].shape)[:3, :3] for result in found]).astype(np.float64), seconds


if __name__ == "__main__":
    main()
