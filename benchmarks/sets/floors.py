"""Floors and ceilings of a set: composition without learning, with the true poses, and with labels.

python -m benchmarks.sets.floors --set hard --data PATH --seed 3

Floors: PCA of masked voxels and k-means; the radial profile and the power spectrum under the weight, which no rotation
changes, and a Gaussian mixture; how well random shapes fit each particle in any orientation, which is what templates
begin with (``cryodc/templates/shapes.py``), and a Gaussian mixture. Ceiling: PCA with missing data in the true poses
(Tipping & Bishop 1999), up to shell 8, and a Gaussian mixture. These are told the number of proteins. The other
ceiling, ``supervised``, is taught with labelled particles simulated anew, for so many --minutes
(``benchmarks/sets/supervised.py``), and runs only where --methods names it. Skips what has been measured.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from benchmarks.command import run
from benchmarks.measurements import find_result, save_result
from benchmarks.sets.recipes import SETS, common_parser, read_proteins, set_name, simulation_config
from benchmarks.sets.supervised import fresh_particles, supervised_labels, time_budget
from cryodc.evaluation import LinearProbe, composition_scores, probe_json, wedge_in_reference
from cryodc.fourier import crop_weights, fourier_crop, missing_moments, standardise, view_mask
from cryodc.simulation import SimulatedParticles, simulate_particles
from cryodc.states import PosedBatch, fit_axes, measure
from cryodc.templates import BOX, shape_points, spectra_of

_BATCH = 64
_N_COMPONENTS = 20
_N_AXES = 8
_N_INVARIANTS = 16
_N_SHAPE_AXES = 11
_N_SHELLS = 8
"""Numbers per particle grow with their cube; at the SNR of these sets there is hardly anything beyond."""
_SUPERVISED = "supervised"
_INVARIANT = "invariant-mixture"

Labels = Int[NDArray[np.int64], " n"]


def pca_k_means(particles: SimulatedParticles, n_clusters: int, seed: int) -> Labels:
    """k-means of the principal components of voxels inside the sphere that every rotation keeps."""
    mask = view_mask(particles.volumes.shape[-1])
    voxels = (standardise(particles.volumes) * mask)[:, mask > 0.01].numpy()
    scores = PCA(min(_N_COMPONENTS, len(voxels) - 1), random_state=seed).fit_transform(voxels)
    return np.asarray(KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(scores), dtype=np.int64)


def invariant_mixture(particles: SimulatedParticles, n_clusters: int, seed: int) -> Labels:
    """A Gaussian mixture of :func:`invariant_features`, each of variance 1."""
    features = invariant_features(particles)
    return _mixture((features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9), n_clusters, seed)


def invariant_features(particles: SimulatedParticles) -> Float[NDArray[np.float64], "n p"]:
    """Mean density of each radial shell, and log power of each Fourier shell where it was measured."""
    box = particles.volumes.shape[-1]
    axis, full = torch.arange(box) - box // 2, torch.fft.fftfreq(box, 1 / box)
    half = torch.fft.rfftfreq(box, 1 / box)
    radii = _radii(axis, axis, axis)
    shells = _radii(full, full, half)
    # Of each pair of conjugate voxels half a spectrum holds one, but both where x is 0.
    stored = torch.where(half == 0, 1.0, 2.0)
    mask, rows = view_mask(box), []
    for start in range(0, len(particles.volumes), _BATCH):
        volumes = standardise(particles.volumes[start : start + _BATCH])
        weights = particles.weights[particles.weight_index[start : start + _BATCH]].square() * stored
        power = torch.fft.rfftn(volumes * mask, dim=(1, 2, 3)).abs().square()
        spectrum = _shell_sums(power * weights, shells, box) / _shell_sums(weights, shells, box).clamp_min(1e-9)
        profile = _shell_sums(volumes, radii, box) / _shell_sums(torch.ones_like(volumes[:1]), radii, box)
        rows.append(torch.cat([profile, spectrum[:, 1:].clamp_min(1e-9).log()], dim=1))
    return torch.cat(rows).double().numpy()


def shape_mixture(particles: SimulatedParticles, n_clusters: int, seed: int) -> Labels:
    """A Gaussian mixture of how well random shapes fit each particle, in units of what wedge and noise change."""
    batches = []
    for start in range(0, len(particles.volumes), _BATCH):
        volumes = standardise(fourier_crop(particles.volumes[start : start + _BATCH], BOX))
        index = particles.weight_index[start : start + _BATCH]
        batches.append((volumes, crop_weights(particles.weights, BOX)[index]))
    spectra = spectra_of(batches, len(particles.volumes), particles.volumes.device)
    # A covariance of each cluster has no more axes than so few particles can fill.
    n_axes = min(_N_SHAPE_AXES, max(n_clusters - 1, len(spectra) // 100))
    return _mixture(shape_points(spectra, n_axes, seed=seed), n_clusters, seed)


def feature_leakage(particles: SimulatedParticles) -> list[dict[str, Any]]:
    """What a linear probe tells of pose and wedge from the principal components of :func:`invariant_features`.

    Within each source, as ``cryodc evaluate`` probes content codes, all point groups taken as C1.
    """
    features = invariant_features(particles)
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)
    components = PCA(min(_N_INVARIANTS, *scaled.shape), random_state=0).fit_transform(scaled).astype(np.float32)
    rotations = particles.poses.rotations.astype(np.float64)
    moments = torch.stack([missing_moments(weight) for weight in particles.weights]).numpy()[particles.weight_index]
    probe = LinearProbe(components, particles.labels.astype(np.int64), 0)
    factors = {"orientation": rotations.reshape(-1, 9), "wedge_particle": wedge_in_reference(rotations, moments)}
    return [{"factor": name, "content": probe_json(probe.values(values))} for name, values in factors.items()]


def oracle_mixture(particles: SimulatedParticles, n_clusters: int, seed: int, spacing_angstrom: float = 10.0) -> Labels:
    """A Gaussian mixture of missing-data principal components in the true poses."""
    box = particles.volumes.shape[-1]
    poses = particles.poses
    rotations = torch.from_numpy(poses.rotations).float()
    origins = torch.from_numpy(poses.origins_angstrom / spacing_angstrom).float()

    def batches() -> Iterator[PosedBatch]:
        for rows in torch.arange(len(particles.volumes)).split(_BATCH):
            weights = particles.weights[particles.weight_index[rows]]
            yield standardise(particles.volumes[rows]), weights, rotations[rows], origins[rows]

    measured, _ = measure(batches, view_mask(box), min(_N_SHELLS, box // 2 - 2))
    generator = torch.Generator().manual_seed(seed)
    axes, _ = fit_axes(measured, min(_N_AXES, len(measured) - 1), generator)
    return _mixture(axes.posterior(measured)[0].double().numpy(), n_clusters, seed)


METHODS: dict[str, Callable[[SimulatedParticles, int, int], Labels]] = {
    "pca-k-means": pca_k_means,
    _INVARIANT: invariant_mixture,
    "shape-mixture": shape_mixture,
    "oracle-mixture": oracle_mixture,
}


def main() -> None:
    """Measure one set for one seed."""
    parser = common_parser(__doc__)
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, _SUPERVISED], default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of teaching, for supervised")
    arguments = parser.parse_args()
    if arguments.minutes <= 0:
        parser.error("--minutes: expected more than 0")
    particles_of, seed = set_name(arguments), arguments.seed
    missing = [
        name
        for name in arguments.methods
        if not find_result(arguments.results, particles_of, _method(name, arguments), seed)
    ]
    if not missing:
        return
    recipe = SETS[arguments.set]
    proteins, config = read_proteins(recipe, arguments.data), simulation_config(recipe, arguments)
    particles = simulate_particles(proteins, config)
    families = recipe.family_of_source()
    labels = families[particles.labels]
    for name in missing:
        began = time.monotonic()
        more: dict[str, Any] = {}
        if name == _SUPERVISED:
            fresh = fresh_particles(proteins, config)
            budget = time_budget(arguments.minutes)
            found, epochs = supervised_labels(particles, fresh, families, seed, budget)
            more = {"minutes": arguments.minutes, "epochs": epochs}
        else:
            found = METHODS[name](particles, len(recipe.families), seed)
            if name == _INVARIANT:
                more = {"leakage": feature_leakage(particles)}
        scores = composition_scores(found, labels)
        save_result(
            arguments.results,
            {
                "set": particles_of,
                "method": _method(name, arguments),
                "seed": seed,
                "n_particles": len(labels),
                "ari": round(scores.ari, 4),
                "accuracy": round(scores.accuracy, 4),
                "seconds": round(time.monotonic() - began),
                **more,
            },
        )


def _method(name: str, arguments: argparse.Namespace) -> str:
    """With the minutes where they decide what is found."""
    return f"{name}-{arguments.minutes:g}min" if name == _SUPERVISED else name


def _mixture(features: NDArray[np.float64], n_clusters: int, seed: int) -> Labels:
    mixture = GaussianMixture(n_clusters, n_init=5, random_state=seed, reg_covar=1e-3)
    return np.asarray(mixture.fit_predict(features), dtype=np.int64)


def _radii(z: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    squares = z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2
    return squares.float().sqrt().round().long()


def _shell_sums(values: torch.Tensor, shells: torch.Tensor, box: int) -> torch.Tensor:
    n_shells = box // 2
    inside = shells.flatten() < n_shells
    sums = torch.zeros(len(values), n_shells)
    return sums.index_add(1, shells.flatten()[inside], values.flatten(1)[:, inside])


if __name__ == "__main__":
    run(main)
