"""The number of clusters of content codes: mixtures of every size, and the evidence for each.

A number is right when its clusters are all there and no cluster is cut in two. Codes trained by InfoNCE lie on curved
arcs, which a Gaussian mixture goes on fitting better the more components it has, so its BIC cannot tell. But where a
cluster is cut in two, the density of the codes does not fall between the halves, or, where a protein that moves is
found most often at the ends of its motion, not as far as noise would let it.
"""

import warnings

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture

from cryodc.clustering.valley import VALLEY, valley_limit
from cryodc.runs import Trial

MAX_CLUSTERS = 30
STABLE = 0.85
SEPARATED = 0.25
_MAX_COMPONENTS = 12
_VARIANCE_KEPT = 0.99
_N_STARTS = 5
_N_SUBSAMPLES = 10
_PARTS = (1, 2, 3)
"""Numbers that are tried within one cluster."""
_FEWEST_SPLIT = 40
"""A cluster of fewer particles is not split."""


def holds(trial: Trial) -> bool:
    """Whether all clusters stand apart from each other and are found again in subsamples."""
    return trial.valley <= trial.threshold and trial.silhouette >= SEPARATED and trial.stability >= STABLE


def content_features(points: Float[NDArray[np.floating], "n c"]) -> Float[NDArray[np.float64], "n p"]:
    """Content codes as they are compared, centred and rotated onto the PCA axes that hold 99 % of their variance."""
    if min(points.shape[1], len(points) - 1) < 1 or np.ptp(points, axis=0).max() == 0:
        return np.zeros((len(points), 1))
    pca, n_kept = content_axes(points)
    return np.asarray(pca.transform(points.astype(np.float64))[:, :n_kept])


def content_axes(points: Float[NDArray[np.floating], "n c"]) -> tuple[PCA, int]:
    """The PCA of at least two content codes that are not all the same, and how many of its axes are kept."""
    n_components = min(_MAX_COMPONENTS, points.shape[1], len(points) - 1)
    pca = PCA(n_components=n_components, svd_solver="full").fit(points.astype(np.float64))
    kept = int(np.searchsorted(np.cumsum(pca.explained_variance_ratio_), _VARIANCE_KEPT)) + 1
    return pca, max(1, min(kept, n_components))


def fit_mixture(
    features: Float[NDArray[np.float64], "n p"],
    n_clusters: int,
    seed: int,
    n_starts: int = _N_STARTS,
    means: Float[NDArray[np.float64], "k p"] | None = None,
) -> GaussianMixture:
    """A Gaussian mixture with one covariance for all components, the best of several starts.

    Parameters
    ----------
    features
        ``(n, p)`` points.
    n_clusters
        Components.
    seed
        Of the starts.
    n_starts
        Number of starts; the most likely result is kept.
    means
        The one start, in place of those of k-means.
    """
    mixture = GaussianMixture(
        n_clusters,
        covariance_type="tied",
        n_init=n_starts if means is None else 1,
        means_init=means,
        random_state=seed,
        reg_covar=1e-6,
        max_iter=300,
    )
    with warnings.catch_warnings():
        # A number of clusters that the codes do not support may not converge; its BIC then decides against it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(features)


def try_number(
    features: Float[NDArray[np.float64], "n p"], mixture: GaussianMixture, seed: int, in_units: bool = False
) -> Trial:
    """Measure the evidence for a fitted mixture.

    Parameters
    ----------
    features
        ``(n, p)`` points.
    mixture
        A mixture fitted to them.
    seed
        Of subsamples and bootstrap.
    in_units
        Whether 1 is what noise does to a particle, as in codes made of templates.
    """
    k = mixture.n_components
    bic = float(mixture.bic(features))
    labels = mixture.predict(features)
    if len(set(labels.tolist())) < max(k, 2):
        # One cluster, or a component that holds nobody.
        return Trial(k, bic, 1.0, 0.0, 1.0 if k == 1 else 0.0, VALLEY)
    valley, threshold = valley_limit(features, labels, mixture.precisions_, seed, in_units)
    silhouette = float(silhouette_score(features, labels, sample_size=min(len(features), 5000), random_state=seed))
    # What is out already is not worth ten more fits.
    worth = valley <= threshold and silhouette >= SEPARATED
    return Trial(k, bic, valley, silhouette, subsample_stability(features, mixture, seed) if worth else 0.0, threshold)


