"""The run folder: its files, settings, codes, particles and classes; what of it is current, and who may write."""

from cryodc.runs.classes import Clusters, Trial
from cryodc.runs.codes import load_codes, save_codes
from cryodc.runs.config import input_options, load_config, save_config
from cryodc.runs.current import (
    classes_if_any,
    current_averages,
    current_classes,
    current_states,
    fingerprint_of_averages,
    fingerprint_of_clusters,
    fingerprint_of_codes,
    load_clusters,
    made_by_hand,
    require_averages,
    write_clusters,
)
from cryodc.runs.folder import RunFolder, find_run, require
from cryodc.runs.lock import writing
from cryodc.runs.particles import load_run_dataset, load_run_particles, open_run_dataset, read_run_particles
from cryodc.runs.status import RunStatus, Step, run_status
from cryodc.runs.summaries import (
    AverageSummary,
    ClassificationSummary,
    ClassSummary,
    GridSummary,
    Requested,
    StatesSummary,
    Summary,
    TraversalSummary,
    TraversedAxis,
    damaged,
    read_summary,
    write_summary,
)
from cryodc.runs.tables import FSC_COLUMNS, read_arrays, read_table

__all__ = [
    "FSC_COLUMNS",
    "AverageSummary",
    "ClassSummary",
    "ClassificationSummary",
    "Clusters",
    "GridSummary",
    "Requested",
    "RunFolder",
    "RunStatus",
    "StatesSummary",
    "Step",
    "Summary",
    "TraversalSummary",
    "TraversedAxis",
    "Trial",
    "classes_if_any",
    "current_averages",
    "current_classes",
    "current_states",
    "damaged",
    "find_run",
    "fingerprint_of_averages",
    "fingerprint_of_clusters",
    "fingerprint_of_codes",
    "input_options",
    "load_clusters",
    "load_codes",
    "load_config",
    "load_run_dataset",
    "load_run_particles",
    "made_by_hand",
    "open_run_dataset",
    "read_arrays",
    "read_run_particles",
    "read_summary",
    "read_table",
    "require",
    "require_averages",
    "run_status",
    "save_codes",
    "save_config",
    "write_clusters",
    "write_summary",
    "writing",
]
