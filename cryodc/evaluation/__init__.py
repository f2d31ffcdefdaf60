"""Found against true, and what codes hold beside identity."""

from cryodc.evaluation.agreement import compare_maps
from cryodc.evaluation.disentanglement import Accuracy, Disentanglement, disentangle, disentangle_labels
from cryodc.evaluation.evaluate import Evaluation, evaluate_run, match_names
from cryodc.evaluation.factors import true_factors
from cryodc.evaluation.leakage import LeakageTable, measure_leakage, probe_json, run_leakage
from cryodc.evaluation.moments import wedge_in_reference
from cryodc.evaluation.probes import N_SHUFFLES, LinearProbe, Probe
from cryodc.evaluation.scores import composition_scores, pose_errors
from cryodc.evaluation.sources import RunSources

__all__ = [
    "N_SHUFFLES",
    "Accuracy",
    "Disentanglement",
    "Evaluation",
    "LeakageTable",
    "LinearProbe",
    "Probe",
    "RunSources",
    "compare_maps",
    "composition_scores",
    "disentangle",
    "disentangle_labels",
    "evaluate_run",
    "match_names",
    "measure_leakage",
    "pose_errors",
    "probe_json",
    "run_leakage",
    "true_factors",
    "wedge_in_reference",
]