def choose_number(trials: list[Trial]) -> Trial:
    """The largest number that holds and beats every smaller one in BIC; one cluster if there is none."""
    chosen, lowest_bic = trials[0], trials[0].bic
    for trial in trials[1:]:
        if holds(trial) and trial.bic < lowest_bic:
            chosen = trial
        lowest_bic = min(lowest_bic, trial.bic)
    return chosen


def choose_mixture(
    features: Float[NDArray[np.float64], "n p"], seed: int, in_units: bool = False
) -> tuple[GaussianMixture, Trial, list[Trial]]:
    """The mixture of :func:`choose_number` among 1 to 30 components, its trial, and those of all.

    Of many clusters k-means often puts two into one component and cuts a third. So each cluster of the chosen mixture
    is asked once more, by itself, whether it is several. Its parts are kept if the mixture that starts from them holds.

    Parameters
    ----------
    features
        As :func:`content_features` gives them; no component for fewer than 10 of them is tried.
    seed
        Starts and subsamples.
    in_units
        Whether 1 is what noise does to a particle, as in codes made of templates.
    """
    largest = max(1, min(MAX_CLUSTERS, len(features) // 10))
    mixtures = [fit_mixture(features, k, seed) for k in range(1, largest + 1)]
    trials = [try_number(features, mixture, seed, in_units) for mixture in mixtures]
    chosen = choose_number(trials)
    mixture = mixtures[chosen.n_clusters - 1]
    whole: set[bytes] = set()
    while (split := _split(features, mixture, chosen, seed, in_units, whole)) and split[1].n_clusters <= largest:
        mixture, chosen = split
        trials[chosen.n_clusters - 1] = chosen
    return mixture, chosen, trials


def _split(
    features: Float[NDArray[np.float64], "n p"],
    mixture: GaussianMixture,
    chosen: Trial,
    seed: int,
    in_units: bool,
    whole: set[bytes],
) -> tuple[GaussianMixture, Trial] | None:
    """The mixture in which several clusters, or one, are in parts, and its trial; None if none holds.

    Clusters that are found to be one are added to ``whole`` and not asked again.
    """
    k, labels = mixture.n_components, mixture.predict(features)
    means = {label: mixture.means_[label : label + 1] for label in range(k)}
    parts: dict[int, NDArray[np.float64]] = {}
    for label in range(k if k > 1 else 0):
        rows = np.flatnonzero(labels == label)
        if len(rows) < _FEWEST_SPLIT or rows.tobytes() in whole:
            continue
        own = content_features(features[rows])
        within = [fit_mixture(own, n, seed) for n in _PARTS]
        n_parts = choose_number([try_number(own, part, seed, in_units) for part in within]).n_clusters
        if n_parts == 1:
            whole.add(rows.tobytes())
            continue
        part_of = within[n_parts - 1].predict(own)
        parts[label] = np.stack([features[rows[part_of == part]].mean(axis=0) for part in range(n_parts)])
    alone = [{label: part} for label, part in parts.items()] if len(parts) > 1 else []
    for chosen_parts in [parts, *alone] if parts else []:
        start = np.concatenate(list((means | chosen_parts).values()))
        joint = fit_mixture(features, len(start), seed, means=start)
        trial = try_number(features, joint, seed, in_units)
        if holds(trial) and trial.bic < chosen.bic:
            return joint, trial
    return None


def subsample_stability(features: Float[NDArray[np.float64], "n p"], mixture: GaussianMixture, seed: int) -> float:
    """Mean ARI between a mixture's labels and those of mixtures fitted to 80 % of the particles."""
    n_clusters = mixture.n_components
    if n_clusters == 1:
        return 1.0
    generator = np.random.default_rng(seed)
    labels = mixture.predict(features)
    size = max(n_clusters, round(0.8 * len(features)))
    scores = []
    for repeat in range(_N_SUBSAMPLES):
        keep = generator.choice(len(features), size, replace=False)
        refitted = fit_mixture(features[keep], n_clusters, seed + 1 + repeat, n_starts=2)
        scores.append(adjusted_rand_score(labels, refitted.predict(features)))
    return float(np.mean(scores))
