"""What people look at: the HTML report and the napari viewer."""

from cryodc.report.page import write_report
from cryodc.report.viewer import run_viewer

__all__ = [
    "run_viewer",
    "write_report",
]
