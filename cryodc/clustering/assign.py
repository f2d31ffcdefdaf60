"""Clusters of particles that were not clustered: by the clusters of those that were."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.mixture import GaussianMixture

from cryodc.clustering.mixture import content_axes
from cryodc.codes import Codes
from cryodc.runs import Clusters


def clusters_of_new(
    codes: Codes, clusters: Clusters, new: Codes
) -> tuple[Int[NDArray[np.int64], " n"], Float[NDArray[np.float64], " n"]]:
    """Cluster, 0-based, and its posterior probability, of new particles.

    A linear discriminant is a mixture of Gaussians of one covariance whose members are known: the model that clusters
    were found with.

    Parameters
    ----------
    codes, clusters
        Of the same particles; those of no class have no part in it.
    new
        Codes that the same model made of others.
    """
    if clusters.n_clusters == 1:
        return np.zeros(len(new), dtype=np.int64), np.ones(len(new))
    pca, n_kept = content_axes(codes.content_points)
    known, others = (pca.transform(c.content_points.astype(np.float64))[:, :n_kept] for c in (codes, new))
    assigned = clusters.labels >= 0
    rule = LinearDiscriminantAnalysis().fit(known[assigned], clusters.labels[assigned])
    posterior = rule.predict_proba(others)
    return rule.classes_[posterior.argmax(axis=1)].astype(np.int64), posterior.max(axis=1)


def linear_rule(
    points: Float[NDArray[np.float32], "n k"], mixture: GaussianMixture
) -> tuple[Float[NDArray[np.float64], "k g"], Float[NDArray[np.float64], " g"]]:
    """Normals and offsets: ``(points · normals + offsets).argmax(axis=1)`` is the component that a mixture predicts.

    The components of a mixture share one covariance, so the logarithms of their posteriors differ by linear functions.

    Parameters
    ----------
    points
        Content codes.
    mixture
        Fitted to :func:`cryodc.clustering.mixture.content_features` of these.
    """
    if mixture.n_components == 1:
        return np.zeros((points.shape[1], 1)), np.zeros(1)
    pca, n_kept = content_axes(points)
    axes, along = pca.components_[:n_kept].T, mixture.means_ @ mixture.precisions_
    normals = axes @ along.T
    offsets = np.log(mixture.weights_) - (along * mixture.means_).sum(axis=1) / 2 - pca.mean_ @ normals
    return normals, offsets
