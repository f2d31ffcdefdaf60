"""The HTML report."""

from cryodc.report.page import write_report

__all__ = [
    "write_report",
]
