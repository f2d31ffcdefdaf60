"""What leaves a run: particles for other programs, some classes, averages back in their tomograms."""

from cryodc.export.back_mapping import map_back
from cryodc.export.export import Program, export_run
from cryodc.export.named import NamedRun, read_names, run_of_names
from cryodc.export.placements import load_placements
from cryodc.export.planned_volumes import PlannedTomogram, describe_bytes
from cryodc.export.programs import export_anndata
from cryodc.export.rows import write_rows
from cryodc.export.select import classes_text, parse_classes, select_run

__all__ = [
    "NamedRun",
    "PlannedTomogram",
    "Program",
    "classes_text",
    "describe_bytes",
    "export_anndata",
    "export_run",
    "load_placements",
    "map_back",
    "parse_classes",
    "read_names",
    "run_of_names",
    "select_run",
    "write_rows",
]
