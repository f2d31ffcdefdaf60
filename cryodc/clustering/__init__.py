"""Clusters of content codes, and how many there are."""

from cryodc.clustering.assign import clusters_of_new, linear_rule
from cryodc.clustering.between import lie_apart
from cryodc.clustering.by_hand import separate_class, split_class
from cryodc.clustering.cluster import cluster_codes, cluster_run, write_class_stars
from cryodc.clustering.mixture import SEPARATED, STABLE, choose_mixture, content_features, fit_mixture
from cryodc.clustering.representatives import k_medoids, medoids, middle_code, principal_axes, spread_codes
from cryodc.clustering.valley import VALLEY, valley_between

__all__ = [
    "SEPARATED",
    "STABLE",
    "VALLEY",
    "choose_mixture",
    "cluster_codes",
    "cluster_run",
    "clusters_of_new",
    "content_features",
    "fit_mixture",
    "k_medoids",
    "lie_apart",
    "linear_rule",
    "medoids",
    "middle_code",
    "principal_axes",
    "separate_class",
    "split_class",
    "spread_codes",
    "valley_between",
    "write_class_stars",
]
