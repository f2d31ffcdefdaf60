"""Poses of particles: against a map, from nothing, of one class or of several."""

from cryodc.alignment.align import (
    FEWEST_START_SHELLS,
    JUDGED_SHELLS,
    START_SHELLS,
    Alignment,
    align_class,
    most_start_shells,
)
from cryodc.alignment.evidence import FEWEST, SIGNIFICANT, gain_of_two, merge_classes, start_reference
from cryodc.alignment.halves import balanced_halves
from cryodc.alignment.null import FALSE_POSITIVES, NoiseNull, make_null, score_noise
from cryodc.alignment.references import (
    ClassPoses,
    References,
    cluster_log_prior,
    empty_poses,
    estimate_noise,
    join_references,
    make_references,
    refine_classes,
    search_classes,
)
from cryodc.alignment.refine import refine_poses
from cryodc.alignment.register import register_map
from cryodc.alignment.search import PoseSet, climb, search_poses, shared_poses
from cryodc.alignment.spectra import ClassSpectra

__all__ = [
    "FALSE_POSITIVES",
    "FEWEST",
    "FEWEST_START_SHELLS",
    "JUDGED_SHELLS",
    "SIGNIFICANT",
    "START_SHELLS",
    "Alignment",
    "ClassPoses",
    "ClassSpectra",
    "NoiseNull",
    "PoseSet",
    "References",
    "align_class",
    "balanced_halves",
    "climb",
    "cluster_log_prior",
    "empty_poses",
    "estimate_noise",
    "gain_of_two",
    "join_references",
    "make_null",
    "make_references",
    "merge_classes",
    "most_start_shells",
    "refine_classes",
    "refine_poses",
    "register_map",
    "score_noise",
    "search_classes",
    "search_poses",
    "shared_poses",
    "start_reference",
]
