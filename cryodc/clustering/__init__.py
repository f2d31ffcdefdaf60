"""Clusters of content codes, and how many there are."""

from cryodc.clustering.cluster import Clusters, are_averages_of, cluster_codes, cluster_run, load_clusters
from cryodc.clustering.mixture import SEPARATED, Trial, choose_mixture, content_features, fit_mixture
from cryodc.clustering.representatives import k_medoids, medoids, middle_code, principal_axes, spread_codes
from cryodc.clustering.valley import VALLEY, valley_between

__all__ = [
    "SEPARATED",
    "VALLEY",
    "Clusters",
    "Trial",
    "are_averages_of",
    "choose_mixture",
    "cluster_codes",
    "cluster_run",
    "content_features",
    "fit_mixture",
    "k_medoids",
    "load_clusters",
    "medoids",
    "middle_code",
    "principal_axes",
    "spread_codes",
    "valley_between",
]
