"""Clusters of particles that were not clustered: by the clusters of those that were."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

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
        Of the same particles.
    new
        Codes that the same model made of others.
    """
    if clusters.n_clusters == 1:
        return np.zeros(len(new), dtype=np.int64), np.ones(len(new))
    pca, n_kept = content_axes(codes.content_points)
    known, others = (pca.transform(c.content_points.astype(np.float64))[:, :n_kept] for c in (codes, new))
    posterior = LinearDiscriminantAnalysis().fit(known, clusters.labels).predict_proba(others)
    return posterior.argmax(axis=1).astype(np.int64), posterior.max(axis=1)
